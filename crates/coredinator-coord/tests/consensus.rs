//! `consensus`: known answers, optimality, and agents that do not play along.

mod paper;

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use coredinator_coord::strategies::Consensus;
use coredinator_core::coordination::{
    Answer, Budget, DecisionOutcome, Intention, Negotiator, Offer, Plan, PlanStatus, Problem,
};
use paper::{agent, assert_near, decision, granted, negotiated, plan, problem};
use proptest::prelude::*;
use serde_json::{Value, json};

fn consensus() -> Consensus {
    Consensus::default()
}

/// Agents that want b of one resource each, worth b x - x² / 2.
fn quadratic(capacity: f64, wanted: &[f64]) -> Problem {
    let ids: Vec<String> = (0..wanted.len()).map(|at| format!("a{at}")).collect();
    let intention = |(id, b): (&String, &f64)| {
        json!({"agent_id": id, "options": [{"id": "all", "demands": {"steam": b}, "utility": b * b / 2.0,
            "elastic": {"min_fraction": 1e-9, "shape": "quadratic"}}]})
    };
    problem(json!({
        "resources": [{"name": "steam", "capacity": capacity}],
        "agents": ids.iter().map(|id| agent(id)).collect::<Vec<_>>(),
        "intentions": ids.iter().zip(wanted).map(intention).collect::<Vec<_>>(),
    }))
}

#[test]
fn concave_utilities_meet_at_the_clearing_price() {
    let cases = [
        (12.0, 10.0 / 3.0, [20.0 / 3.0, 14.0 / 3.0, 2.0 / 3.0]),
        (10.0, 4.0, [6.0, 4.0, 0.0]),
        (30.0, 0.0, [10.0, 8.0, 4.0]),
    ];
    for (capacity, price, expected) in cases {
        let plan = plan(&consensus(), &quadratic(capacity, &[10.0, 8.0, 4.0]));
        for (at, expected) in expected.into_iter().enumerate() {
            assert_near(granted(&plan, &format!("a{at}"), "steam"), expected);
        }
        assert_near(plan.prices.as_ref().expect("prices")["steam"], price);
        assert!(plan.converged, "{capacity}: {plan:?}");
        assert!(plan.gap < 1e-6, "{capacity}: {}", plan.gap);
        assert!(price > 0.0 || plan.status == PlanStatus::Optimal, "{capacity}: {plan:?}");
    }
}

fn setpoint(max: f64) -> Problem {
    let claim = |id: &str, value: f64, weight: f64| {
        json!({"agent_id": id, "options": [{"id": "o", "utility": 1.0,
            "claims": {"t": {"value": value, "weight": weight}}}]})
    };
    problem(json!({
        "variables": [{"name": "t", "min": 0.0, "max": max, "on_conflict": "blend"}],
        "agents": [agent("a"), agent("b")],
        "intentions": [claim("a", 60.0, 1.0), claim("b", 80.0, 3.0)],
    }))
}

#[test]
fn a_shared_value_is_agreed_on_within_its_box() {
    assert_near(plan(&consensus(), &setpoint(100.0)).values["t"], 75.0);
    let boxed = plan(&consensus(), &setpoint(70.0));
    assert_near(boxed.values["t"], 70.0);
    assert!(boxed.converged);
}

/// One task or machine each: utilities by agent and task.
fn tasks(worth: &[&[f64]], priorities: &[i32]) -> Problem {
    let task = |at: usize| format!("t{at}");
    let intention = |(at, worth): (usize, &&[f64])| {
        let option =
            |(at, utility): (usize, &f64)| json!({"id": task(at), "demands": {task(at): 1}, "utility": utility});
        json!({"agent_id": format!("a{at}"), "options": worth.iter().enumerate().map(option).collect::<Vec<_>>()})
    };
    let agent = |at: usize| json!({"agent_id": format!("a{at}"), "fallback": "release", "priority": priorities.get(at).copied().unwrap_or(0)});
    problem(json!({
        "resources": (0..worth[0].len())
            .map(|at| json!({"name": task(at), "capacity": 1, "kind": "unit"})).collect::<Vec<_>>(),
        "agents": (0..worth.len()).map(agent).collect::<Vec<_>>(),
        "intentions": worth.iter().enumerate().map(intention).collect::<Vec<_>>(),
    }))
}

