//! What a pod was really asked to be, as people read it, and what its kubelet says of its health.

use coredinator_core::{ProbeReport, redacted, without_nothing};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use crate::state::{Found, Probed};

/// A pod in the words in which the API server keeps what was asked for, without what says nothing.
pub(crate) fn asked(pod: &Pod) -> Value {
    let of = &pod.metadata;
    let mut spec = json!(pod.spec);
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
                let (name, value) = (variable["name"].as_str(), variable["value"].as_str());
                if let (Some(name), Some(value)) = (name, value) {
                    let shown = redacted(name, value);
                    variable["value"] = shown.into();
                }
            }
        }
    }
    let shown = json!({
        "metadata": {
            "name": of.name, "namespace": of.namespace, "uid": of.uid, "labels": of.labels, "annotations": of.annotations,
        },
        "spec": spec,
    });
    without_nothing(shown).unwrap_or_else(|| Value::Object(Map::new()))
}

/// What the kubelet's checks say; `None`: nothing yet, or it makes none.
pub(crate) fn health(found: &Found) -> Option<ProbeReport> {
    match found.probed? {
        Probed::Starting => None,
        Probed::Ready => Some(ProbeReport::pass("its kubelet says that it is ready")),
        Probed::Unready => Some(ProbeReport::fail("its kubelet says that it is not ready")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_shown_without_secrets() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "coredinator"}]},
            "spec": {"containers": [{"name": "main", "tty": false, "env": [
                {"name": "A", "value": "b"}, {"name": "API_TOKEN", "value": "x"},
                {"name": "KEPT", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ]}]},
            "status": {"phase": "Running"},
        }))
        .unwrap();
        let wanted = json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "main", "env": [
                {"name": "A", "value": "b"}, {"name": "API_TOKEN", "value": "***"},
                {"name": "KEPT", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ]}]},
        });
        assert_eq!(asked(&pod), wanted);
    }
}
