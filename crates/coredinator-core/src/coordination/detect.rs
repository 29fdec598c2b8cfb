//! Finding conflicts: pure, and the same for wishes as for what was decided.

use std::collections::BTreeMap;

use super::{
    agent::AgentId,
    conflict::{Conflict, ConflictSubtype, ConflictType},
    intention::Claim,
    number::LARGEST,
    problem::{Presence, Problem, TOLERANCE},
};

/// What collides if every party gets what it wants most (and those that are silent and hold nothing, their fallback).
pub(super) fn first_choices(problem: &Problem) -> Vec<Conflict> {
    let wanted: Vec<usize> = problem
        .parties()
        .iter()
        .filter_map(|party| match party.presence {
            Presence::Active => Some(party.options().start),
            Presence::Holding => None,
            Presence::Absent => party.fallback(),
        })
        .collect();
    conflicts(problem, &wanted)
}

/// What collides if these candidates, at most one of each party, are all granted in full.
#[must_use]
pub fn conflicts(problem: &Problem, wanted: &[usize]) -> Vec<Conflict> {
    let mut found = contention(problem, wanted);
    found.extend(direct(problem, wanted));
    found.extend(indirect(problem, wanted));
    found
}

fn id(problem: &Problem, candidate: usize) -> AgentId {
    problem.parties()[problem.candidates()[candidate].party].id().clone()
}

fn contention(problem: &Problem, wanted: &[usize]) -> Vec<Conflict> {
    let mut demanded = vec![0.0; problem.resources().len()];
    let all = || {
        wanted.iter().flat_map(|&candidate| problem.demands(candidate).iter().map(move |demand| (candidate, demand)))
    };
    for (_, demand) in all() {
        demanded[demand.resource] += demand.amount;
    }
    let over: Vec<bool> = demanded
        .iter()
        .enumerate()
        .map(|(at, &sum)| sum > problem.available()[at] + problem.resources()[at].capacity * TOLERANCE)
        .collect();
    if !over.contains(&true) {
        return Vec::new();
    }
    let mut parties = vec![Vec::new(); over.len()];
    for (candidate, demand) in all().filter(|(_, demand)| over[demand.resource]) {
        parties[demand.resource].push(id(problem, candidate));
    }
    let named = problem.resources().iter().zip(parties).enumerate().filter(|(at, _)| over[*at]);
    named
        .map(|(at, (resource, parties))| {
            let available = problem.available()[at];
            let overload = demanded[at] - available;
            Conflict {
                id: format!("capacity:{}", resource.name),
                kind: ConflictType::ResourceContention,
                subtype: ConflictSubtype::Capacity,
                subject: resource.name.clone(),
                parties,
                demanded: Some(demanded[at]),
                available: Some(available),
                claims: BTreeMap::new(),
                effects: BTreeMap::new(),
                severity: share(overload, resource.capacity),
            }
        })
        .collect()
}

fn direct(problem: &Problem, wanted: &[usize]) -> Vec<Conflict> {
    // Of each variable, where what agrees with everybody begins and ends.
    let mut common: Vec<(f64, f64)> =
        problem.fixed().iter().map(|fixed| fixed.map_or((f64::NEG_INFINITY, f64::INFINITY), |at| (at, at))).collect();
    let all = || {
        let claims =
            wanted.iter().flat_map(|&candidate| problem.claims(candidate).iter().map(move |claim| (candidate, claim)));
        claims.filter(|(_, claim)| !claim.soft)
    };
    for (_, claim) in all() {
        let (low, high) = &mut common[claim.variable];
        *low = low.max(claim.agrees.0);
        *high = high.min(claim.agrees.1);
    }
    let mut claimed: BTreeMap<usize, BTreeMap<AgentId, Claim>> = BTreeMap::new();
    for (candidate, claim) in all().filter(|(_, claim)| apart(common[claim.variable]) > 0.0) {
        let name = problem.variables()[claim.variable].name.as_str();
        let written = problem.option(candidate).and_then(|option| option.claims.get(name).copied());
        let placed = Claim { value: claim.value, min: None, max: None, weight: claim.weight };
        claimed.entry(claim.variable).or_default().insert(id(problem, candidate), written.unwrap_or(placed));
    }
    claimed
        .into_iter()
        .map(|(at, claims)| {
            let variable = &problem.variables()[at];
            Conflict {
                id: format!("direct:{}", variable.name),
                kind: ConflictType::GoalInterference,
                subtype: ConflictSubtype::Direct,
                subject: variable.name.clone(),
                parties: claims.keys().cloned().collect(),
                demanded: None,
                available: None,
                claims,
                effects: BTreeMap::new(),
                severity: share(apart(common[at]), variable.max - variable.min),
            }
        })
        .collect()
}

/// How far the ends are the wrong way round, beyond rounding; 0 or less: they are not.
fn apart((low, high): (f64, f64)) -> f64 {
    let rounding = if low.is_finite() && high.is_finite() { low.abs().max(high.abs()) * TOLERANCE } else { 0.0 };
    low - high - rounding
}

fn indirect(problem: &Problem, wanted: &[usize]) -> Vec<Conflict> {
    let mut pushed: BTreeMap<usize, BTreeMap<AgentId, f64>> = BTreeMap::new();
    for &candidate in wanted {
        for push in problem.pushes(candidate) {
            pushed.entry(push.variable).or_default().insert(id(problem, candidate), push.strength);
        }
    }
    let both_ways = |effects: &BTreeMap<AgentId, f64>| {
        effects.values().any(|&strength| strength > 0.0) && effects.values().any(|&strength| strength < 0.0)
    };
    let opposed = pushed.into_iter().filter(|(_, effects)| both_ways(effects));
    opposed
        .map(|(at, effects)| {
            let variable = &problem.variables()[at];
            let strongest =
                effects.values().copied().fold(0.0, f64::max) - effects.values().copied().fold(0.0, f64::min);
            Conflict {
                id: format!("indirect:{}", variable.name),
                kind: ConflictType::GoalInterference,
                subtype: ConflictSubtype::Indirect,
                subject: variable.name.clone(),
                parties: effects.keys().cloned().collect(),
                demanded: None,
                available: None,
                claims: BTreeMap::new(),
                effects,
                severity: share(strongest, variable.max - variable.min),
            }
        })
        .collect()
}

/// A part of a whole; 1 of nothing, and never so much of next to nothing that it is no number any more.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).min(LARGEST) } else { 1.0 }
}
