//! `game_theoretic`: known answers, what bargaining promises, and payments under which lying does not pay.

mod paper;

use coredinator_coord::strategies::{Centralized, GameTheoretic};
use coredinator_core::coordination::{AgentId, Budget, NoNegotiator, Plan, PlanStatus, Problem};
use paper::{agent, assert_near, decision, granted, negotiated, plan, problem};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn strategy(options: Value) -> GameTheoretic {
    GameTheoretic::parse("", options).unwrap()
}

fn nash() -> GameTheoretic {
    GameTheoretic::default()
}

fn vcg() -> GameTheoretic {
    strategy(json!({"solution": "vcg"}))
}

fn best_response() -> GameTheoretic {
    strategy(json!({"solution": "best_response"}))
}

/// Two agents that have to agree on one of some outcomes, each worth so much to the one and to the other.
fn outcomes(worth: &[(f64, f64)]) -> Problem {
    let intention = |id: &str, first: bool| {
        let mut options: Vec<(f64, Value)> = worth
            .iter()
            .enumerate()
            .map(|(at, worth)| {
                let utility = if first { worth.0 } else { worth.1 };
                (utility, json!({"id": format!("o{at}"), "claims": {"mode": {"value": at}}, "utility": utility}))
            })
            .collect();
        options.sort_by(|a, b| b.0.total_cmp(&a.0));
        json!({"agent_id": id, "options": options.into_iter().map(|(_, option)| option).collect::<Vec<_>>()})
    };
    problem(json!({
        "variables": [{"name": "mode", "min": 0, "max": 100}],
        "agents": [agent("a"), agent("b")],
        "intentions": [intention("a", true), intention("b", false)],
    }))
}

fn utilities(plan: &Plan) -> Vec<f64> {
    plan.decisions.iter().map(|decision| decision.utility).collect()
}

#[test]
fn of_joint_outcomes_bargaining_takes_the_largest_product() {
    let problem = outcomes(&[(12.0, 1.0), (8.0, 4.0), (5.0, 5.0), (2.0, 9.0)]);
    let agreed = plan(&nash(), &problem);
    assert_eq!(utilities(&agreed), [8.0, 4.0]);
    assert_eq!(agreed.status, PlanStatus::Optimal);
    assert_eq!(utilities(&plan(&vcg(), &problem)), [12.0, 1.0], "the largest sum is another");
}

/// Two agents that share 12 units, of which each could use all.
fn cake(disagreement: f64) -> Problem {
    let intention = |id: &str, utility: f64, disagreement: f64| {
        json!({"agent_id": id, "disagreement": disagreement, "options": [{"id": "o", "demands": {"steam": 12},
            "utility": utility, "elastic": {"min_fraction": 1e-6, "shape": "linear"}}]})
    };
    problem(json!({
        "resources": [{"name": "steam", "capacity": 12}],
        "agents": [agent("a"), agent("b")],
        "intentions": [intention("a", 12.0, disagreement), intention("b", 24.0, 0.0)],
    }))
}

#[test]
fn what_is_shared_is_split_by_gains_whatever_their_unit() {
    for (disagreement, a, b) in [(0.0, 6.0, 6.0), (2.0, 7.0, 5.0)] {
        let plan = plan(&nash(), &cake(disagreement));
        assert_near(granted(&plan, "a", "steam"), a);
        assert_near(granted(&plan, "b", "steam"), b);
        assert_eq!(plan.status, PlanStatus::Optimal);
    }
}

#[test]
fn a_bent_utility_on_a_grid() {
    // x to the one, 1 - x to the other, worth x and sqrt(1 - x): the product is largest at 2/3.
    let steps = 60;
    let options = |worth: fn(f64) -> f64| -> Vec<Value> {
        let option = |part: i32| {
            let utility = worth(f64::from(part) / f64::from(steps));
            json!({"id": part.to_string(), "demands": {"slots": part}, "utility": utility})
        };
        (1..=steps).rev().map(option).collect()
    };
    let problem = problem(json!({
        "resources": [{"name": "slots", "capacity": steps, "kind": "unit"}],
        "agents": [agent("a"), agent("b")],
        "intentions": [{"agent_id": "a", "options": options(|x| x)}, {"agent_id": "b", "options": options(f64::sqrt)}],
    }));
    let plan = plan(&nash(), &problem);
    assert_eq!((granted(&plan, "a", "slots"), granted(&plan, "b", "slots")), (40.0, 20.0));
}

