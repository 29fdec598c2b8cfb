//! `pod_template`: a piece of a pod template, merged over what coredinator makes.
//!
//! The rules are those of a strategic merge patch, as far as they need no markers: objects are merged key by key, `null`
//! takes a key away, lists whose elements have a key ([`KEYS`]) are merged element by element, and every other value
//! replaces what was there.

use coredinator_core::{
    FieldError,
    field::{join, kind},
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{container::CONTAINER, labels, options::Errors};

/// By what an element of a list is known, by the list's name. Lists of other names are replaced as a whole.
const KEYS: [(&str, &str); 10] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// What a template may not say, because coredinator would no longer know its pod, or end it otherwise than it thinks.
const OURS: [(&str, &str); 5] = [
    ("/metadata/name", "the pod's name is its instance's id"),
    ("/metadata/generateName", "the pod's name is its instance's id"),
    ("/metadata/namespace", "the key `namespace` says where it lives"),
    ("/spec/restartPolicy", "it follows from `restart_policy` and `restart_by`"),
    ("/spec/terminationGracePeriodSeconds", "it follows from `stop_grace_period`"),
];

/// Reads the key: an object with `metadata` and `spec` as in a Deployment's `template`.
pub(crate) fn parse(pointer: &str, value: Value) -> Result<Map<String, Value>, Errors> {
    let mut errors = shape::<PodTemplateSpec>(pointer, &complete(&value));
    for (forbidden, why) in OURS {
        if value.pointer(forbidden).is_some() {
            errors.push(FieldError::new(format!("{pointer}{forbidden}"), format!("cannot be set here: {why}")));
        }
    }
    for kind in ["labels", "annotations"] {
        let keys = value.pointer(&format!("/metadata/{kind}")).and_then(Value::as_object);
        for key in keys.into_iter().flat_map(Map::keys) {
            let at = join(&format!("{pointer}/metadata/{kind}"), key);
            if key.starts_with("coredinator.") {
                errors.push(FieldError::new(at, "what begins with `coredinator.` is coredinator's own"));
            } else if !labels::is_key(key) {
                errors.push(FieldError::new(at, format!("{key:?} is no key that an API server takes")));
            }
        }
    }
    match value {
        Value::Object(template) if errors.is_empty() => Ok(template),
        _ => Err(errors),
    }
}

/// Adds the keys without which no such object can be read, but which a piece of one may leave out.
fn complete(value: &Value) -> Value {
    let mut value = value.clone();
    let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else { return value };
    spec.entry("containers").or_insert_with(|| Value::Array(Vec::new()));
    value
}

/// Reads an object as the API server would, and refuses what it would pass over in silence.
pub(crate) fn strict<T: DeserializeOwned + Serialize>(pointer: &str, value: &Value) -> Result<T, Errors> {
    let errors = shape::<T>(pointer, value);
    if !errors.is_empty() {
        return Err(errors);
    }
    T::deserialize(value).map_err(|error| vec![FieldError::new(pointer, error.to_string())])
}

/// What is wrong with an object's shape: types that do not fit, and keys that are unknown.
fn shape<T: DeserializeOwned + Serialize>(pointer: &str, value: &Value) -> Errors {
    if !value.is_object() {
        return vec![FieldError::new(pointer, format!("expected an object, but found {}", kind(value)))];
    }
    // What stands for "take it away" has no type.
    let value = without_nulls(value.clone());
    let read = T::deserialize(&value).and_then(serde_json::to_value);
    match read {
        Ok(read) => {
            let mut errors = Vec::new();
            unread(pointer, &value, &read, &mut errors);
            errors
        }
        Err(error) => vec![FieldError::new(pointer, error.to_string())],
    }
}

/// Everything of `given` that is not in `read`: what is written again has all that was understood.
fn unread(pointer: &str, given: &Value, read: &Value, errors: &mut Errors) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            let known: Vec<&str> = read.keys().map(String::as_str).collect();
            for (key, value) in given {
                match read.get(key) {
                    Some(read) => unread(&join(pointer, key), value, read, errors),
                    // Empty ones may be left out when they are written.
                    None if is_empty(value) => {}
                    None => errors.push(FieldError::unknown(pointer, key, &known)),
                }
            }
        }
        (Value::Array(given), Value::Array(read)) => {
            for (index, (given, read)) in given.iter().zip(read).enumerate() {
                unread(&format!("{pointer}/{index}"), given, read, errors);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Merges a piece over the whole.
pub(crate) fn merge(whole: &mut Value, piece: &Map<String, Value>) {
    let Value::Object(target) = whole else { return };
    for (key, value) in piece {
        match (target.get_mut(key), value) {
            (_, Value::Null) => drop(target.remove(key)),
            (Some(there @ Value::Object(_)), Value::Object(piece)) => merge(there, piece),
            (Some(Value::Array(there)), Value::Array(pieces)) => match element_key(key) {
                Some(by) => merge_list(there, pieces, by),
                None => there.clone_from(pieces),
            },
            (_, value) => drop(target.insert(key.clone(), without_nulls(value.clone()))),
        }
    }
}

fn element_key(list: &str) -> Option<&'static str> {
    KEYS.iter().find(|(name, _)| *name == list).map(|(_, key)| *key)
}

fn merge_list(there: &mut Vec<Value>, pieces: &[Value], by: &str) {
    for piece in pieces {
        let same = |other: &&mut Value| other.get(by).is_some() && other.get(by) == piece.get(by);
        match (there.iter_mut().find(same), piece) {
            (Some(found), Value::Object(piece)) => merge(found, piece),
            _ => there.push(without_nulls(piece.clone())),
        }
    }
}

/// The program's container in a merged template: whatever else a template adds, this one stays.
pub(crate) fn has_container(template: &Value) -> bool {
    let containers = template.pointer("/spec/containers").and_then(Value::as_array);
    containers.is_some_and(|all| all.iter().any(|it| it["name"] == CONTAINER))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Toleration;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pointers(value: Value) -> Vec<String> {
        parse("/pod_template", value).unwrap_err().into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn pieces_are_merged_by_their_keys() {
        let mut whole = json!({
            "metadata": {"labels": {"a": "1"}},
            "spec": {
                "containers": [{"name": "main", "image": "i", "args": ["x"], "env": [{"name": "A", "value": "1"}]}],
                "tolerations": [{"key": "a"}], "nodeSelector": {"disk": "ssd"},
            },
        });
        let piece = json!({
            "metadata": {"annotations": {"note": "b"}},
            "spec": {
                "containers": [
                    {"name": "main", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}], "args": ["y"], "image": null},
                    {"name": "beside", "image": "j", "tty": null},
                ],
                "tolerations": [{"key": "b"}], "nodeSelector": {"disk": null, "gpu": "yes"}, "hostname": "h",
            },
        });
        merge(&mut whole, piece.as_object().unwrap());
        let wanted = json!({
            "metadata": {"labels": {"a": "1"}, "annotations": {"note": "b"}},
            "spec": {
                "containers": [
                    {"name": "main", "args": ["y"], "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]},
                    {"name": "beside", "image": "j"},
                ],
                "tolerations": [{"key": "b"}], "nodeSelector": {"gpu": "yes"}, "hostname": "h",
            },
        });
        assert_eq!(whole, wanted);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        assert!(
            parse("", json!({"spec": {"priorityClassName": "high", "containers": [{"name": "main", "tty": true}]}}))
                .is_ok()
        );
        assert!(parse("", json!({"spec": {"containers": [{"name": "main", "securityContext": null}]}})).is_ok());
        assert_eq!(pointers(json!({"spec": {"priorityClass": "high"}})), ["/pod_template/spec/priorityClass"]);
        assert_eq!(
            pointers(json!({"spec": {"containers": [{"name": "main", "imagePulPolicy": "Never"}]}})),
            ["/pod_template/spec/containers/0/imagePulPolicy"]
        );
        assert_eq!(pointers(json!([1])), ["/pod_template"]);
        assert_eq!(pointers(json!({"spec": {"priority": "x"}})), ["/pod_template"]);
        assert_eq!(
            pointers(
                json!({"metadata": {"name": "x", "labels": {"coredinator.owner": "me"}}, "spec": {"restartPolicy": "Always"}})
            ),
            [
                "/pod_template/metadata/name",
                "/pod_template/spec/restartPolicy",
                "/pod_template/metadata/labels/coredinator.owner"
            ]
        );
        let near = strict::<Toleration>("", &json!({"operater": "Exists", "key": "a"})).unwrap_err();
        assert_eq!(near[0].pointer, "/operater");
    }

    fn document(lists: bool) -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[a-z]{0,4}".prop_map(Value::from)];
        let inner = leaf.prop_recursive(4, 32, 4, move |inner| {
            let most = if lists { 3 } else { 1 };
            let list = proptest::collection::vec(inner.clone(), 0..most).prop_map(Value::from);
            prop_oneof![list, object(inner)]
        });
        object(inner)
    }

    fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let key = prop_oneof![Just("name".to_owned()), Just("containers".to_owned()), Just("spec".to_owned()), "[a-c]"];
        proptest::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        // Without lists: their elements that have no key are added each time, as they must be.
        #[test]
        fn merging_twice_is_merging_once(whole in document(false), piece in document(false)) {
            let mut once = whole;
            merge(&mut once, piece.as_object().unwrap());
            let mut twice = once.clone();
            merge(&mut twice, piece.as_object().unwrap());
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn no_template_panics(value in document(true)) {
            let _ = parse("", value);
        }
    }
}