#[test]
fn of_two_that_are_alike_exactly_one_wins_a_single_thing() {
    for (priorities, winner) in [([0, 0], "a0"), ([0, 1], "a1")] {
        let plan = plan(&consensus(), &tasks(&[&[5.0], &[5.0]], &priorities));
        let winners: Vec<&str> = plan
            .decisions
            .iter()
            .filter(|decision| decision.outcome == DecisionOutcome::Granted)
            .map(|decision| decision.agent_id.as_str())
            .collect();
        assert_eq!(winners, [winner]);
        assert!(!plan.converged, "no price makes exactly one want it");
        assert_eq!(plan.status, PlanStatus::Optimal, "although no plan is worth more");
    }
}

#[test]
fn prices_find_the_assignment_that_a_greedy_auction_misses() {
    // The consensus-based bundle algorithm gives a0 the task worth 10 and a1 what is left: 11 of 18.
    let plan = plan(&consensus(), &tasks(&[&[10.0, 9.0], &[9.0, 1.0]], &[]));
    assert_eq!(plan.objective, 18.0);
    assert_eq!(decision(&plan, "a0").option_id.as_deref(), Some("t1"));
}

/// Agents with one elastic option each on some resources, as a document.
fn shared(capacities: &[f64], agents: &[(f64, f64, usize, Vec<f64>)]) -> Problem {
    let shapes = ["quadratic", "log", "linear"];
    let name = |at: usize| format!("r{at}");
    let intention = |(at, (_, utility, shape, demands)): (usize, &(f64, f64, usize, Vec<f64>))| {
        let demands: serde_json::Map<String, Value> =
            demands.iter().enumerate().map(|(at, amount)| (name(at), json!(amount))).collect();
        json!({"agent_id": format!("a{at:02}"), "options": [{"id": "o", "demands": demands, "utility": utility,
            "elastic": {"min_fraction": 1e-9, "shape": shapes[*shape]}}]})
    };
    problem(json!({
        "resources": capacities.iter().enumerate()
            .map(|(at, capacity)| json!({"name": name(at), "capacity": capacity})).collect::<Vec<_>>(),
        "agents": agents.iter().enumerate()
            .map(|(at, agent)| json!({"agent_id": format!("a{at:02}"), "fallback": "release", "weight": agent.0}))
            .collect::<Vec<_>>(),
        "intentions": agents.iter().enumerate().map(intention).collect::<Vec<_>>(),
    }))
}

/// The best there is on one resource, by bisection on its price.
fn bisected(capacity: f64, agents: &[(f64, f64, usize, Vec<f64>)]) -> f64 {
    use coredinator_core::coordination::Shape;
    let shapes = [Shape::Quadratic, Shape::Log, Shape::Linear];
    let at = |price: f64| -> Vec<f64> {
        agents
            .iter()
            .map(|(weight, utility, shape, demands)| {
                shapes[*shape].best_fraction(price * demands[0] / (weight * utility), 0.0)
            })
            .collect()
    };
    let load = |fractions: &[f64]| -> f64 { fractions.iter().zip(agents).map(|(f, agent)| f * agent.3[0]).sum() };
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if load(&at(middle)) > capacity { low = middle } else { high = middle }
    }
    let worth = |fractions: &[f64]| -> f64 {
        let each = fractions.iter().zip(agents);
        each.map(|(f, (weight, utility, shape, _))| weight * utility * shapes[*shape].worth(*f)).sum()
    };
    // What the price leaves over goes to those who are indifferent at it, and is worth the price.
    let fractions = at(high);
    worth(&fractions) + high * (capacity - load(&fractions)).max(0.0)
}

