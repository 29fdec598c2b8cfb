//! What a real API server would not take, of what the runtime could be wrong about: names, labels, lists that are kept by a key,
//! quantities, probes.

use serde_json::Value;

use super::world::Refusal;

/// The lists of a container and of a pod whose elements are known by keys: a key that comes twice is refused.
const OF_CONTAINERS: [(&str, &[&str]); 3] =
    [("env", &["name"]), ("ports", &["containerPort", "protocol"]), ("volumeMounts", &["mountPath"])];
const OF_PODS: [(&str, &[&str]); 4] =
    [("containers", &["name"]), ("volumes", &["name"]), ("hostAliases", &["ip"]), ("imagePullSecrets", &["name"])];

/// Looks at an object that is to be written.
pub(super) fn check(resource: &str, object: &Value) -> Result<(), Refusal> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let refused = |what: String| Err(Refusal(422, "Invalid", format!("{resource} {name:?} is invalid: {what}")));
    let begins_with_a_letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !name.split('.').all(is_label) || (resource == "services" && !(is_label(name) && begins_with_a_letter)) {
        return refused("metadata.name: Invalid value".to_owned());
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let (prefix, word) = key.rsplit_once('/').unwrap_or(("a", key));
        if word.is_empty()
            || !is_value(word)
            || !prefix.split('.').all(is_label)
            || !value.as_str().is_some_and(is_value)
        {
            return refused(format!("metadata.labels: Invalid value: {key}={value}"));
        }
    }
    if resource != "pods" {
        return Ok(());
    }
    let spec = &object["spec"];
    let mut twice: Vec<String> = OF_PODS.iter().filter_map(|(list, keys)| doubled(spec, list, keys)).collect();
    for container in spec["containers"].as_array().into_iter().flatten() {
        twice.extend(OF_CONTAINERS.iter().filter_map(|(list, keys)| doubled(container, list, keys)));
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let mut volumes = spec["volumes"].as_array().into_iter().flatten();
            if !volumes.any(|volume| volume["name"] == mount["name"]) {
                return refused(format!("volumeMounts: Not found: {}", mount["name"]));
            }
        }
        for amount in container["resources"]["limits"].as_object().into_iter().flatten().map(|(_, amount)| amount) {
            if !amount.as_str().is_some_and(is_quantity) {
                return refused(format!("resources.limits: Invalid value: {amount}"));
            }
        }
        for (kind, probe) in ["startupProbe", "livenessProbe", "readinessProbe"].map(|kind| (kind, &container[kind])) {
            if probe.is_object() && !is_probe(kind, probe) {
                return refused(format!("{kind}: Invalid value: {probe}"));
            }
        }
    }
    if let Some(twice) = twice.first() {
        return refused(format!("duplicate entries for key [{twice}]"));
    }
    let policy = spec["restartPolicy"].as_str().unwrap_or("Always");
    let grace = spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    if !["Always", "OnFailure", "Never"].contains(&policy) || grace < 0 {
        return refused(format!("restartPolicy {policy}, terminationGracePeriodSeconds {grace}"));
    }
    Ok(())
}

/// The first key of a list that comes twice.
fn doubled(of: &Value, list: &str, keys: &[&str]) -> Option<String> {
    let mut seen = Vec::new();
    for element in of[list].as_array().into_iter().flatten() {
        let key: Vec<&Value> = keys.iter().map(|key| &element[key]).collect();
        if seen.contains(&key) {
            return Some(format!("{list}: {key:?}"));
        }
        seen.push(key);
    }
    None
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_value(text: &str) -> bool {
    let outer = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| outer(c) || "-_.".contains(c);
    text.len() <= 63
        && text.chars().all(inner)
        && (text.is_empty() || (text.starts_with(outer) && text.ends_with(outer)))
}

/// A number, perhaps with a unit; at least what the runtime writes.
fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(['m', 'k', 'M', 'G', 'i', 'K']);
    !number.is_empty() && number.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0)
}

/// One way to check, at a port that is one, and once is enough to be alive.
fn is_probe(kind: &str, probe: &Value) -> bool {
    let ways = ["exec", "httpGet", "tcpSocket", "grpc"].iter().filter(|way| probe[**way].is_object()).count();
    let is_port = |way: &str| probe[way]["port"].as_i64().is_none_or(|port| (1..=65535).contains(&port));
    let counts = ["periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"];
    let times = probe["successThreshold"].as_i64().unwrap_or(1);
    ways == 1
        && is_port("httpGet")
        && is_port("tcpSocket")
        && counts.iter().all(|count| probe[*count].as_i64().is_none_or(|count| count >= 1))
        && (kind == "readinessProbe" || times == 1)
}
