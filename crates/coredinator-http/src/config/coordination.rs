//! The `coordination` section written out.

use coredinator_coord::{AgentRule, CoordinationConfig, GroupConfig};
use coredinator_core::{coordination::DEFAULT_GROUP, duration::Seconds};
use serde_json::{Map, Value, json};

/// The section with every default written out, in the form in which it is read.
pub(super) fn document(config: &CoordinationConfig) -> Value {
    let fallback = GroupConfig::default();
    let mut section = group(config.groups.get(DEFAULT_GROUP).unwrap_or(&fallback));
    let groups = config.groups.iter().filter(|(name, _)| *name != DEFAULT_GROUP);
    let groups: Map<String, Value> = groups.map(|(name, of)| (name.clone(), Value::Object(group(of)))).collect();
    let agents: Map<String, Value> =
        config.agents.iter().map(|(id, rule)| (id.to_string(), Value::Object(agent(rule)))).collect();
    section.insert("enabled".to_owned(), config.enabled.into());
    section.insert("groups".to_owned(), Value::Object(groups));
    section.insert("agents".to_owned(), Value::Object(agents));
    for (key, value) in [
        ("max_priority", json!(config.max_priority)),
        ("max_weight", json!(config.max_weight)),
        ("max_agents", json!(config.max_agents)),
        ("history", json!(config.history)),
        ("history_bytes", json!(config.history_bytes)),
    ] {
        section.insert(key.to_owned(), value);
    }
    Value::Object(section)
}

fn group(group: &GroupConfig) -> Map<String, Value> {
    let resources = group.resources.iter().map(|resource| {
        let mut value = named(resource);
        if group.from_host.contains(&resource.name) {
            // It is the machine's.
            value.remove("capacity");
        }
        (resource.name.clone(), Value::Object(value))
    });
    let variables = group.variables.iter().map(|variable| (variable.name.clone(), Value::Object(named(variable))));
    let fields = [
        ("sync_interval", json!(Seconds(group.sync_interval))),
        ("conflict_resolution", group.conflict_resolution.clone()),
        ("resources", Value::Object(resources.collect())),
        ("variables", Value::Object(variables.collect())),
        ("on_silence", json!(group.on_silence)),
        ("ttl", json!(group.ttl.map(Seconds))),
        ("budget", json!(group.budget)),
        ("collect", json!(group.collect)),
        ("distribute", json!(group.distribute)),
        ("negotiate", json!(group.negotiate)),
        ("seed", json!(group.seed)),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A resource or variable under its name, which is not said again.
fn named(of: &impl serde::Serialize) -> Map<String, Value> {
    let mut value = serde_json::to_value(of).unwrap_or_default();
    let fields = value.as_object_mut().map(std::mem::take).unwrap_or_default();
    fields.into_iter().filter(|(key, _)| key != "name").collect()
}

fn agent(rule: &AgentRule) -> Map<String, Value> {
    let said = [
        ("priority", rule.priority.map(Value::from)),
        ("weight", rule.weight.map(Value::from)),
        ("preemptible", rule.preemptible.map(Value::from)),
    ];
    said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