#[test]
fn weights_are_exponents() {
    let mut document = cake(0.0).document().clone();
    std::sync::Arc::make_mut(&mut document.agents[0]).weight = 3.0;
    let plan = plan(&nash(), &Problem::new(document).unwrap());
    assert_near(granted(&plan, "a", "steam"), 9.0);
}

/// Bidders for bundles of single things.
fn bundles(bids: &[(&[u32], f64)]) -> Problem {
    let things = bids.iter().flat_map(|(things, _)| things.iter()).max().unwrap();
    let intention = |(at, (things, utility)): (usize, &(&[u32], f64))| {
        let demands: Map<String, Value> = things.iter().map(|thing| (format!("t{thing}"), json!(1))).collect();
        json!({"agent_id": format!("b{}", at + 1), "options": [{"id": "all", "demands": demands, "utility": utility}]})
    };
    problem(json!({
        "resources": (1..=*things).map(|at| json!({"name": format!("t{at}"), "capacity": 1, "kind": "unit"}))
            .collect::<Vec<_>>(),
        "agents": (1..=bids.len()).map(|at| agent(&format!("b{at}"))).collect::<Vec<_>>(),
        "intentions": bids.iter().enumerate().map(intention).collect::<Vec<_>>(),
    }))
}

fn paid(plan: &Plan, agent: &str) -> f64 {
    plan.payments.as_ref().unwrap()[&AgentId::new(agent).unwrap()]
}

const AUCTION: [(&[u32], f64); 5] =
    [(&[1, 2, 3, 4], 8.0), (&[2, 3, 6], 6.0), (&[1, 4, 5], 5.0), (&[2, 8], 2.0), (&[5, 6], 2.0)];

#[test]
fn winners_pay_what_they_cost_the_others() {
    let plan = plan(&vcg(), &bundles(&AUCTION));
    assert_eq!(utilities(&plan), [0.0, 6.0, 5.0, 0.0, 0.0]);
    assert_eq!((plan.objective, plan.status), (11.0, PlanStatus::Optimal));
    let paid: Vec<f64> = (1..=5).map(|at| paid(&plan, &format!("b{at}"))).collect();
    assert_eq!(paid, [0.0, 5.0, 4.0, 0.0, 0.0]);
}

#[test]
fn a_bid_counts_as_far_as_the_credit_goes() {
    let problem = bundles(&AUCTION);
    let limited = strategy(json!({"solution": "vcg", "credit": {"b2": 2.5}}));
    // b2 counts 2.5, and 2.5 + 5 is less than 8 + 2; without b1 it would be 5.5 more than what b5 has.
    let plan = paper::plan(&limited, &problem);
    assert_eq!(utilities(&plan), [8.0, 0.0, 0.0, 0.0, 2.0]);
    assert_eq!(paid(&plan, "b1"), 5.5);
    let poor = paper::plan(&strategy(json!({"solution": "vcg", "credit": 1})), &problem);
    assert!(poor.payments.unwrap().values().all(|&paid| paid <= 1.0));
}

#[test]
fn nobody_pays_where_nothing_is_short() {
    let plan = plan(&vcg(), &bundles(&[(&[1], 5.0), (&[2], 3.0)]));
    assert!(plan.payments.unwrap().values().all(|&paid| paid == 0.0));
}

#[test]
fn vcg_divides_what_is_elastic_for_the_largest_sum() {
    let problem = problem(json!({
        "resources": [{"name": "steam", "capacity": 10}],
        "agents": [agent("all"), agent("some")],
        "intentions": [
            {"agent_id": "all", "options": [{"id": "run", "demands": {"steam": 6}, "utility": 6}]},
            {"agent_id": "some", "options": [{"id": "run", "demands": {"steam": 8}, "utility": 3,
                                              "elastic": {"min_fraction": 0.25}}]},
        ],
    }));
    let plan = plan(&vcg(), &problem);
    assert_near(granted(&plan, "some", "steam"), 4.0);
    assert_near(plan.objective, 7.5);
    // Without `all` the other would have it all, 1.5 more; without `some` nothing would change.
    assert_near(paid(&plan, "all"), 1.5);
    assert_near(paid(&plan, "some"), 0.0);
}

