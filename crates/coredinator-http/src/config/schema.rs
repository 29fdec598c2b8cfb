//! The JSON Schema of the configuration file, for editors and for whoever makes files by programs.
//!
//! A test has the loader read a file that says everything, and holds the keys that it asked for against the keys here, in
//! both directions: neither can be changed without the other.

use coredinator_core::ServiceSpec;
use serde_json::{Map, Value, json};

/// The schema of a whole file (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let services = json!({
        "type": "object",
        "description": "services by their names; keys that start with x- are yours",
        "propertyNames": {"pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|x-.*)$"},
        "patternProperties": {"^x-": {}},
        "additionalProperties": {"$ref": "#/$defs/service"},
    });
    let section = closed(&json!({
        "host": {"type": "string", "description": "the address to listen on"},
        "port": port(),
        "data_dir": {"type": "string", "description": "where the state is kept, relative to the file"},
        "database_url": {"type": ["string", "null"], "description": "another place for the state"},
        "detach": {"type": "boolean", "description": "whether services go on when coredinator ends"},
        "node": {"type": ["string", "null"], "description": "what this machine is called among those that share a database"},
        "advertise": {"type": ["string", "null"], "description": "where other replicas reach this one: http://host:port"},
        "leadership": closed(&json!({"lease": duration(), "renew_deadline": duration(), "retry": duration()})),
        "health_check": {"$ref": "#/$defs/timing"},
        "config": {"type": "object", "description": "what the documents of services that have a config are laid on"},
        "config_validator": {
            "description": "who judges those documents: a URL, or an object of it and more",
            "anyOf": [{"type": "null"}, {"type": "string", "pattern": "^http://"}, closed(&json!({
                "url": {"type": "string", "pattern": "^http://"},
                "timeout": duration(),
                "on_unreachable": {"enum": ["refuse", "accept"]},
                "headers": {"type": "object", "additionalProperties": {"type": ["string", "object"]}},
            }))],
        },
        "services": services,
        "coordination": {"$ref": "#/$defs/coordination"},
    }));
    let mut whole = closed(&json!({
        "coredinator": section,
        "alerts": {"description": "kept as it is"},
    }));
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    whole["title"] = "coredinator's configuration".into();
    whole["$defs"] = json!({
        "duration": {
            "description": "a number of seconds, or a text with units such as 250ms or 1m30s",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": "^\\s*([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)\\s*$"},
            ],
        },
        "command": {
            "description": "a program and its arguments: a list, or one text that is split at white space outside quotes",
            "anyOf": [{"type": "array", "items": {"type": ["string", "number", "boolean"]}}, {"type": "string"}],
        },
        "texts": {
            "description": "a map of texts, or a list of KEY=VALUE",
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
                {"type": "array", "items": {"type": "string"}},
            ],
        },
        "signal": {"type": "string", "pattern": "^([Ss][Ii][Gg])?[A-Za-z0-9]+$", "description": "such as SIGTERM"},
        "timing": closed(&timing()),
        "check": closed(&check()),
        "service": service(),
        "coordination": coordination(),
        "group": closed(&group()),
    });
    whole
}

/// An object with these keys and the user's own.
fn closed(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties, "patternProperties": {"^x-": {}}, "additionalProperties": false})
}

fn port() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": 65535})
}

fn duration() -> Value {
    json!({"$ref": "#/$defs/duration"})
}

fn share() -> Value {
    json!({"type": "number", "minimum": 0, "maximum": 1})
}

fn timing() -> Value {
    json!({
        "interval": duration(),
        "timeout": duration(),
        "retries": {"type": "integer", "minimum": 1, "description": "failures in a row that make it unhealthy"},
        "success_threshold": {"type": "integer", "minimum": 1, "description": "passes in a row that make it healthy again"},
        "start_period": duration(),
        "start_interval": duration(),
        "jitter": share(),
    })
}

fn check() -> Value {
    let mut keys = timing();
    let more = json!({
        "kind": {"type": "string", "description": "http, tcp, command, heartbeat, none, or a plugin's word"},
        "disable": {"type": "boolean"},
        "path": {"type": "string", "pattern": "^/"},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "expected_status": {"description": "a status, a range such as 200-299, or a list of such"},
        "expected_headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "expected_body": {"type": "string"},
        "command": {"$ref": "#/$defs/command"},
        "beside": {"type": "boolean", "description": "whether a command runs beside coredinator instead of inside the instance"},
        "ttl": duration(),
        "options": {"type": "object", "description": "of a plugin's probe"},
    });
    extend(&mut keys, more);
    keys
}

