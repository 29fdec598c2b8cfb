//! Problems made by chance, from a seed: small ones with everything that problems can have.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use serde_json::json;

use crate::coordination::{
    ActionOption, Agent, AgentId, Claim, Elastic, Fallback, Holding, Intention, OnConflict, ProblemDocument, Resource,
    ResourceKind, Shape, Variable,
};

/// A problem of up to `agents` agents, the same for the same seed. Numbers are round, as people's are, so that ties and
/// exact fits occur. Options are listed by utility, the highest first.
///
/// It may have anything: resources that are scarce, whole, reserved or not there, variables of both kinds with rates and
/// tolerances, agents that are silent, hold something, must get an option, or sent what cannot be used.
#[must_use]
pub fn random_problem(seed: u64, agents: usize) -> ProblemDocument {
    let mut rng = Rng::with_seed(seed);
    let resources: Vec<Resource> = (0..rng.usize(0..=3)).map(|at| resource(&mut rng, at, agents)).collect();
    let variables: Vec<Variable> = (0..rng.usize(0..=2)).map(|at| variable(&mut rng, at)).collect();
    let mut document = ProblemDocument {
        group: "conformance".to_owned(),
        cycle: rng.u64(1..1000),
        budget: crate::coordination::BudgetDocument::default(),
        seed,
        resources,
        variables,
        agents: Vec::new(),
        intentions: Vec::new(),
        holdings: Vec::new(),
        history: Vec::new(),
    };
    for at in 0..rng.usize(0..=agents) {
        add_agent(&mut rng, &mut document, at);
    }
    document
}

fn resource(rng: &mut Rng, at: usize, agents: usize) -> Resource {
    let kind = if rng.u8(0..4) == 0 { ResourceKind::Unit } else { ResourceKind::Divisible };
    let plenty = agents * 4;
    let capacity = match rng.u8(0..6) {
        0 => 0.0,
        1 => (plenty * 4) as f64,
        _ => rng.usize(0..=plenty) as f64,
    };
    let reserve = if rng.u8(0..4) == 0 { f64::from(rng.u8(0..3)) } else { 0.0 };
    Resource { name: format!("r{at}"), capacity, unit: "t/h".to_owned(), reserve, kind }
}

fn variable(rng: &mut Rng, at: usize) -> Variable {
    let moving = rng.bool();
    Variable {
        name: format!("v{at}"),
        unit: String::new(),
        min: 0.0,
        max: 100.0,
        max_rate: (moving && rng.bool()).then(|| f64::from(rng.u8(0..30))),
        current: moving.then(|| f64::from(rng.u8(0..120)).min(100.0)),
        default: rng.bool().then(|| f64::from(rng.u8(0..=100))),
        tolerance: if rng.bool() { 0.0 } else { f64::from(rng.u8(0..20)) },
        on_conflict: if rng.bool() { OnConflict::Exclusive } else { OnConflict::Blend },
    }
}

fn option(rng: &mut Rng, document: &ProblemDocument, id: String) -> ActionOption {
    let elastic = (rng.u8(0..3) == 0).then(|| Elastic {
        min_fraction: [0.1, 0.25, 0.5, 1.0][rng.usize(0..4)],
        shape: [Shape::Linear, Shape::Quadratic, Shape::Log][rng.usize(0..3)],
    });
    let mut demands = BTreeMap::new();
    for resource in &document.resources {
        let whole_only = elastic.is_some() && resource.kind == ResourceKind::Unit;
        if !whole_only && rng.u8(0..3) > 0 {
            demands.insert(resource.name.clone(), f64::from(rng.u8(0..8)));
        }
    }
    let mut claims = BTreeMap::new();
    let mut effects = BTreeMap::new();
    for variable in &document.variables {
        if rng.u8(0..3) == 0 {
            let value = f64::from(rng.u8(0..=10)) * 10.0;
            let bounded = rng.bool();
            claims.insert(
                variable.name.clone(),
                Claim {
                    value,
                    min: bounded.then(|| value - f64::from(rng.u8(0..15))),
                    max: (bounded && rng.bool()).then(|| value + f64::from(rng.u8(0..15))),
                    weight: f64::from(rng.u8(1..4)),
                },
            );
        } else if rng.u8(0..4) == 0 {
            effects.insert(variable.name.clone(), f64::from(rng.i8(-30..30)));
        }
    }
    let action = json!({ "do": id });
    ActionOption { id, action, demands, claims, effects, utility: f64::from(rng.u8(0..20)), elastic }
}