/// Four agents with elastic options share steam, beside so many others that have nothing to do with them.
fn with_others(others: usize, seed: u64) -> Problem {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut agents: Vec<Value> = Vec::new();
    let mut intentions: Vec<Value> = Vec::new();
    for at in 0..4 + others {
        let id = format!("a{at:02}");
        let resource = if at < 4 { "steam".to_owned() } else { format!("r{}", (at - 4) / 2) };
        let mut options: Vec<(u8, Value)> = (0..3)
            .map(|option| {
                let (utility, amount) = (rng.u8(5..25), rng.u8(3..9));
                let option = json!({"id": format!("o{option}"), "utility": utility, "demands": {&*resource: amount},
                                    "elastic": {"min_fraction": 0.3, "shape": "quadratic"}});
                (utility, option)
            })
            .collect();
        options.sort_by_key(|&(utility, _)| std::cmp::Reverse(utility));
        agents.push(agent(&id));
        intentions
            .push(json!({"agent_id": id, "options": options.into_iter().map(|(_, one)| one).collect::<Vec<_>>()}));
    }
    let resources = (0..others / 2).map(|at| format!("r{at}")).chain(["steam".to_owned()]);
    let resources: Vec<Value> = resources.map(|name| json!({"name": name, "capacity": 9})).collect();
    problem(json!({"resources": resources, "agents": agents, "intentions": intentions}))
}

#[test]
fn nobody_pays_for_how_closely_others_are_looked_at() {
    for (others, seed) in [0, 20, 22].into_iter().flat_map(|others| (0..4).map(move |seed| (others, seed))) {
        let problem = with_others(others, seed);
        let whole = plan(&vcg(), &problem);
        for id in ["a00", "a01", "a02", "a03"] {
            let mut document = problem.document().clone();
            document.intentions.retain(|intention| intention.agent_id.as_str() != id);
            document.agents.retain(|agent| agent.agent_id.as_str() != id);
            // One that wants nothing keeps their number.
            let mut idle = json!({"agent_id": "idle", "fallback": "release"});
            idle["group"] = json!(document.group);
            document.agents.push(serde_json::from_value(idle).unwrap());
            let without = plan(&vcg(), &Problem::new(document).unwrap());
            let cost = without.objective - (whole.objective - decision(&whole, id).utility);
            assert!(
                paid(&whole, id) <= cost.max(0.0) + 1e-6,
                "{others} others, {id}: pays {} for {cost}",
                paid(&whole, id)
            );
        }
    }
}

/// Agents with the choice among pumps.
fn pumps(agents: usize, capacity: u32) -> Problem {
    let pump = |name: &str| json!({"id": name, "demands": {name: 1}, "utility": 1.0});
    let intention = |at: usize| json!({"agent_id": format!("a{at}"), "options": [pump("left"), pump("right")]});
    problem(json!({
        "resources": [{"name": "left", "capacity": capacity, "kind": "unit"},
            {"name": "right", "capacity": capacity, "kind": "unit"}],
        "agents": (0..agents).map(|at| agent(&format!("a{at}"))).collect::<Vec<_>>(),
        "intentions": (0..agents).map(intention).collect::<Vec<_>>(),
    }))
}

#[test]
fn three_agents_spread_over_two_pumps() {
    let plan = plan(&best_response(), &pumps(3, 2));
    let mut loads = [plan.utilization["left"].granted, plan.utilization["right"].granted];
    loads.sort_by(f64::total_cmp);
    assert_eq!(loads, [1.0, 2.0]);
    assert!(plan.converged);
}

/// Two agents of which the one would meet and the other would avoid: their payoffs make best responses go in a circle.
fn pennies() -> Problem {
    let option = |id: &str, pair: [&str; 2], utility: f64, shape: &str| {
        json!({"id": id, "demands": {pair[0]: 1, pair[1]: 1}, "utility": utility,
            "elastic": {"min_fraction": 0.01, "shape": shape}})
    };
    problem(json!({
        "resources": [{"name": "hh", "capacity": 1.2}, {"name": "ht", "capacity": 2.0},
            {"name": "th", "capacity": 0.8}, {"name": "tt", "capacity": 1.2}],
        "agents": [agent("a"), agent("b")],
        "intentions": [
            {"agent_id": "a", "options": [option("h", ["hh", "ht"], 1.0, "quadratic"),
                option("t", ["th", "tt"], 1.25, "quadratic")]},
            {"agent_id": "b", "options": [option("h", ["hh", "th"], 1.6, "linear"),
                option("t", ["ht", "tt"], 1.0, "linear")]}],
    }))
}

