//! The published instances of the multiple-choice knapsack problem in several dimensions (Khan, Li, Manning, Akbar, 2002),
//! in the format in which they are passed on: the numbers of groups, of items in each, and of resources; what there is of
//! each resource; then of each group its number, and a line for each item with its value and what it takes.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::coordination::{
    ActionOption, Agent, AgentId, Intention, ProblemDocument, Resource, ResourceKind,
};

/// The instances, with the best value known of each, and what no value exceeds.
pub(crate) const INSTANCES: [(&str, f64, f64); 13] = [
    ("I01", 173.0, 173.0),
    ("I02", 364.0, 364.0),
    ("I03", 1602.0, 1602.0),
    ("I04", 3597.0, 3597.0),
    ("I05", 3905.7, 3905.7),
    ("I06", 4799.3, 4799.3),
    ("I07", 24584.0, 24606.0),
    ("I08", 36868.0, 36903.0),
    ("I09", 49157.0, 49193.0),
    ("I10", 61454.0, 61485.0),
    ("I11", 73763.0, 73797.0),
    ("I12", 86068.0, 86100.0),
    ("I13", 98407.0, 98448.0),
];

/// Reads an instance; `None`: it is none.
pub(crate) fn parse(text: &str) -> Option<ProblemDocument> {
    let mut numbers = text.split_whitespace().map_while(|word| word.parse::<f64>().ok());
    let (groups, items, rows) = (numbers.next()? as usize, numbers.next()? as usize, numbers.next()? as usize);
    let mut resources = Vec::with_capacity(rows);
    for at in 1..=rows {
        let (name, unit) = (format!("r{at:03}"), String::new());
        resources.push(Resource { name, capacity: numbers.next()?, unit, reserve: 0.0, kind: ResourceKind::Divisible });
    }
    let (mut agents, mut intentions) = (Vec::new(), Vec::new());
    for group in 1..=groups {
        if numbers.next()? as usize != group {
            return None;
        }
        let mut options = Vec::with_capacity(items);
        for item in 0..items {
            let utility = numbers.next()?;
            let mut demands = BTreeMap::new();
            for resource in &resources {
                demands.insert(resource.name.clone(), numbers.next()?);
            }
            options.push(ActionOption {
                id: item.to_string(),
                action: serde_json::Value::Null,
                demands,
                claims: BTreeMap::new(),
                effects: BTreeMap::new(),
                utility,
                elastic: None,
            });
        }
        options.sort_by(|a, b| b.utility.total_cmp(&a.utility));
        let agent_id = AgentId::new(&format!("g{group:03}")).ok()?;
        agents.push(Arc::new(Agent::new(agent_id.clone())));
        intentions.push(Arc::new(Intention { agent_id, seq: 1, valid_until_cycle: None, disagreement: None, options }));
    }
    let empty: ProblemDocument = serde_json::from_str(r#"{"agents": []}"#).ok()?;
    Some(ProblemDocument { group: "khan".to_owned(), resources, agents, intentions, ..empty })
}
