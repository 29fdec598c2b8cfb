//! From choices to a plan: pure, and total for whatever a strategy may have answered.

use std::collections::BTreeMap;

use super::{
    agent::{AgentId, Fallback},
    conflict::Conflict,
    explain::{Explainer, is_shed},
    plan::{Decision, DecisionOutcome, DecisionReason, Plan, PlanStatus, Utilization},
    problem::{Party, PlacedClaim, Presence, Problem},
    resolution::{Pick, Resolution},
    resource::OnConflict,
};

/// Products of weights below this lose digits.
const VANISHING: f64 = 1e-200;

/// What a plan says of itself beyond its choices.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanHeader {
    /// The strategy that made it.
    pub strategy: String,
    /// The epoch of the coredinator that made it.
    pub epoch: u64,
    /// Whether it is not by the strategy that was asked, or by one that ran out of time.
    pub fallback: bool,
    /// How long resolving took, in milliseconds.
    pub elapsed_ms: f64,
}

/// Writes choices out as a plan, which is yet to be [verified](super::verify). The problem is the one that the choices refer
/// to: with revisions, the revised one.
///
/// # Errors
/// Choices that do not even refer to the problem: too few or too many, a candidate of another party, numbers that are none.
pub fn assemble(problem: &Problem, resolution: &Resolution, header: &PlanHeader) -> Result<Plan, String> {
    well_formed(problem, resolution)?;
    let values = settle(problem, resolution);
    let involved = involvement(problem.conflicts());
    let explainer = Explainer::new(problem, resolution, &values);
    let mut shed = Vec::new();
    let mut decisions = Vec::with_capacity(problem.parties().len());
    for (at, party) in problem.parties().iter().enumerate() {
        let note = resolution.notes.get(&at);
        let mut decision = decide(problem, resolution, at, &values);
        if is_shed(party, resolution.picks[at]) {
            shed.push(party.id().clone());
        }
        if note.is_some_and(|note| note.preempted) && decision.outcome == DecisionOutcome::Denied {
            decision.outcome = DecisionOutcome::Preempted;
        }
        let conflicts = involved.get(party.id()).map_or(&[][..], Vec::as_slice);
        decision.reason = explainer.reason(at, &decision, note, conflicts);
        decisions.push(decision);
    }
    // A sum of nothing is -0, which people would wonder about.
    let objective = resolution.objective(problem) + 0.0;
    let bound = resolution.bound.unwrap_or_else(|| loosest_bound(problem)).max(objective) + 0.0;
    let scale = bound.abs().max(objective.abs());
    let status = if header.fallback || resolution.cut_short {
        PlanStatus::Fallback
    } else if resolution.optimal {
        PlanStatus::Optimal
    } else {
        PlanStatus::Feasible
    };
    let by_resource = |amounts: &[f64]| -> BTreeMap<String, f64> {
        problem.resources().iter().zip(amounts).map(|(resource, &amount)| (resource.name.clone(), amount)).collect()
    };
    let by_party = |amounts: &[f64]| -> BTreeMap<AgentId, f64> {
        problem.parties().iter().zip(amounts).map(|(party, &amount)| (party.id().clone(), amount)).collect()
    };
    let named = problem.variables().iter().zip(&values);
    Ok(Plan {
        group: problem.group().to_owned(),
        cycle: problem.cycle(),
        epoch: header.epoch,
        strategy: header.strategy.clone(),
        status,
        values: named.filter_map(|(variable, value)| Some((variable.name.clone(), (*value)?))).collect(),
        utilization: utilization(problem, resolution),
        prices: resolution.prices.as_deref().map(by_resource),
        payments: resolution.payments.as_deref().map(by_party),
        conflicts: problem.conflicts().to_vec(),
        revisions: Vec::new(),
        objective,
        bound,
        gap: if scale > 0.0 { (bound - objective) / scale } else { 0.0 },
        rounds: resolution.rounds,
        converged: resolution.converged,
        shed,
        elapsed_ms: header.elapsed_ms,
        verified: false,
        decisions,
    })
}