#[test]
fn a_game_that_goes_in_circles_ends_and_is_flagged() {
    let plan = plan(&best_response(), &pennies());
    assert_eq!((plan.rounds, plan.converged), (100, false));
    let (plan, _) = negotiated(&best_response(), &pennies(), &Budget::new(Some(7)), &NoNegotiator);
    assert_eq!((plan.rounds, plan.converged), (7, false));
}

#[test]
fn options_are_checked() {
    let parse =
        |options: Value| GameTheoretic::parse("/s", options).map(drop).map_err(|errors| errors[0].pointer.clone());
    assert_eq!(parse(json!({"solution": "vcg", "credit": {"a": 1.5}})), Ok(()));
    assert_eq!(parse(json!({"solution": "best"})), Err("/s/solution".to_owned()));
    assert_eq!(parse(json!({"solution": "vcg", "credit": -1})), Err("/s/credit".to_owned()));
    assert_eq!(parse(json!({"solution": "vcg", "credit": {"a": "much"}})), Err("/s/credit/a".to_owned()));
    assert_eq!(parse(json!({"credit": 1})), Err("/s/credit".to_owned()));
}

#[test]
fn all_three_conform() {
    for solution in ["nash", "vcg", "best_response"] {
        coredinator_core::conformance::strategy::run(|| strategy(json!({"solution": solution})));
    }
}

/// An option: what it takes of two resources, what it is worth, and its elasticity (0: none).
type Wish = (f64, f64, f64, usize);

/// Agents with a disagreement each and some options.
fn wishes(elastic: bool) -> impl Strategy<Value = Vec<(f64, Vec<Wish>)>> {
    let kinds = if elastic { 4 } else { 1usize };
    let option = (0.0..6.0, 0.0..6.0, 0.5..20.0, 0..kinds);
    prop::collection::vec((-3.0..6.0, prop::collection::vec(option, 1..4)), 2..6)
}

/// These wishes, with utilities of agent i times `scales[i].0` plus `scales[i].1`.
fn bargain(agents: &[(f64, Vec<Wish>)], scales: &[(f64, f64)]) -> Problem {
    let round = |number: f64| (number * 64.0).round() / 64.0;
    let shapes = ["linear", "quadratic", "log"];
    let intention = |(at, (disagreement, wishes)): (usize, &(f64, Vec<Wish>))| {
        let (scale, shift) = scales[at % scales.len()];
        let options: Vec<Value> = wishes
            .iter()
            .enumerate()
            .map(|(id, (left, right, utility, kind))| {
                let mut option = json!({"id": format!("o{id}"), "demands": {"left": round(*left), "right": round(*right)},
                    "utility": round(*utility) * scale + shift});
                if *kind > 0 {
                    option["elastic"] = json!({"min_fraction": 0.125, "shape": shapes[kind - 1]});
                }
                option
            })
            .collect();
        json!({"agent_id": format!("a{at}"), "disagreement": round(*disagreement) * scale + shift, "options": options})
    };
    problem(json!({
        "resources": [{"name": "left", "capacity": 8.0}, {"name": "right", "capacity": 7.0}],
        "agents": (0..agents.len()).map(|at| agent(&format!("a{at}"))).collect::<Vec<_>>(),
        "intentions": agents.iter().enumerate().map(intention).collect::<Vec<_>>(),
    }))
}