fn extend(keys: &mut Value, more: Value) {
    if let (Some(keys), Value::Object(more)) = (keys.as_object_mut(), more) {
        keys.extend(more);
    }
}

/// A service: beside these keys, those of its runtime.
fn service() -> Value {
    json!({"type": "object", "properties": service_keys()})
}

fn service_keys() -> Value {
    json!({
        "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
        "runtime": {"type": "string", "description": "what runs it: process, docker, or a plugin's; none: it is only watched"},
        "node": {"type": "string", "description": "the node on which it runs; where it is declared, if none is named"},
        "command": {"$ref": "#/$defs/command"},
        "environment": {"$ref": "#/$defs/texts"},
        "working_dir": {"type": "string"},
        "host": {"type": "string", "default": "localhost"},
        "port": port(),
        "health_endpoint": {"type": "string", "pattern": "^/"},
        "health_check": {"$ref": "#/$defs/check"},
        "readiness_check": {"$ref": "#/$defs/check"},
        "restart_policy": {"type": "string", "pattern": "^(no|always|on-failure(:[1-9][0-9]*)?|unless-stopped)$"},
        "backoff": closed(&json!({
            "initial": duration(),
            "max": duration(),
            "factor": {"type": "number", "minimum": 1},
            "jitter": share(),
            "reset_after": duration(),
        })),
        "restart_budget": closed(&json!({
            "attempts": {"type": "integer", "minimum": 0, "description": "0 is no limit"},
            "window": duration(),
        })),
        "success_exit_codes": {"type": "array", "items": {"type": "integer"}},
        "replicas": {"type": "integer", "minimum": 0, "maximum": ServiceSpec::MAX_REPLICAS},
        "depends_on": {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"anyOf": [{"type": "null"}, closed(&json!({
                    "condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]},
                    "required": {"type": "boolean"},
                }))]}},
            ],
        },
        "stop_signal": {"$ref": "#/$defs/signal"},
        "stop_grace_period": duration(),
        "labels": {"$ref": "#/$defs/texts"},
        "version": {"type": "string"},
        "logs": closed(&json!({
            "max_size": {"type": "integer", "minimum": 4096, "description": "of one file, in bytes"},
            "max_files": {"type": "integer", "minimum": 1, "maximum": 1000},
        })),
        "config": {"type": "object", "description": "its configuration document, over coredinator.config"},
        "config_schema": {
            "type": ["object", "boolean", "string"],
            "description": "the JSON Schema that its document must keep to, or the path of its file, relative to this file",
        },
        "config_overrides": {
            "type": "object",
            "description": "what is laid over it for single replicas, by their numbers",
            "propertyNames": {"pattern": "^(0|[1-9][0-9]*)$"},
            "additionalProperties": {"type": "object"},
        },
        "config_change": {"anyOf": [{"enum": ["none", "signal", "http", "restart"]}, closed(&json!({
            "action": {"enum": ["none", "signal", "http", "restart"]},
            "signal": {"$ref": "#/$defs/signal"},
            "path": {"type": "string", "pattern": "^/"},
            "timeout": duration(),
            "settle": duration(),
            "acknowledge": {"type": "boolean"},
        }))]},
    })
}

fn coordination() -> Value {
    let mut keys = group();
    let amount = || json!({"type": "number", "exclusiveMinimum": 0});
    let more = json!({
        "enabled": {"type": "boolean"},
        "groups": {"type": "object", "additionalProperties": {"$ref": "#/$defs/group"}},
        "agents": {"type": "object", "additionalProperties": closed(&json!({
            "priority": {"type": "integer"},
            "weight": amount(),
            "preemptible": {"type": "boolean"},
        }))},
        "max_priority": {"type": ["integer", "null"]},
        "max_weight": {"type": ["number", "null"]},
        "max_agents": {"type": "integer", "minimum": 0},
        "history": {"type": "integer", "minimum": 0},
        "history_bytes": {"type": "integer", "minimum": 0},
    });
    extend(&mut keys, more);
    closed(&keys)
}

