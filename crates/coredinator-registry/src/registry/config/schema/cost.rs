//! How much it takes to evaluate a schema with a document, known without evaluating it.
//!
//! References make of a few lines a schema that is evaluated more often than there is time for: each of 40 parts that names the
//! next one twice, or a part that names itself twice for the same key of a document 60 deep.

use std::collections::HashMap;

use serde_json::Value;

use super::refs::{REFERENCE, parts, resolve};

/// The most evaluations of a part with a value.
const MOST: u64 = 1_000_000;
/// The most pairs of a part and a value that are looked at.
const PAIRS: usize = 1_000_000;
/// How many evaluations may be inside of each other.
const DEEPEST: usize = 512;

/// Whether evaluating `schema` with `document` ends soon.
pub(super) fn is_affordable(schema: &Value, document: &Value) -> bool {
    let mut counting = Counting { root: schema, known: HashMap::new(), named: HashMap::new() };
    counting.cost(schema, document, 0).is_some_and(|cost| cost <= MOST)
}

struct Counting<'s> {
    root: &'s Value,
    known: HashMap<(*const Value, *const Value), u64>,
    /// What parts name.
    named: HashMap<*const Value, Vec<&'s Value>>,
}

impl Counting<'_> {
    /// How many evaluations follow from evaluating `part` with `value`, itself included; `None`: too many to be counted.
    fn cost(&mut self, part: &Value, value: &Value, depth: usize) -> Option<u64> {
        let pair = (std::ptr::from_ref(part), std::ptr::from_ref(value));
        if let Some(cost) = self.known.get(&pair) {
            return Some(*cost);
        }
        if depth > DEEPEST || self.known.len() > PAIRS {
            return None;
        }
        // A part that is met again with the same value is not evaluated again.
        self.known.insert(pair, 0);
        let mut cost: u64 = 1;
        let root = self.root;
        let resolved =
            || REFERENCE.into_iter().filter_map(|keyword| resolve(root, part.get(keyword)?.as_str()?)).collect();
        let named: Vec<&Value> = self.named.entry(part).or_insert_with(resolved).clone();
        for named in named {
            cost = cost.saturating_add(self.cost(named, value, depth + 1)?);
        }
        for (keyword, key, inner) in parts(part) {
            for below in reached(keyword, key.as_deref(), value) {
                cost = cost.saturating_add(self.cost(inner, below, depth + 1)?);
            }
        }
        self.known.insert(pair, cost);
        Some(cost)
    }
}

/// The values with which a part that stands under `keyword` is evaluated.
fn reached<'v>(keyword: &str, key: Option<&str>, value: &'v Value) -> Vec<&'v Value> {
    let children = || match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => Vec::new(),
    };
    match (keyword, key) {
        ("$defs" | "definitions" | "contentSchema", _) => Vec::new(),
        ("properties", Some(key)) => value.get(key).into_iter().collect(),
        ("prefixItems" | "items", Some(index)) => {
            index.parse().ok().and_then(|index: usize| value.get(index)).into_iter().collect()
        }
        (
            "patternProperties"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "propertyNames"
            | "items"
            | "additionalItems"
            | "unevaluatedItems"
            | "contains",
            _,
        ) => children(),
        _ => vec![value],
    }
}
