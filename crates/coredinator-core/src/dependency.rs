//! What must hold of other services before one starts, and the order that follows from it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{FieldError, ServiceName, field::FieldReader};

/// What a dependency must have reached before its dependents start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    /// Every replica has been started.
    #[default]
    ServiceStarted,
    /// Every replica is healthy.
    ServiceHealthy,
    /// It ended, with a success exit code.
    ServiceCompletedSuccessfully,
}

/// One edge of the dependency graph, from a dependent service to the one it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// What must hold before the dependent starts.
    pub condition: DependencyCondition,
    /// `false`: a dependency that does not exist or has failed for good is passed over with a warning.
    pub required: bool,
}

impl Default for Dependency {
    fn default() -> Self {
        Self { condition: DependencyCondition::default(), required: true }
    }
}

impl Dependency {
    /// Reads `{condition, required}`, every key optional.
    fn parse(pointer: &str, value: Value) -> Result<Self, Vec<FieldError>> {
        let mut reader = FieldReader::new(pointer, value);
        let read = Self {
            condition: reader.or("condition", DependencyCondition::default()),
            required: reader.or("required", true),
        };
        reader.finish(|| read)
    }

    /// Reads `depends_on`: a map from names to conditions, or Compose's short list of names.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse_all(pointer: &str, value: Value) -> Result<BTreeMap<ServiceName, Self>, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut read = BTreeMap::new();
        let entries: Vec<(String, String, Value)> = match value {
            Value::Object(map) => {
                map.into_iter().map(|(name, v)| (crate::field::join(pointer, &name), name, v)).collect()
            }
            Value::Array(names) => names
                .into_iter()
                .enumerate()
                .map(|(i, name)| (format!("{pointer}/{i}"), name.as_str().unwrap_or_default().to_owned(), Value::Null))
                .collect(),
            other => {
                let found = crate::field::kind(&other);
                return Err(vec![FieldError::new(
                    pointer,
                    format!("expected a map of services or a list of names, but found {found}"),
                )]);
            }
        };
        for (pointer, name, value) in entries {
            match ServiceName::new(&name) {
                Err(error) => errors.push(FieldError::new(&pointer, format!("a service's name {error}"))),
                Ok(name) if value.is_null() => drop(read.insert(name, Self::default())),
                Ok(name) => match Self::parse(&pointer, value) {
                    Ok(dependency) => drop(read.insert(name, dependency)),
                    Err(more) => errors.extend(more),
                },
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }
}

/// Who depends on whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DependencyGraph {
    edges: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
}

/// Services that wait for one another in a circle, so that none could ever start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dependency cycle: {}", .0.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" -> "))]
pub struct DependencyCycle(
    /// The path round the circle; the first service stands again at the end.
    pub Vec<ServiceName>,
);

impl DependencyGraph {
    /// Gathers the edges of all services. Names of services that do not exist are kept: they order nothing.
    pub fn new<D: IntoIterator<Item = ServiceName>>(services: impl IntoIterator<Item = (ServiceName, D)>) -> Self {
        Self { edges: services.into_iter().map(|(name, on)| (name, on.into_iter().collect())).collect() }
    }

    /// The services in waves: each depends only on earlier ones, and those of one wave can start side by side.
    /// Stopping goes through the waves from the last to the first.
    ///
    /// # Errors
    /// A cycle, with its path.
    pub fn waves(&self) -> Result<Vec<Vec<ServiceName>>, DependencyCycle> {
        let mut waiting: BTreeMap<&ServiceName, BTreeSet<&ServiceName>> = self
            .edges
            .iter()
            .map(|(name, on)| (name, on.iter().filter(|dep| self.edges.contains_key(*dep)).collect()))
            .collect();
        let mut waves = Vec::new();
        while !waiting.is_empty() {
            let wave: Vec<&ServiceName> =
                waiting.iter().filter(|(_, on)| on.is_empty()).map(|(name, _)| *name).collect();
            if wave.is_empty() {
                return Err(DependencyCycle(circle(&waiting)));
            }
            for name in &wave {
                waiting.remove(name);
            }
            for on in waiting.values_mut() {
                on.retain(|dep| !wave.contains(dep));
            }
            waves.push(wave.into_iter().cloned().collect());
        }
        Ok(waves)
    }