fn well_formed(problem: &Problem, resolution: &Resolution) -> Result<(), String> {
    let parties = problem.parties();
    if resolution.picks.len() != parties.len() {
        return Err(format!("{} choices were made for {} parties", resolution.picks.len(), parties.len()));
    }
    for (party, pick) in parties.iter().zip(&resolution.picks) {
        let refers = match *pick {
            Pick::Held => party.presence == Presence::Holding,
            Pick::Option { candidate, fraction } => party.options().contains(&candidate) && fraction.is_finite(),
            Pick::Fallback => party.fallback().is_some(),
            Pick::Nothing => party.presence != Presence::Holding,
        };
        if !refers {
            let told = match *pick {
                Pick::Held => "what it holds".to_owned(),
                Pick::Option { candidate, fraction } => format!("{fraction} of candidate {candidate}"),
                Pick::Fallback => "its fallback".to_owned(),
                Pick::Nothing => "nothing".to_owned(),
            };
            return Err(format!("the choice for {}, {told}, is none that it has", party.id()));
        }
    }
    let lists = [(&resolution.prices, problem.resources().len()), (&resolution.payments, parties.len())];
    for (list, length) in lists {
        if list.as_ref().is_some_and(|list| list.len() != length || !list.iter().all(|number| number.is_finite())) {
            return Err(format!("prices or payments are not {length} numbers"));
        }
    }
    let known = |(&at, value): (&usize, &f64)| at < problem.variables().len() && value.is_finite();
    if !resolution.values.iter().all(known) || resolution.bound.is_some_and(f64::is_nan) {
        return Err("a value or bound is no number".to_owned());
    }
    Ok(())
}

/// The final value of each variable that anybody claims.
fn settle(problem: &Problem, resolution: &Resolution) -> Vec<Option<f64>> {
    let mut claims: Vec<Vec<(usize, &PlacedClaim)>> = vec![Vec::new(); problem.variables().len()];
    let wish = |party: usize, claim: &PlacedClaim| {
        resolution.chosen(problem, party).map_or(claim.value, |(candidate, _)| problem.wish(candidate, claim))
    };
    for party in 0..problem.parties().len() {
        if let Some((candidate, _)) = resolution.chosen(problem, party) {
            problem.claims(candidate).iter().for_each(|claim| claims[claim.variable].push((party, claim)));
        }
    }
    let settle = |(at, claims): (usize, Vec<(usize, &PlacedClaim)>)| {
        if let Some(value) = problem.fixed()[at] {
            return Some(value);
        }
        if let Some(value) = resolution.values.get(&at) {
            return Some(*value);
        }
        let hard: Vec<_> = claims.iter().copied().filter(|(_, claim)| !claim.soft).collect();
        let claims = if hard.is_empty() { claims } else { hard };
        let wish = match problem.variables()[at].on_conflict {
            OnConflict::Blend if claims.iter().any(|(_, claim)| !claim.soft) => weighted_mean(problem, &claims, wish)?,
            _ => {
                let rank = |&&(party, _): &&(usize, &PlacedClaim)| {
                    (problem.parties()[party].agent.priority, std::cmp::Reverse(party))
                };
                claims.iter().max_by_key(rank)?.1.value
            }
        };
        let all = claims.iter().map(|(_, claim)| claim.bounds);
        let (low, high) = all.fold(problem.ranges()[at], |a, b| (a.0.max(b.0), a.1.min(b.1)));
        Some(if low <= high { wish.clamp(low, high) } else { wish })
    };
    claims.into_iter().enumerate().map(settle).collect()
}

fn weighted_mean(
    problem: &Problem,
    claims: &[(usize, &PlacedClaim)],
    wish: impl Fn(usize, &PlacedClaim) -> f64,
) -> Option<f64> {
    // Weights so small that their products would vanish count as shares of the largest.
    let largest = claims.iter().map(|(_, claim)| claim.weight).fold(0.0, f64::max);
    let heaviest = claims.iter().map(|&(party, _)| problem.parties()[party].agent.weight).fold(0.0, f64::max);
    let (by_agent, by_claim) = if largest * heaviest < VANISHING { (heaviest, largest) } else { (1.0, 1.0) };
    let weight = |&(party, claim): &(usize, &PlacedClaim)| {
        (problem.parties()[party].agent.weight / by_agent) * (claim.weight / by_claim)
    };
    let total: f64 = claims.iter().map(weight).sum();
    let sum: f64 = claims.iter().map(|entry| weight(entry) * wish(entry.0, entry.1)).sum();
    (total > 0.0).then(|| sum / total)
}