/// The most that gain, and the largest sum of logarithms of gains of so many, by trying everything; options that are not
/// elastic.
fn exhausted(problem: &Problem) -> (usize, f64) {
    fn go(problem: &Problem, party: usize, left: [f64; 2], gains: &mut Vec<f64>, best: &mut (usize, f64)) {
        if party == problem.parties().len() {
            let found = (gains.len(), gains.iter().map(|gain| gain.ln()).sum());
            if found.0 > best.0 || (found.0 == best.0 && found.1 > best.1) {
                *best = found;
            }
            return;
        }
        let of = &problem.parties()[party];
        let threat = problem.candidates()[of.fallback().unwrap()].utility;
        let most = of.options().filter(|&at| problem.candidates()[at].possible);
        let most = most.map(|at| problem.candidates()[at].utility).fold(f64::NEG_INFINITY, f64::max) - threat;
        for candidate in of.options().chain(of.fallback()) {
            let mut rest = left;
            problem.demands(candidate).iter().for_each(|demand| rest[demand.resource] -= demand.amount);
            let gain = problem.candidates()[candidate].utility - threat;
            if gain < 0.0 || rest.iter().any(|&rest| rest < -1e-9) {
                continue;
            }
            if gain > 0.0 {
                gains.push(gain / most);
            }
            go(problem, party + 1, rest, gains, best);
            if gain > 0.0 {
                gains.pop();
            }
        }
    }
    let mut best = (0, f64::NEG_INFINITY);
    go(problem, 0, [8.0, 7.0], &mut Vec::new(), &mut best);
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bargaining_gives_nobody_less_than_its_disagreement(agents in wishes(true)) {
        let problem = bargain(&agents, &[(1.0, 0.0)]);
        // Without a conflict everyone gets the first choice, whatever it says that is worth.
        prop_assume!(!problem.conflicts().is_empty());
        let plan = plan(&nash(), &problem);
        for (decision, party) in plan.decisions.iter().zip(problem.parties()) {
            let least = party.intention.as_ref().unwrap().disagreement.unwrap_or(0.0);
            prop_assert!(decision.utility >= least - 1e-9, "{} gets {} and not {least}", party.id(), decision.utility);
        }
    }

    #[test]
    fn bargaining_does_not_depend_on_units_and_zeros(
        agents in wishes(true),
        // Elastic utilities have to stay what they are at 0, and so have no zero of their own to choose.
        scales in prop::collection::vec(0.01..100.0, 1..6),
    ) {
        let plain = plan(&nash(), &bargain(&agents, &[(1.0, 0.0)]));
        let scales: Vec<(f64, f64)> = scales.into_iter().map(|scale: f64| (scale, 0.0)).collect();
        let scaled = plan(&nash(), &bargain(&agents, &scales));
        for (one, other) in plain.decisions.iter().zip(&scaled.decisions) {
            prop_assert_eq!(&one.option_id, &other.option_id);
            prop_assert!((one.fraction - other.fraction).abs() < 1e-5, "{} and {}", one.fraction, other.fraction);
        }
    }

    #[test]
    fn nor_does_it_where_options_are_fixed(
        agents in wishes(false),
        scales in prop::collection::vec((0.01..100.0, -50.0..50.0), 1..6),
    ) {
        let plain = plan(&nash(), &bargain(&agents, &[(1.0, 0.0)]));
        let scaled = plan(&nash(), &bargain(&agents, &scales));
        let options = |plan: &Plan| -> Vec<Option<String>> {
            plan.decisions.iter().map(|decision| decision.option_id.clone()).collect()
        };
        prop_assert_eq!(options(&plain), options(&scaled));
    }

    #[test]
    fn bargaining_over_fixed_options_is_the_best_there_is(agents in wishes(false)) {
        let problem = bargain(&agents, &[(1.0, 0.0)]);
        prop_assume!(!problem.conflicts().is_empty());
        let plan = plan(&nash(), &problem);
        prop_assert_eq!(plan.status, PlanStatus::Optimal);
        let mut found = (0, 0.0);
        for (decision, party) in plan.decisions.iter().zip(problem.parties()) {
            let threat = problem.candidates()[party.fallback().unwrap()].utility;
            let possible = party.options().map(|at| &problem.candidates()[at]).filter(|known| known.possible);
            let most = possible.map(|known| known.utility).fold(f64::NEG_INFINITY, f64::max) - threat;
            if decision.utility > threat {
                found = (found.0 + 1, found.1 + ((decision.utility - threat) / most).ln());
            }
        }
        let best = exhausted(&problem);
        prop_assert_eq!(found.0, best.0);
        prop_assert!(best.0 == 0 || (found.1 - best.1).abs() < 1e-6, "{} instead of {}", found.1, best.1);
    }
}

