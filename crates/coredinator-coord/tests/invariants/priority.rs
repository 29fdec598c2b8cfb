//! What holds for `priority_based`.

use coredinator_core::coordination::{DecisionOutcome, Plan};
use serde_json::json;

use crate::kit::{change_agents, make, plan, problem, without_safe_side};

const CASES: u64 = 3000;

fn worth(plan: &Plan, agent: &str) -> f64 {
    plan.decision(agent).unwrap().utility
}

#[test]
fn raising_an_agent_never_lowers_what_it_gets() {
    for choice in [json!("priority_based"), json!({"priority_based": {"when_it_does_not_fit": "block"}})] {
        let strategy = make(&choice);
        for seed in 0..CASES {
            let document = without_safe_side(seed, 6);
            if document.agents.is_empty() {
                continue;
            }
            let told = format!("{choice}, problem {seed}");
            let mut rng = fastrand::Rng::with_seed(seed);
            let agent = document.agents[rng.usize(0..document.agents.len())].agent_id.clone();
            let before = plan(strategy.as_ref(), &problem(&document), &told);
            let mut raised = document.clone();
            let by = rng.i32(1..5);
            change_agents(&mut raised, |known| known.priority += if known.agent_id == agent { by } else { 0 });
            let after = plan(strategy.as_ref(), &problem(&raised), &told);
            let (before, after) = (worth(&before, agent.as_str()), worth(&after, agent.as_str()));
            assert!(after >= before - 1e-6, "{told}: {agent} raised by {by} has {after} instead of {before}");
        }
    }
}

#[test]
fn what_lower_ones_want_never_changes_what_higher_ones_get() {
    for choice in [json!("priority_based"), json!({"priority_based": {"when_it_does_not_fit": "block"}})] {
        let strategy = make(&choice);
        for seed in 0..CASES {
            let told = format!("{choice}, problem {seed}");
            let document = without_safe_side(seed, 6);
            let mut rng = fastrand::Rng::with_seed(seed);
            let from = rng.i32(0..4);
            let mut other = document.clone();
            let is_low = |id: &str| {
                let agent = document.agents.iter().find(|agent| agent.agent_id.as_str() == id).unwrap();
                // What must not be taken from an agent is beyond priorities.
                agent.priority < from && agent.preemptible
            };
            if rng.bool() {
                other.intentions.retain(|intention| !is_low(intention.agent_id.as_str()) || rng.bool());
            }
            crate::kit::change_intentions(&mut other, |intention| {
                if is_low(intention.agent_id.as_str()) {
                    rng.shuffle(&mut intention.options);
                    for option in &mut intention.options {
                        option.utility = f64::from(rng.u8(0..20));
                        option.demands.values_mut().for_each(|amount| *amount = f64::from(rng.u8(0..9)));
                        option.claims.values_mut().for_each(|claim| {
                            (claim.value, claim.min, claim.max) = (f64::from(rng.u8(0..=100)), None, None);
                        });
                    }
                }
            });
            // What a silent one holds on to is beyond priorities, too.
            for document in [&document, &other] {
                assert_eq!(document.agents.len(), other.agents.len());
            }
            other.holdings.retain(|holding| !is_low(holding.agent_id.as_str()));
            let mut document = document.clone();
            let agents = document.agents.clone();
            document.holdings.retain(|holding| {
                let agent = agents.iter().find(|agent| agent.agent_id == holding.agent_id).unwrap();
                agent.priority >= from || !agent.preemptible
            });
            let one = plan(strategy.as_ref(), &problem(&document), &told);
            let other = plan(strategy.as_ref(), &problem(&other), &told);
            for agent in agents.iter().filter(|agent| agent.priority >= from) {
                let [one, other] = [&one, &other].map(|plan| plan.decision(agent.agent_id.as_str()).unwrap());
                assert_eq!(
                    (&one.option_id, &one.grant),
                    (&other.option_id, &other.grant),
                    "{told}: {}",
                    agent.agent_id
                );
                // What is as good as what it wanted may differ.
                let as_wanted = one.outcome == DecisionOutcome::Granted && other.outcome == DecisionOutcome::Granted;
                assert!(as_wanted || one.values == other.values, "{told}: {one:?} {other:?}");
            }
        }
    }
}