fn decide(problem: &Problem, resolution: &Resolution, at: usize, values: &[Option<f64>]) -> Decision {
    let party = &problem.parties()[at];
    let mut decision = Decision {
        agent_id: party.id().clone(),
        outcome: match party.presence {
            Presence::Active => DecisionOutcome::Denied,
            Presence::Holding | Presence::Absent => DecisionOutcome::Defaulted,
        },
        option_id: None,
        fraction: 0.0,
        values: BTreeMap::new(),
        grant: BTreeMap::new(),
        action: serde_json::Value::Null,
        utility: 0.0,
        reason: DecisionReason::default(),
    };
    if let (Pick::Held, Some(holding)) = (resolution.picks[at], &party.holding) {
        decision.option_id.clone_from(&holding.option_id);
        decision.fraction = holding.fraction;
        decision.values.clone_from(&holding.values);
        decision.grant.clone_from(&holding.grant);
        decision.action.clone_from(&holding.action);
        return decision;
    }
    let Some((candidate, fraction)) = resolution.chosen(problem, at) else { return decision };
    let claims = problem.claims(candidate);
    let final_value =
        |claim: &PlacedClaim| Some((problem.variables()[claim.variable].name.clone(), values[claim.variable]?));
    decision.values = claims.iter().filter_map(final_value).collect();
    let demands = problem.demands(candidate).iter();
    let grant = demands.map(|demand| (problem.resources()[demand.resource].name.clone(), demand.amount * fraction));
    decision.grant = grant.collect();
    decision.utility = problem.candidates()[candidate].utility_at(fraction);
    if let Some(option) = problem.option(candidate) {
        decision.option_id = Some(option.id.clone());
        decision.fraction = fraction;
        decision.action = option.action.clone();
    }
    let is_hold = matches!(party.agent.fallback, Some(Fallback::Hold)) && resolution.picks[at] == Pick::Fallback;
    if let (true, Some(holding)) = (is_hold, &party.holding) {
        decision.option_id.clone_from(&holding.option_id);
        decision.fraction = holding.fraction;
        decision.action.clone_from(&holding.action);
    }
    if let Pick::Option { .. } = resolution.picks[at] {
        let wish_met = |claim: &PlacedClaim| {
            let wanted = problem
                .option(candidate)
                .and_then(|option| option.claims.get(&problem.variables()[claim.variable].name));
            values[claim.variable].is_none_or(|value| (claim.agrees.0..=claim.agrees.1).contains(&value))
                && wanted
                    .is_none_or(|wanted| wanted.min.is_some() || wanted.max.is_some() || wanted.value == claim.value)
        };
        let in_full = fraction == 1.0 && claims.iter().all(wish_met);
        decision.outcome = match (candidate == party.options().start, in_full) {
            (true, true) => DecisionOutcome::Granted,
            (true, false) => DecisionOutcome::Scaled,
            (false, _) => DecisionOutcome::Substituted,
        };
    }
    decision
}

/// The conflicts of each agent.
fn involvement(conflicts: &[Conflict]) -> BTreeMap<&AgentId, Vec<&Conflict>> {
    let mut involved: BTreeMap<&AgentId, Vec<&Conflict>> = BTreeMap::new();
    for conflict in conflicts {
        conflict.parties.iter().for_each(|party| involved.entry(party).or_default().push(conflict));
    }
    involved
}

fn utilization(problem: &Problem, resolution: &Resolution) -> BTreeMap<String, Utilization> {
    let mut granted = vec![0.0; problem.resources().len()];
    for party in 0..problem.parties().len() {
        if let Some((candidate, fraction)) = resolution.chosen(problem, party) {
            problem.demands(candidate).iter().for_each(|demand| granted[demand.resource] += demand.amount * fraction);
        }
    }
    let all = problem.resources().iter().zip(granted).zip(problem.held());
    all.map(|((resource, granted), &held)| {
        let used = Utilization { capacity: resource.capacity, reserve: resource.reserve, held, granted };
        (resource.name.clone(), used)
    })
    .collect()
}

/// The sum of what everyone would like best: no plan is above it.
fn loosest_bound(problem: &Problem) -> f64 {
    let best = |party: &Party| {
        let candidates = party.options().chain(party.fallback());
        let utilities = candidates.map(|candidate| problem.candidates()[candidate].utility);
        // Shed, it counts 0; and an elastic option's fraction of a utility above 0 is above 0.
        party.agent.weight * utilities.fold(f64::NEG_INFINITY, f64::max).max(0.0)
    };
    problem.parties().iter().map(best).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_blend_is_pulled_by_wishes_from_beyond_its_limits() {
        let claim = |id: &str, value: f64, weight: f64| {
            json!({"agent_id": id, "options": [{"id": "o", "utility": 1.0,
                "claims": {"t": {"value": value, "weight": weight}}}]})
        };
        let document = json!({
            "variables": [{"name": "t", "min": 0.0, "max": 70.0, "on_conflict": "blend"}],
            "agents": [{"agent_id": "a"}, {"agent_id": "b"}],
            "intentions": [claim("a", 60.0, 1.0), claim("b", 80.0, 3.0)],
        });
        let problem = Problem::new(serde_json::from_value(document).unwrap()).unwrap();
        let pick = |party: usize| Pick::Option { candidate: problem.parties()[party].options().start, fraction: 1.0 };
        let resolution = Resolution { picks: vec![pick(0), pick(1)], ..Resolution::default() };
        // The weighted mean of what is wanted is 75; of what there could be it would be 67.5.
        assert_eq!(settle(&problem, &resolution), [Some(70.0)]);
    }
}