fn group() -> Value {
    let named =
        |what: &str| json!({"type": ["object", "array"], "description": format!("{what}, a map by name or a list")});
    json!({
        "sync_interval": duration(),
        "conflict_resolution": {"type": ["string", "object"], "description": "a strategy's name, or an object of its name and options"},
        "resources": named("what there is to share"),
        "variables": named("what has one value for all"),
        "on_silence": {"description": "what is decided for an agent that is silent and names no fallback"},
        "ttl": {"anyOf": [duration(), {"type": "null"}]},
        "budget": {"type": "object"},
        "collect": share(),
        "distribute": share(),
        "negotiate": share(),
        "seed": {"type": "integer", "minimum": 0},
    })
}

/// The keys that the schema knows, by the pointers of their objects, with `*` for what has any name.
#[cfg(test)]
fn known(schema: &Value) -> std::collections::BTreeMap<String, std::collections::BTreeSet<String>> {
    fn walk<'s>(
        root: &'s Value,
        at: &str,
        schema: &'s Value,
        known: &mut std::collections::BTreeMap<String, std::collections::BTreeSet<String>>,
    ) {
        if let Some(reference) = schema["$ref"].as_str() {
            return walk(root, at, root.pointer(reference.trim_start_matches('#')).unwrap(), known);
        }
        for one in schema["anyOf"].as_array().into_iter().flatten() {
            walk(root, at, one, known);
        }
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            known.entry(at.to_owned()).or_default().insert(key.clone());
            walk(root, &format!("{at}/{key}"), inner, known);
        }
        if schema["additionalProperties"].is_object() {
            walk(root, &format!("{at}/*"), &schema["additionalProperties"], known);
        }
    }
    let mut found = std::collections::BTreeMap::new();
    walk(schema, "", schema, &mut found);
    found
}

/// The schema of one service's document, for whoever describes those alone.
#[must_use]
pub fn service_schema() -> Map<String, Value> {
    service_keys().as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use coredinator_core::field::record;

    use super::*;
    use crate::config::{Input, Loader};

    /// A file in which every object that has keys of its own is there.
    const EVERYTHING: &str = r#"
coredinator:
  health_check: {interval: 5}
  leadership: {lease: 15}
  config: {a: 1}
  config_validator: {url: "http://127.0.0.1:1/"}
  services:
    svc:
      runtime: process
      command: x
      health_check: {kind: own, options: {}}
      readiness_check: {kind: own, options: {}}
      backoff: {initial: 1}
      restart_budget: {attempts: 1}
      depends_on: {other: {condition: service_started}}
      logs: {max_files: 2}
      config: {b: 2}
      config_schema: {type: object}
      config_overrides: {"0": {b: 3}}
      config_change: {action: signal}
    other: {port: 1}
  coordination:
    groups: {g: {}}
    agents: {a: {priority: 1}}
alerts: []
"#;

    #[test]
    fn the_loader_and_the_schema_know_the_same_keys() {
        let input = Input::Text { name: "all.yaml".into(), text: EVERYTHING.into(), folder: "/".into() };
        let (loaded, asked) = record(|| Loader::new().input(input).load());
        loaded.unwrap_or_else(|error| panic!("{error}: {:?}", error.problems()));
        let any = |pointer: &str| {
            let tokens =
                pointer.split('/').map(|token| if ["svc", "other", "g"].contains(&token) { "*" } else { token });
            let pointer = tokens.collect::<Vec<_>>().join("/");
            pointer.replace("/agents/a", "/agents/*")
        };
        let mut by_loader: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (pointer, keys) in
            asked.iter().filter(|(pointer, _)| pointer.is_empty() || pointer.starts_with("/coredinator"))
        {
            by_loader.entry(any(pointer)).or_default().extend(keys.iter().map(|key| (*key).to_owned()));
        }
        // The loader reads a check of no section at all, too, which has no place.
        let top = by_loader.get_mut("").unwrap();
        top.retain(|key| ["coredinator", "alerts"].contains(&key.as_str()));
        let known = known(&schema());
        for (pointer, keys) in &by_loader {
            assert_eq!(known.get(pointer), Some(keys), "keys at {pointer:?}: of the schema, of the loader");
        }
        let nowhere: Vec<_> = known.keys().filter(|pointer| !by_loader.contains_key(*pointer)).collect();
        assert_eq!(nowhere, [] as [&String; 0], "the schema knows objects that the loader did not read");
        let services: BTreeSet<&str> = service_schema()
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|k| ServiceSpec::KEYS.iter().find(|key| **key == k).copied().unwrap_or_default())
            .collect();
        assert_eq!(services, ServiceSpec::KEYS.iter().copied().collect());
    }
}