fn concave_agents(resources: usize) -> impl Strategy<Value = Vec<(f64, f64, usize, Vec<f64>)>> {
    let one = (0.2..4.0, 0.5..50.0, 0..3usize, prop::collection::vec(0.1..10.0, resources));
    prop::collection::vec(one, 2..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_one_resource_it_is_the_optimum(agents in concave_agents(1), part in 0.05..0.95) {
        let capacity = part * agents.iter().map(|agent| agent.3[0]).sum::<f64>();
        let plan = plan(&consensus(), &shared(&[capacity], &agents));
        let best = bisected(capacity, &agents);
        prop_assert!((plan.objective - best).abs() <= 1e-6 * best, "{} instead of {best}", plan.objective);
        prop_assert!(plan.bound >= best * (1.0 - 1e-9), "the bound {} is below the optimum {best}", plan.bound);
        prop_assert!(plan.converged);
    }

    #[test]
    fn on_several_it_is_within_a_thousandth(agents in concave_agents(3), parts in prop::collection::vec(0.1..0.9, 3)) {
        let capacities: Vec<f64> = parts.iter().enumerate()
            .map(|(at, part)| part * agents.iter().map(|agent| agent.3[at]).sum::<f64>()).collect();
        let plan = plan(&consensus(), &shared(&capacities, &agents));
        prop_assert!(plan.gap <= 1e-3, "the gap is {}, after {} rounds", plan.gap, plan.rounds);
    }
}

/// A round: its number, the prices, and what was offered.
type Round = (u32, Vec<f64>, Vec<Offer>);

/// Agents that answer by a rule, and what they were asked.
struct Scripted<F> {
    answer: F,
    asked: Mutex<Vec<Round>>,
}

impl<F: Fn(u32, &Offer) -> Answer + Send + Sync> Scripted<F> {
    fn new(answer: F) -> Self {
        Self { answer, asked: Mutex::default() }
    }

    fn rounds(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl<F: Fn(u32, &Offer) -> Answer + Send + Sync> Negotiator for Scripted<F> {
    async fn ask(&self, round: u32, prices: &[f64], offers: Vec<Offer>) -> Vec<Answer> {
        let answers = offers.iter().map(|offer| (self.answer)(round, offer)).collect();
        self.asked.lock().unwrap().push((round, prices.to_vec(), offers));
        answers
    }
}

/// As [`quadratic`], where the agents `negotiate`.
fn negotiating(capacity: f64, wanted: &[f64], required: bool) -> Problem {
    let mut document = quadratic(capacity, wanted).document().clone();
    for agent in &mut document.agents {
        let agent = std::sync::Arc::make_mut(agent);
        agent.negotiates = true;
        agent.endpoint = Some("http://127.0.0.1:1/agent".to_owned());
        if required {
            agent.fallback = None;
        }
    }
    Problem::new(document).unwrap()
}

fn wants(agent: &str, seq: u64, b: f64) -> Intention {
    serde_json::from_value(json!({"agent_id": agent, "seq": seq, "options": [{"id": format!("seq{seq}"),
        "demands": {"steam": b}, "utility": b * b / 2.0, "elastic": {"min_fraction": 1e-9, "shape": "quadratic"}}]}))
    .unwrap()
}

fn ask(problem: &Problem, negotiator: &dyn Negotiator) -> Plan {
    negotiated(&consensus(), problem, &Budget::default(), negotiator).0
}

#[test]
fn agents_that_accept_end_it_after_one_round() {
    let agents = Scripted::new(|_, _| Answer::Accepts);
    let plan = ask(&negotiating(12.0, &[10.0, 8.0, 4.0], false), &agents);
    assert_eq!((plan.rounds, plan.converged), (1, true));
    let asked = agents.asked.lock().unwrap();
    let (round, prices, offers) = &asked[0];
    assert_eq!((*round, offers.len()), (1, 3));
    assert_near(prices[0], 10.0 / 3.0);
    assert_near(offers[0].proposed.grant["steam"], 20.0 / 3.0);
}

#[test]
fn a_revision_is_worked_on_and_handed_back() {
    let problem = negotiating(12.0, &[10.0, 8.0, 4.0], false);
    // At 10/3 the first one finds that 6 would do; the rest is then enough for everyone at a price of 2.
    let agents = Scripted::new(|round, offer: &Offer| match (round, offer.proposed.agent_id.as_str()) {
        (1, "a0") => Answer::Revises(Box::new(wants("a0", 7, 6.0))),
        _ => Answer::Accepts,
    });
    let (plan, resolution) = negotiated(&consensus(), &problem, &Budget::default(), &agents);
    assert_eq!(resolution.revisions.len(), 1);
    assert_eq!(decision(&plan, "a0").option_id.as_deref(), Some("seq7"));
    for (id, amount) in [("a0", 4.0), ("a1", 6.0), ("a2", 2.0)] {
        assert_near(granted(&plan, id, "steam"), amount);
    }
    assert_eq!((plan.rounds, plan.converged), (2, true));
}

#[test]
fn a_revision_that_ends_the_conflict_gives_everyone_the_first_choice() {
    let agents = Scripted::new(|round, offer: &Offer| match (round, offer.proposed.agent_id.as_str()) {
        (1, id) => Answer::Revises(Box::new(wants(id, 1, 3.0))),
        _ => Answer::Accepts,
    });
    let plan = ask(&negotiating(12.0, &[10.0, 8.0, 4.0], false), &agents);
    assert!(plan.decisions.iter().all(|decision| decision.outcome == DecisionOutcome::Granted), "{plan:?}");
}

#[test]
fn who_is_silent_is_asked_twice_and_settled_by_its_last_word() {
    let agents = Scripted::new(|round, offer: &Offer| match offer.proposed.agent_id.as_str() {
        "a0" if round <= 4 => Answer::Revises(Box::new(wants("a0", u64::from(round), 10.0 + f64::from(round)))),
        "a0" => Answer::Accepts,
        _ => Answer::Silent,
    });
    let plan = ask(&negotiating(12.0, &[10.0, 8.0, 4.0], false), &agents);
    let asked: Vec<usize> = agents.asked.lock().unwrap().iter().map(|(_, _, offers)| offers.len()).collect();
    assert_eq!(asked, [3, 3, 1, 1, 1]);
    assert_eq!(decision(&plan, "a1").option_id.as_deref(), Some("all"));
}

#[test]
fn those_that_never_come_to_rest_are_cut_off_and_it_is_told() {
    let count = AtomicU32::new(0);
    let agents = Scripted::new(|_, offer: &Offer| {
        let next = count.fetch_add(1, Ordering::Relaxed);
        Answer::Revises(Box::new(wants(offer.proposed.agent_id.as_str(), u64::from(next), 1.0 + f64::from(next % 17))))
    });
    let plan = ask(&negotiating(12.0, &[10.0, 8.0, 4.0], false), &agents);
    assert_eq!((agents.rounds(), plan.rounds, plan.converged), (10, 10, false));
    let agents = Scripted::new(|_, offer: &Offer| {
        let next = count.fetch_add(1, Ordering::Relaxed);
        Answer::Revises(Box::new(wants(offer.proposed.agent_id.as_str(), u64::from(next), 1.0 + f64::from(next % 17))))
    });
    let problem = negotiating(12.0, &[10.0, 8.0, 4.0], false);
    let (plan, _) = negotiated(&consensus(), &problem, &Budget::new(Some(3)), &agents);
    assert_eq!((agents.rounds(), plan.converged), (3, false));
}

#[test]
fn nobody_is_put_out_by_what_another_revises() {
    // Both must get something; what the first one now insists on would leave nothing for the second.
    let agents = Scripted::new(|_, offer: &Offer| match offer.proposed.agent_id.as_str() {
        "a0" => {
            let mut greedy = wants("a0", 9, 12.0);
            greedy.options[0].elastic = None;
            Answer::Revises(Box::new(greedy))
        }
        _ => Answer::Accepts,
    });
    let plan = ask(&negotiating(12.0, &[10.0, 8.0], true), &agents);
    assert!(plan.shed.is_empty(), "{plan:?}");
    assert!(!plan.decision("a1").unwrap().grant.is_empty());
}

/// What an agent that means ill, or is broken, may answer.
fn nasty() -> impl Strategy<Value = Vec<(u8, f64, f64)>> {
    prop::collection::vec((0..9u8, -5.0..40.0, 0.0..1.0), 60)
}

fn spoilt(round: u32, offer: &Offer, (kind, number, part): (u8, f64, f64)) -> Answer {
    let id = offer.proposed.agent_id.as_str();
    let mut intention = wants(id, u64::from(round), number.abs() + 0.1);
    match kind {
        0 => return Answer::Silent,
        1 => return Answer::Accepts,
        2 => intention.options[0].utility = f64::NAN,
        3 => drop(intention.options[0].demands.insert("nothing".to_owned(), 1.0)),
        4 => intention.options.clear(),
        5 => intention = wants("a0", 1, number.abs()),
        6 => intention.options[0].elastic = None,
        7 => intention.valid_until_cycle = Some(0),
        _ => {
            intention.disagreement = Some(number * 10.0);
            let mut second = intention.options[0].clone();
            second.id = "second".to_owned();
            second.demands.insert("steam".to_owned(), part * 5.0);
            second.utility = number.abs() * 2.0;
            intention.options.push(second);
        }
    }
    Answer::Revises(Box::new(intention))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_agents_answer_the_plan_is_sound(script in nasty(), required in any::<bool>(), few in 0..4usize) {
        let mut document = negotiating(12.0, &[10.0, 8.0, 4.0, 6.0], required).document().clone();
        document.cycle = 5;
        let problem = Problem::new(document).unwrap();
        let agents = Scripted::new(|round, offer: &Offer| {
            spoilt(round, offer, script[(round as usize * 4 + offer.party) % script.len()])
        });
        let (plan, _) = negotiated(&consensus(), &problem, &Budget::default(), &agents);
        prop_assert!(plan.shed.is_empty());
        prop_assert!(plan.rounds <= 10);
        // Fewer or more answers than offers.
        struct Odd<'n>(&'n dyn Negotiator, usize);
        #[async_trait]
        impl Negotiator for Odd<'_> {
            async fn ask(&self, round: u32, prices: &[f64], offers: Vec<Offer>) -> Vec<Answer> {
                let mut answers = self.0.ask(round, prices, offers).await;
                answers.resize(self.1 * 2, Answer::Accepts);
                answers
            }
        }
        let (plan, _) = negotiated(&consensus(), &problem, &Budget::default(), &Odd(&agents, few));
        prop_assert!(plan.shed.is_empty());
    }
}

#[test]
fn time_that_is_up_leaves_a_plan() {
    let budget = Budget::default();
    budget.end();
    let (plan, _) = negotiated(
        &consensus(),
        &negotiating(12.0, &[10.0, 8.0, 4.0], false),
        &budget,
        &Scripted::new(|_, _| panic!("nobody is asked any more")),
    );
    assert_eq!(plan.status, PlanStatus::Fallback);
}

#[test]
fn options_are_checked() {
    let parse = |options: Value| Consensus::parse("/s", options).map(drop).map_err(|errors| errors[0].pointer.clone());
    assert_eq!(parse(json!({"rounds": 5, "negotiation_rounds": 0})), Ok(()));
    assert_eq!(parse(json!({"rounds": 0})), Err("/s/rounds".to_owned()));
    assert_eq!(parse(json!({"negotiation_rounds": 101})), Err("/s/negotiation_rounds".to_owned()));
    assert_eq!(parse(json!({"round": 5})), Err("/s/round".to_owned()));
}

#[test]
fn conforms() {
    coredinator_core::conformance::strategy::run(Consensus::default);
}
