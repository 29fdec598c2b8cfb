//! What is sent.

use std::collections::BTreeMap;

use coredinator_core::coordination::{AgentId, Conflict, Draft, Party, Presence, Problem, ProblemDocument, Resolution};
use serde::Serialize;

/// A problem as a program elsewhere needs it.
#[derive(Debug, Serialize)]
pub(super) struct Request<'p> {
    problem: &'p ProblemDocument,
    conflicts: &'p [Conflict],
    available: BTreeMap<&'p str, f64>,
    active: Vec<&'p AgentId>,
    safe: BTreeMap<&'p AgentId, Safe<'p>>,
}

/// What an agent has that is not named in the answer.
#[derive(Debug, Serialize)]
struct Safe<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    option_id: Option<&'p str>,
    grant: BTreeMap<&'p str, f64>,
}

/// The request for a problem.
pub(super) fn of(problem: &Problem) -> Request<'_> {
    let parties = || problem.parties().iter();
    let base = Draft::new(problem).finish();
    let undecided = parties().enumerate().filter(|(_, party)| party.presence != Presence::Holding);
    Request {
        problem: problem.document(),
        conflicts: problem.conflicts(),
        available: problem
            .resources()
            .iter()
            .map(|known| known.name.as_str())
            .zip(problem.available().iter().copied())
            .collect(),
        active: parties().filter(|party| party.presence == Presence::Active).map(Party::id).collect(),
        safe: undecided.map(|(at, party)| (party.id(), safe(problem, &base, at))).collect(),
    }
}

fn safe<'p>(problem: &'p Problem, base: &Resolution, party: usize) -> Safe<'p> {
    let Some((candidate, fraction)) = base.chosen(problem, party) else {
        return Safe { option_id: None, grant: BTreeMap::new() };
    };
    let grant = |demand: &coredinator_core::coordination::Demand| {
        (problem.resources()[demand.resource].name.as_str(), demand.amount * fraction)
    };
    Safe {
        option_id: problem.option(candidate).map(|option| option.id.as_str()),
        grant: problem.demands(candidate).iter().map(grant).collect(),
    }
}