/// Bidders for some of five things, several bundles each, of which each gets one at most.
fn bidders() -> impl Strategy<Value = Vec<Vec<(u8, f64)>>> {
    prop::collection::vec(prop::collection::vec((1..32u8, 0.5..20.0), 1..4), 2..6)
}

fn auction(bidders: &[Vec<(u8, f64)>]) -> Problem {
    let intention = |(at, bids): (usize, &Vec<(u8, f64)>)| {
        let option = |(id, (things, utility)): (usize, &(u8, f64))| {
            let wanted = (0..5).filter(|thing| things & (1 << thing) != 0);
            let demands: Map<String, Value> = wanted.map(|thing| (format!("t{thing}"), json!(1))).collect();
            json!({"id": id.to_string(), "demands": demands, "utility": utility})
        };
        json!({"agent_id": format!("b{at}"), "options": bids.iter().enumerate().map(option).collect::<Vec<_>>()})
    };
    problem(json!({
        "resources": (0..5).map(|at| json!({"name": format!("t{at}"), "capacity": 1, "kind": "unit"})).collect::<Vec<_>>(),
        "agents": (0..bidders.len()).map(|at| agent(&format!("b{at}"))).collect::<Vec<_>>(),
        "intentions": bidders.iter().enumerate().map(intention).collect::<Vec<_>>(),
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_elastic_is_divided_by_vcg_as_the_best_for_all_would(
        wants in prop::collection::vec((1.0..9.0, 0.5..9.0, prop::option::of(0.05..0.9)), 2..5),
        capacity in 4.0..15.0,
    ) {
        let intention = |(at, &(amount, utility, least)): (usize, &(f64, f64, Option<f64>))| {
            let mut option = json!({"id": "run", "demands": {"steam": amount}, "utility": utility});
            if let Some(least) = least {
                option["elastic"] = json!({"min_fraction": least});
            }
            json!({"agent_id": format!("a{at}"), "options": [option]})
        };
        let problem = problem(json!({
            "resources": [{"name": "steam", "capacity": capacity}],
            "agents": (0..wants.len()).map(|at| agent(&format!("a{at}"))).collect::<Vec<_>>(),
            "intentions": wants.iter().enumerate().map(intention).collect::<Vec<_>>(),
        }));
        let (priced, best) = (plan(&vcg(), &problem), plan(&Centralized::default(), &problem));
        prop_assert!((priced.objective - best.objective).abs() <= 1e-9 * best.objective, "{priced:?} {best:?}");
        for (at, decision) in priced.decisions.iter().enumerate() {
            // In shape `linear`, so that what is had is worth in proportion.
            let paid = paid(&priced, &format!("a{at}"));
            prop_assert!((0.0..=decision.utility + 1e-9).contains(&paid), "a{at} pays {paid}");
        }
    }

    #[test]
    fn under_vcg_lying_does_not_pay(
        truth in bidders(),
        liar in 0..6usize,
        lies in prop::collection::vec(0.0..3.0, 3),
    ) {
        let liar = liar % truth.len();
        let mut told = truth.clone();
        told[liar].iter_mut().zip(&lies).for_each(|(bid, lie)| bid.1 *= lie);
        let profit = |told: &[Vec<(u8, f64)>]| {
            let problem = auction(told);
            let plan = plan(&vcg(), &problem);
            // Without a conflict everyone gets the first choice, which need not be what it bids most for.
            let exact = problem.conflicts().is_empty() || plan.status == PlanStatus::Optimal;
            let name = format!("b{liar}");
            let option = decision(&plan, &name).option_id.clone();
            let worth = option.map_or(0.0, |option| truth[liar][option.parse::<usize>().unwrap()].1);
            (exact, worth - paid(&plan, &name), plan)
        };
        let (exact, honest, plan) = profit(&truth);
        prop_assert!(exact);
        for (at, decision) in plan.decisions.iter().enumerate() {
            let (worth, paid) = (decision.utility, paid(&plan, &format!("b{at}")));
            prop_assert!(paid >= 0.0 && paid <= worth + 1e-9, "b{at} pays {paid} for what is worth {worth}");
        }
        let (exact, lied, _) = profit(&told);
        prop_assert!(exact);
        prop_assert!(lied <= honest + 1e-9 || auction(&truth).conflicts().is_empty(), "{lied} by lying, {honest} by the truth");
    }
}