    /// The services that name `service` as a dependency, directly.
    pub fn dependents<'s>(&'s self, service: &'s ServiceName) -> impl Iterator<Item = &'s ServiceName> {
        self.edges.iter().filter(move |(_, on)| on.contains(service)).map(|(name, _)| name)
    }
}

/// Walks from any service that waits to one it waits for, until one is met again. Every service in `waiting` waits for
/// another in it, so the walk cannot end otherwise.
fn circle(waiting: &BTreeMap<&ServiceName, BTreeSet<&ServiceName>>) -> Vec<ServiceName> {
    let mut path: Vec<&ServiceName> = waiting.keys().next().into_iter().copied().collect();
    while let Some(next) = path.last().and_then(|last| waiting.get(last)).and_then(|on| on.first()) {
        if let Some(start) = path.iter().position(|seen| seen == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    path.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn graph(edges: &[(&str, &[&str])]) -> DependencyGraph {
        DependencyGraph::new(edges.iter().map(|(n, on)| (name(n), on.iter().map(|d| name(d)).collect::<Vec<_>>())))
    }

    #[test]
    fn independent_services_share_a_wave() {
        let waves =
            graph(&[("io", &[]), ("rl-a", &["io"]), ("rl-b", &["io"]), ("ui", &["rl-a", "absent"])]).waves().unwrap();
        assert_eq!(waves, [vec![name("io")], vec![name("rl-a"), name("rl-b")], vec![name("ui")]]);
    }

    #[test]
    fn a_cycle_is_told_with_its_path() {
        let error = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &[])]).waves().unwrap_err();
        assert_eq!(error.to_string(), "dependency cycle: b -> c -> b");
        assert_eq!(graph(&[("a", &["a"])]).waves().unwrap_err().to_string(), "dependency cycle: a -> a");
    }

    #[test]
    fn both_spellings_of_compose() {
        let long = Dependency::parse_all("/d", json!({"a": {"condition": "service_healthy"}, "b": null})).unwrap();
        assert_eq!(long[&name("a")].condition, DependencyCondition::ServiceHealthy);
        assert!(long[&name("b")].required);
        assert_eq!(Dependency::parse_all("/d", json!(["a"])).unwrap().len(), 1);
        for bad in [json!("a"), json!([1]), json!({"A": {}}), json!({"a": {"condition": "ready"}})] {
            assert!(Dependency::parse_all("/d", bad.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn waves_respect_every_edge_or_name_a_real_cycle(edges in prop::collection::vec((0u8..12, 0u8..12), 0..30)) {
            let mut map: BTreeMap<ServiceName, Vec<ServiceName>> = (0..12).map(|i| (name(&format!("s{i}")), vec![])).collect();
            for (from, to) in &edges {
                map.get_mut(&name(&format!("s{from}"))).unwrap().push(name(&format!("s{to}")));
            }
            match DependencyGraph::new(map.clone()).waves() {
                Ok(waves) => {
                    let wave_of = |n: &ServiceName| waves.iter().position(|w| w.contains(n)).unwrap();
                    prop_assert_eq!(waves.iter().map(Vec::len).sum::<usize>(), 12);
                    for (from, on) in &map {
                        prop_assert!(on.iter().all(|to| wave_of(to) < wave_of(from)));
                    }
                }
                Err(DependencyCycle(path)) => {
                    prop_assert!(path.len() >= 2 && path.first() == path.last());
                    prop_assert!(path.windows(2).all(|pair| map[&pair[0]].contains(&pair[1])));
                }
            }
        }
    }
}