fn add_agent(rng: &mut Rng, document: &mut ProblemDocument, at: usize) {
    let Ok(agent_id) = AgentId::new(&format!("a{at:03}")) else { return };
    let fallback = match rng.u8(0..6) {
        0 => None,
        1 => Some(Fallback::Hold),
        2 => Some(Fallback::Default),
        3 => {
            let safe = option(rng, document, "safe".to_owned());
            Some(Fallback::Option(Box::new(ActionOption { elastic: None, utility: 0.0, ..safe })))
        }
        _ => Some(Fallback::Release),
    };
    let agent = Agent {
        group: document.group.clone(),
        priority: i32::from(rng.i8(-1..4)),
        weight: [0.5, 1.0, 1.0, 2.0][rng.usize(0..4)],
        preemptible: rng.u8(0..4) > 0,
        fallback,
        ..Agent::new(agent_id.clone())
    };
    document.agents.push(Arc::new(agent));
    if rng.u8(0..4) == 0 {
        let mut amount = |name: &String| rng.bool().then(|| (name.clone(), f64::from(rng.u8(0..5))));
        let grant = document.resources.iter().filter_map(|resource| amount(&resource.name)).collect();
        let values = document.variables.iter().filter(|_| rng.u8(0..4) == 0).map(|v| (v.name.clone(), 50.0)).collect();
        let holding = Holding {
            agent_id: agent_id.clone(),
            cycle: document.cycle - 1,
            reserved: rng.bool(),
            option_id: Some("o0".to_owned()),
            fraction: 1.0,
            grant,
            values,
            action: json!(null),
        };
        document.holdings.push(Arc::new(holding));
    }
    if rng.u8(0..6) == 0 {
        return;
    }
    let mut options: Vec<ActionOption> =
        (0..rng.usize(1..=4)).map(|at| option(rng, document, format!("o{at}"))).collect();
    options.sort_by(|a, b| b.utility.total_cmp(&a.utility));
    if rng.u8(0..12) == 0 {
        spoil(rng, &mut options);
    }
    let disagreement = (rng.u8(0..4) == 0).then(|| f64::from(rng.i8(-3..3)));
    let intention = Intention { agent_id, seq: rng.u64(0..9), valid_until_cycle: None, disagreement, options };
    document.intentions.push(Arc::new(intention));
}

/// Makes an intention one that cannot be used.
fn spoil(rng: &mut Rng, options: &mut Vec<ActionOption>) {
    let Some(option) = options.first_mut() else { return };
    match rng.u8(0..5) {
        0 => option.utility = f64::NAN,
        1 => _ = option.demands.insert("nobody-has-this".to_owned(), 1.0),
        2 => _ = option.demands.insert("r0".to_owned(), -1.0),
        3 => _ = option.effects.insert("v0".to_owned(), f64::INFINITY),
        _ => options.clear(),
    }
}

/// The same problem with all its lists in another order.
#[must_use]
pub fn shuffled(document: &ProblemDocument, seed: u64) -> ProblemDocument {
    let mut rng = Rng::with_seed(seed);
    let mut document = document.clone();
    rng.shuffle(&mut document.resources);
    rng.shuffle(&mut document.variables);
    rng.shuffle(&mut document.agents);
    rng.shuffle(&mut document.intentions);
    rng.shuffle(&mut document.holdings);
    document
}

/// A problem that is too large to be solved exactly in passing: so many agents, a scarce resource for every ten of them,
/// four options each, of which the last demands nothing.
#[must_use]
pub fn large_problem(seed: u64, agents: usize) -> ProblemDocument {
    let mut rng = Rng::with_seed(seed);
    let count = agents.div_ceil(10);
    let mut document =
        ProblemDocument { budget: crate::coordination::BudgetDocument::default(), ..random_problem(0, 0) };
    document.resources = (0..count)
        .map(|at| Resource {
            name: format!("r{at:04}"),
            capacity: 100.0,
            unit: String::new(),
            reserve: 0.0,
            kind: ResourceKind::Divisible,
        })
        .collect();
    document.variables.clear();
    for at in 0..agents {
        let Ok(agent_id) = AgentId::new(&format!("a{at:05}")) else { continue };
        document.agents.push(Arc::new(Agent {
            group: document.group.clone(),
            fallback: Some(Fallback::Release),
            ..Agent::new(agent_id.clone())
        }));
        let options = (0..4_u32).map(|n| {
            let size = f64::from(3 - n);
            let demand = |rng: &mut Rng| (format!("r{:04}", rng.usize(0..count)), size * (5.0 + rng.f64() * 10.0));
            let demands = if n == 3 { BTreeMap::new() } else { (0..2).map(|_| demand(&mut rng)).collect() };
            ActionOption {
                id: format!("o{n}"),
                action: json!(null),
                demands,
                claims: BTreeMap::new(),
                effects: BTreeMap::new(),
                utility: size * 10.0 + rng.f64(),
                elastic: None,
            }
        });
        let options: Vec<ActionOption> = options.collect();
        let intention = Intention { agent_id, seq: 1, valid_until_cycle: None, disagreement: None, options };
        document.intentions.push(Arc::new(intention));
    }
    document
}
