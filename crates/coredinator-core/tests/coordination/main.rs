//! The contract of coordination, tried from outside: what is refused, what is found, and what is never lost.
#![cfg(feature = "conformance")]

mod conflicts;
mod drafts;
mod garbage;
mod reasons;
mod suite;
mod verify;

use coredinator_core::coordination::{Draft, Plan, PlanHeader, Problem, Resolution, assemble, by_priority};
use serde_json::Value;

/// A problem written as JSON.
fn problem(document: Value) -> Problem {
    Problem::new(serde_json::from_value(document).expect("a document")).expect("a problem")
}

/// The first option that fits for everyone, the highest priority first.
fn greedy(problem: &Problem) -> Resolution {
    if let Some(easy) = Resolution::first_choices(problem) {
        return easy;
    }
    let mut draft = Draft::new(problem);
    for party in by_priority(problem) {
        let _ = problem.parties()[party].options().any(|candidate| draft.grant(candidate));
    }
    draft.finish()
}

/// Choices written out.
fn written(problem: &Problem, resolution: &Resolution) -> Plan {
    let header = PlanHeader { strategy: "test".to_owned(), epoch: 1, fallback: false, elapsed_ms: 0.0 };
    assemble(problem, resolution, &header).expect("choices that refer to the problem")
}
