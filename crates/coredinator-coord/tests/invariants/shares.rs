//! What holds for shares: units do not matter, and what `resource_based` promises where everything is elastic.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{
    conformance::strategy::random_problem,
    coordination::{Fallback, Holding, Plan, ProblemDocument, ResourceKind},
};
use serde_json::json;

use crate::kit::{change_agents, change_intentions, make, plan, problem};

const CASES: u64 = 1500;

/// The same problem with divisible resources in other units.
fn in_other_units(document: &ProblemDocument, factor: f64) -> ProblemDocument {
    let mut other = document.clone();
    let divisible: Vec<String> = document
        .resources
        .iter()
        .filter(|resource| resource.kind == ResourceKind::Divisible)
        .map(|resource| resource.name.clone())
        .collect();
    let convert = |amounts: &mut BTreeMap<String, f64>| {
        amounts.iter_mut().filter(|(name, _)| divisible.contains(name)).for_each(|(_, amount)| *amount *= factor);
    };
    for resource in other.resources.iter_mut().filter(|resource| resource.kind == ResourceKind::Divisible) {
        resource.capacity *= factor;
        resource.reserve *= factor;
    }
    change_intentions(&mut other, |intention| {
        intention.options.iter_mut().for_each(|option| convert(&mut option.demands));
    });
    change_agents(&mut other, |agent| {
        if let Some(Fallback::Option(option)) = &mut agent.fallback {
            convert(&mut option.demands);
        }
    });
    for holding in &mut other.holdings {
        let holding: &mut Holding = Arc::make_mut(holding);
        convert(&mut holding.grant);
    }
    other
}

#[test]
fn units_of_resources_do_not_matter() {
    for name in ["resource_based", "centralized"] {
        let strategy = make(&json!(name));
        for seed in 0..CASES {
            let document = random_problem(seed, 8);
            for factor in [1024.0, 0.125] {
                let told = format!("{name}, problem {seed}, unit {factor}");
                let one = plan(strategy.as_ref(), &problem(&document), &told);
                let other = plan(strategy.as_ref(), &problem(&in_other_units(&document, factor)), &told);
                for (one, other) in one.decisions.iter().zip(&other.decisions) {
                    assert_eq!(one.option_id, other.option_id, "{told}: {}", one.agent_id);
                    assert!((one.fraction - other.fraction).abs() < 1e-9, "{told}: {one:?} {other:?}");
                }
            }
        }
    }
}

/// Agents that each want one elastic option of some of three resources, which all are scarce.
fn elastic(seed: u64) -> ProblemDocument {
    let mut rng = fastrand::Rng::with_seed(seed);
    let number = rng.usize(2..8);
    let ids: Vec<String> = (0..number).map(|at| format!("a{at}")).collect();
    let agents = ids.iter().map(|id| {
        let weight = [0.5, 1.0, 2.0, 3.0][rng.usize(0..4)];
        json!({"agent_id": id, "weight": weight, "fallback": "release"})
    });
    let agents: Vec<_> = agents.collect();
    let intentions = ids.iter().map(|id| {
        let mut demands = BTreeMap::from([(format!("r{}", rng.usize(0..3)), 1.0 + rng.f64() * 9.0)]);
        for other in 0..3 {
            if rng.bool() {
                demands.insert(format!("r{other}"), rng.f64() * 10.0);
            }
        }
        json!({"agent_id": id, "options": [
            {"id": "x", "demands": demands, "utility": 1.0, "elastic": {"min_fraction": 1e-9}}]})
    });
    let intentions: Vec<_> = intentions.collect();
    let resources: Vec<_> =
        (0..3).map(|at| json!({"name": format!("r{at}"), "capacity": 1.0 + rng.f64() * 20.0})).collect();
    serde_json::from_value(json!({"resources": resources, "agents": agents, "intentions": intentions})).unwrap()
}

/// An agent's weight, what it demands in full, and the fraction that it got.
type Share = (f64, BTreeMap<String, f64>, f64);

fn shares(document: &ProblemDocument, plan: &Plan) -> Vec<Share> {
    let all = document.agents.iter().zip(&document.intentions).zip(&plan.decisions);
    all.map(|((agent, intention), got)| (agent.weight, intention.options[0].demands.clone(), got.fraction)).collect()
}

#[test]
fn elastic_shares_are_fair_and_nothing_is_wasted() {
    let strategy = make(&json!("resource_based"));
    for seed in 0..CASES {
        let told = format!("problem {seed}");
        let document = elastic(seed);
        let plan = plan(strategy.as_ref(), &problem(&document), &told);
        let capacity: BTreeMap<&str, f64> =
            document.resources.iter().map(|resource| (resource.name.as_str(), resource.capacity)).collect();
        let shares = shares(&document, &plan);
        let total: f64 = shares.iter().map(|(weight, ..)| weight).sum();
        let used =
            |name: &str| shares.iter().map(|(_, demands, part)| demands.get(name).unwrap_or(&0.0) * part).sum::<f64>();
        let whole = |demands: &BTreeMap<String, f64>, of: f64| {
            // The fraction that so large a part of everything would be enough for.
            demands.iter().map(|(name, amount)| of * capacity[name.as_str()] / amount).fold(1.0, f64::min)
        };
        for (at, (weight, demands, part)) in shares.iter().enumerate() {
            let own = whole(demands, weight / total);
            assert!(*part >= own - 1e-9, "{told}: agent {at} would have {own} of its own, but has {part}");
            let scarce = demands.keys().any(|name| used(name) >= capacity[name.as_str()] * (1.0 - 1e-9));
            assert!(*part >= 1.0 - 1e-9 || scarce, "{told}: agent {at} could have more than {part}");
            for (other, (its_weight, its_demands, its_part)) in shares.iter().enumerate() {
                // What the other has, for a weight as the agent's own.
                let scale = weight / its_weight * its_part;
                let with = demands.iter().map(|(name, amount)| its_demands.get(name).unwrap_or(&0.0) * scale / amount);
                let envied = with.fold(1.0, f64::min);
                assert!(*part >= envied - 1e-9, "{told}: agent {at} has {part}, and envies agent {other} {envied}");
            }
        }
    }
}
