//! What holds for Nash bargaining.

use std::sync::Arc;

use coredinator_core::{
    conformance::strategy::random_problem,
    coordination::{DecisionOutcome, Fallback, Presence, ProblemDocument},
};
use serde_json::json;

use crate::kit::{change_intentions, make, plan, problem};

const CASES: u64 = 1500;

#[test]
fn nobody_gets_less_than_its_disagreement() {
    let strategy = make(&json!("game_theoretic"));
    for seed in 0..CASES {
        let document = random_problem(seed, 8);
        let problem = problem(&document);
        if problem.conflicts().is_empty() {
            continue;
        }
        let plan = plan(strategy.as_ref(), &problem, &format!("problem {seed}"));
        for (party, decision) in problem.parties().iter().zip(&plan.decisions) {
            let Some(fallback) = party.fallback().filter(|_| party.presence == Presence::Active) else { continue };
            let threat = &problem.candidates()[fallback];
            // A threat that is not possible is none, and who is shed has no choice.
            if threat.possible && decision.outcome != DecisionOutcome::Denied && plan.shed.is_empty() {
                assert!(
                    decision.utility >= threat.utility - 1e-9,
                    "problem {seed}: {decision:?} below {}",
                    threat.utility
                );
            }
        }
    }
}

/// The same problem with everyone's utilities by another measure of its own; where nothing is elastic, from another zero.
fn by_other_measures(document: &ProblemDocument, seed: u64) -> ProblemDocument {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut other = document.clone();
    let measures: Vec<(f64, f64)> =
        document.agents.iter().map(|_| ([0.25, 1.0, 2.0, 8.0][rng.usize(0..4)], f64::from(rng.i8(-8..8)))).collect();
    let measure = |id: &str| {
        let at = document.agents.iter().position(|agent| agent.agent_id.as_str() == id).unwrap();
        let intention = document.intentions.iter().find(|intention| intention.agent_id.as_str() == id);
        let is_elastic = intention.is_some_and(|known| known.options.iter().any(|option| option.elastic.is_some()));
        (measures[at].0, if is_elastic { 0.0 } else { measures[at].1 })
    };
    change_intentions(&mut other, |intention| {
        let (factor, zero) = measure(intention.agent_id.as_str());
        intention.disagreement = intention.disagreement.map(|known| known * factor + zero);
        intention.options.iter_mut().for_each(|option| option.utility = option.utility * factor + zero);
    });
    for agent in &mut other.agents {
        let (factor, zero) = measure(agent.agent_id.as_str());
        if let Some(Fallback::Option(option)) = &mut Arc::make_mut(agent).fallback {
            option.utility = option.utility * factor + zero;
        }
    }
    other
}

#[test]
fn the_measure_of_utilities_does_not_matter() {
    let strategy = make(&json!("game_theoretic"));
    for seed in 0..CASES {
        let mut document = random_problem(seed, 6);
        // Where that is not said, being denied is worth 0 by any measure: so it is said.
        change_intentions(&mut document, |intention| {
            intention.disagreement = Some(intention.disagreement.unwrap_or(0.0));
        });
        let other = by_other_measures(&document, seed);
        if problem(&document)
            .parties()
            .iter()
            .zip(problem(&other).parties())
            .any(|(one, other)| one.presence != other.presence)
        {
            continue;
        }
        let told = format!("problem {seed}");
        let [one, other] = [&document, &other].map(|document| plan(strategy.as_ref(), &problem(document), &told));
        for (one, other) in one.decisions.iter().zip(&other.decisions) {
            assert_eq!(one.option_id, other.option_id, "{told}: {}", one.agent_id);
            assert!((one.fraction - other.fraction).abs() < 1e-6, "{told}: {one:?} {other:?}");
        }
    }
}
