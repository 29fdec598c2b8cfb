//! What holds for every plan.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{
    conformance::strategy::{random_problem, shuffled},
    coordination::{
        AgentId, Claim, DecisionOutcome, Fallback, Holding, Intention, PastCycle, PastDecision, Plan, Presence,
        Problem, ProblemDocument,
    },
};

use crate::kit::{plan, problem, strategies};

const CASES: u64 = 1500;

/// A problem with a past: some agents hold what they offer, were denied, or had grace.
fn with_a_past(seed: u64) -> ProblemDocument {
    let mut document = random_problem(seed, 8);
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    for intention in document.intentions.clone() {
        let Some(option) = intention.options.first() else { continue };
        if rng.bool() && option.demands.values().all(|amount| amount.is_finite()) {
            document.holdings.retain(|holding| holding.agent_id != intention.agent_id);
            let known = |name: &String| document.resources.iter().any(|resource| resource.name == *name);
            let grant = option.demands.iter().filter(|&(name, &amount)| known(name) && amount > 0.0);
            document.holdings.push(Arc::new(Holding {
                agent_id: intention.agent_id.clone(),
                cycle: document.cycle - 1,
                reserved: rng.bool(),
                option_id: Some(option.id.clone()),
                fraction: 1.0,
                grant: grant.map(|(name, &amount)| (name.clone(), amount)).collect(),
                values: BTreeMap::new(),
                action: option.action.clone(),
            }));
        }
    }
    for back in 1..rng.u64(1..5).min(document.cycle) {
        let mut past = |agent: &AgentId| {
            let outcome = DecisionOutcome::ALL[rng.usize(0..DecisionOutcome::ALL.len())];
            let code = ["grace", "no_room", "first_choice"][rng.usize(0..3)].to_owned();
            (agent.clone(), PastDecision { outcome, option_id: None, fraction: 0.0, utility: 0.0, code })
        };
        let agents = document.agents.iter().map(|agent| past(&agent.agent_id)).collect();
        document.history.push(Arc::new(PastCycle { cycle: document.cycle - back, agents }));
    }
    document
}

#[test]
fn every_plan_keeps_the_invariants_and_is_the_same_in_any_order() {
    for (name, strategy) in strategies() {
        for seed in 0..CASES {
            let told = format!("{name}, problem {seed}");
            let document = with_a_past(seed);
            let first = plan(strategy.as_ref(), &problem(&document), &told);
            let again = plan(strategy.as_ref(), &problem(&document), &told);
            let shuffled = plan(strategy.as_ref(), &problem(&shuffled(&document, seed + 1)), &told);
            // As text, so that it is the same bit for bit, infinities and the sign of 0 included.
            let [first, again, shuffled] = [first, again, shuffled].map(|plan| serde_json::to_string(&plan).unwrap());
            assert_eq!(first, again, "{told}: another plan the second time");
            assert_eq!(first, shuffled, "{told}: another plan in another order");
        }
    }
}

#[test]
fn where_nothing_conflicts_everyone_gets_its_first_choice() {
    for (name, strategy) in strategies() {
        let mut tried = 0;
        for seed in 0..CASES {
            let document = with_a_past(seed);
            let problem = problem(&document);
            let possible = |party: &coredinator_core::coordination::Party| {
                let first = match party.presence {
                    Presence::Active => Some(party.options().start),
                    Presence::Holding => None,
                    Presence::Absent => party.fallback(),
                };
                first.is_none_or(|first| problem.candidates()[first].possible)
            };
            if !problem.conflicts().is_empty() || !problem.parties().iter().all(possible) {
                continue;
            }
            tried += 1;
            let plan = plan(strategy.as_ref(), &problem, &format!("{name}, problem {seed}"));
            for (party, decision) in problem.parties().iter().zip(&plan.decisions) {
                let is_first = match party.presence {
                    Presence::Active => {
                        problem.option(party.options().start).map(|option| &option.id) == decision.option_id.as_ref()
                            && decision.fraction == 1.0
                    }
                    Presence::Holding | Presence::Absent => decision.outcome == DecisionOutcome::Defaulted,
                };
                assert!(is_first, "{name}, problem {seed}: {decision:?}");
            }
        }
        assert!(tried > 50, "only {tried} problems without a conflict");
    }
}

/// The problem in which every agent wants just what a plan gave it.
fn settled(document: &ProblemDocument, plan: &Plan, problem: &Problem) -> ProblemDocument {
    let mut settled = document.clone();
    let has_option =
        |outcome| matches!(outcome, DecisionOutcome::Granted | DecisionOutcome::Scaled | DecisionOutcome::Substituted);
    settled.intentions.clear();
    for (party, decision) in problem.parties().iter().zip(&plan.decisions) {
        if !has_option(decision.outcome) {
            continue;
        }
        let Some(intention) = &party.intention else { panic!("an option without an intention") };
        let mut option =
            intention.options.iter().find(|option| Some(&option.id) == decision.option_id.as_ref()).unwrap().clone();
        option.demands.clone_from(&decision.grant);
        option.elastic = None;
        option.utility = decision.utility;
        for (name, claim) in &mut option.claims {
            *claim = Claim { value: decision.values[name], min: None, max: None, weight: claim.weight };
        }
        let disagreement = intention.disagreement.map(|known| known.min(decision.utility));
        settled.intentions.push(Arc::new(Intention {
            disagreement,
            options: vec![option],
            ..Intention::clone(intention)
        }));
    }
    // A safe action, too, is carried out at the values that there are.
    for agent in &mut settled.agents {
        let values = &plan.decision(agent.agent_id.as_str()).unwrap().values;
        if let Some(Fallback::Option(option)) = &mut Arc::make_mut(agent).fallback {
            for (name, claim) in &mut option.claims {
                if let Some(&value) = values.get(name) {
                    *claim = Claim { value, min: None, max: None, weight: claim.weight };
                }
            }
        }
    }
    // Who was denied does what is safe for it, and who was shed does nothing, as if they were not asked.
    let is_denied = |agent: &AgentId| {
        let decision = plan.decision(agent.as_str()).unwrap();
        matches!(decision.outcome, DecisionOutcome::Denied | DecisionOutcome::Preempted)
    };
    for holding in &mut settled.holdings {
        if is_denied(&holding.agent_id) {
            Arc::make_mut(holding).reserved = false;
        }
    }
    settled.agents.retain(|agent| !plan.shed.contains(&agent.agent_id));
    settled.holdings.retain(|holding| !plan.shed.contains(&holding.agent_id));
    settled
}

#[test]
fn resolving_a_plan_again_changes_nothing() {
    for (name, strategy) in strategies() {
        for seed in 0..CASES {
            let told = format!("{name}, problem {seed}");
            let document = with_a_past(seed);
            let first = problem(&document);
            let before = plan(strategy.as_ref(), &first, &told);
            let again = problem(&settled(&document, &before, &first));
            assert!(again.conflicts().is_empty(), "{told}: {:?}", again.conflicts());
            let after = plan(strategy.as_ref(), &again, &told);
            for decision in &after.decisions {
                let known = before.decision(decision.agent_id.as_str()).unwrap();
                assert_eq!(decision.grant, known.grant, "{told}: {}", decision.agent_id);
                assert_eq!(decision.action, known.action, "{told}: {}", decision.agent_id);
                let near = |(one, other): (&f64, &f64)| (one - other).abs() <= 1e-9 * (1.0 + one.abs());
                let values = decision.values.values().zip(known.values.values());
                assert!(values.into_iter().all(near), "{told}: {decision:?} was {known:?}");
            }
        }
    }
}
