//! Problems out of a seed.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::coordination::{
    ActionOption, Agent, AgentId, Intention, Problem, ProblemDocument, Resource, ResourceKind,
};

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    agents: usize,
    resources: usize,
    /// Into how many parts that share nothing agents and resources fall; 0: every agent touches every resource.
    components: usize,
    kind: Kind,
}

/// How an agent's options are related.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Not at all but for this: the more an option demands, the more it is worth, by and large.
    Unrelated,
    /// They are degrees of one wish, with the same share of everything but for a quarter of it, and each further degree is
    /// worth less.
    Graded,
}

/// What is measured.
pub(crate) const ROWS: [Row; 11] = [
    Row { name: "sparse-100x25", agents: 100, resources: 25, components: 5, kind: Kind::Unrelated },
    Row { name: "sparse-1000x50", agents: 1000, resources: 50, components: 10, kind: Kind::Unrelated },
    Row { name: "sparse-1000x250", agents: 1000, resources: 250, components: 50, kind: Kind::Unrelated },
    Row { name: "sparse-10000x50", agents: 10_000, resources: 50, components: 10, kind: Kind::Unrelated },
    Row { name: "sparse-10000x2500", agents: 10_000, resources: 2500, components: 500, kind: Kind::Unrelated },
    Row { name: "dense-1000x50", agents: 1000, resources: 50, components: 0, kind: Kind::Unrelated },
    Row { name: "dense-10000x10", agents: 10_000, resources: 10, components: 0, kind: Kind::Unrelated },
    Row { name: "graded-sparse-1000x50", agents: 1000, resources: 50, components: 10, kind: Kind::Graded },
    Row { name: "graded-sparse-10000x2500", agents: 10_000, resources: 2500, components: 500, kind: Kind::Graded },
    Row { name: "graded-dense-1000x50", agents: 1000, resources: 50, components: 0, kind: Kind::Graded },
    Row { name: "graded-dense-10000x10", agents: 10_000, resources: 10, components: 0, kind: Kind::Graded },
];

/// A problem with 3 to 5 options for each agent, of which the last and least wanted demands nothing; capacities are half of
/// what would be demanded if everybody took the most of everything. In a sparse one, an agent touches 2 or 3 of the resources
/// of its component.
pub(crate) fn problem(row: &Row, seed: u64) -> Problem {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut peak = vec![0.0; row.resources];
    let mut agents = Vec::new();
    let mut intentions = Vec::new();
    for at in 0..row.agents {
        let touched: Vec<usize> = match row.resources.checked_div(row.components) {
            None => (0..row.resources).collect(),
            Some(share) => {
                let first = (at % row.components) * share;
                let mut own: Vec<usize> = (first..first + share).collect();
                chance.shuffle(&mut own);
                own.truncate(chance.usize(2..=3));
                own
            }
        };
        let mut most = vec![0.0_f64; touched.len()];
        let mut options: Vec<(f64, BTreeMap<String, f64>)> = vec![(0.0, BTreeMap::new())];
        let degrees = chance.usize(3..=5) - 1;
        let wish = match row.kind {
            Kind::Unrelated => None,
            Kind::Graded => {
                Some((1.0 + 9.0 * chance.f64(), touched.iter().map(|_| 1.0 + 9.0 * chance.f64()).collect::<Vec<_>>()))
            }
        };
        for degree in 1..=degrees {
            let (utility, amounts) = match &wish {
                None => {
                    let amounts: Vec<f64> = touched.iter().map(|_| f64::from(chance.u32(1..=100)) / 10.0).collect();
                    let mean = amounts.iter().sum::<f64>() / amounts.len() as f64;
                    (mean * (0.5 + chance.f64()), amounts)
                }
                Some((worth, whole)) => {
                    let share = degree as f64 / degrees as f64;
                    let amounts = whole.iter().map(|amount| share * amount * (0.75 + 0.5 * chance.f64()));
                    (worth * share.powf(0.6), amounts.collect())
                }
            };
            most.iter_mut().zip(&amounts).for_each(|(most, amount)| *most = most.max(*amount));
            let demands = touched.iter().zip(amounts).map(|(resource, amount)| (format!("r{resource:04}"), amount));
            options.push((utility, demands.collect()));
        }
        options.sort_by(|a, b| b.0.total_cmp(&a.0));
        touched.iter().zip(most).for_each(|(&resource, most)| peak[resource] += most);
        let agent_id = AgentId::new(&format!("a{at:05}")).expect("it is an id");
        agents.push(Arc::new(Agent::new(agent_id.clone())));
        let options = options.into_iter().enumerate().map(|(place, (utility, demands))| ActionOption {
            id: format!("o{place}"),
            action: serde_json::Value::Null,
            demands,
            claims: BTreeMap::new(),
            effects: BTreeMap::new(),
            utility,
            elastic: None,
        });
        intentions.push(Arc::new(Intention {
            agent_id,
            seq: 1,
            valid_until_cycle: None,
            disagreement: None,
            options: options.collect(),
        }));
    }
    let resources = peak.into_iter().enumerate().map(|(at, peak)| Resource {
        name: format!("r{at:04}"),
        capacity: peak / 2.0,
        unit: String::new(),
        reserve: 0.0,
        kind: ResourceKind::Divisible,
    });
    let empty: ProblemDocument = serde_json::from_str(r#"{"agents": []}"#).expect("it is a problem");
    let document = ProblemDocument { resources: resources.collect(), agents, intentions, ..empty };
    Problem::new(document).expect("it is a problem")
}
