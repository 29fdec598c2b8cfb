//! A service's configuration document: its layers, the secrets it refers to, and what is done when it changes. Pure.

mod effective;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    FieldError, Signal,
    duration::Seconds,
    field::{FieldReader, join, kind},
    text,
};

pub use effective::{Effective, Layer, without_secrets};

/// How an instance comes to take up a document that has changed. Its file has been written before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigAction {
    /// Nothing is done: it watches its file, or asks the API.
    None,
    /// Its main process is sent a signal.
    Signal,
    /// It is sent an HTTP request.
    Http,
    /// It is replaced by a new one.
    #[default]
    Restart,
}

impl fmt::Display for ConfigAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Signal => "signal",
            Self::Http => "http",
            Self::Restart => "restart",
        })
    }
}

/// What is done when a service's document changes, one instance at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// What is done.
    pub action: ConfigAction,
    /// The signal of [`ConfigAction::Signal`].
    pub signal: Signal,
    /// The path of [`ConfigAction::Http`], to which the number of the revision is posted.
    pub path: String,
    /// How long an instance may take from the action until it is well again (and has acknowledged, if it must). Then the
    /// change has failed. At least 1 ms.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// For how long an instance that does not acknowledge must have been well after the action. 0: one look suffices.
    #[serde(with = "crate::duration")]
    pub settle: Duration,
    /// Whether an instance must acknowledge the revision before the next one gets it.
    pub acknowledge: bool,
}

impl Default for ConfigChange {
    /// A restart; SIGHUP, `/-/reload`, 30 s, 1 s, no acknowledgement.
    fn default() -> Self {
        Self {
            action: ConfigAction::default(),
            signal: Signal::Hup,
            path: "/-/reload".to_owned(),
            timeout: Duration::from_secs(30),
            settle: Duration::from_secs(1),
            acknowledge: false,
        }
    }
}

impl ConfigChange {
    /// Reads the section, or the action alone as one word.
    ///
    /// # Errors
    /// All that is wrong with it, each under `pointer`.
    pub fn parse(pointer: &str, value: Value) -> Result<Self, Vec<FieldError>> {
        let default = Self::default();
        let value = match value {
            Value::String(word) => Value::Object(Map::from_iter([("action".to_owned(), word.into())])),
            other => other,
        };
        let mut reader = FieldReader::new(pointer, value);
        let action = reader.raw("action").map(|value| ConfigAction::deserialize(&value).map_err(|_| value));
        let action = action.unwrap_or(Ok(default.action)).unwrap_or_else(|value| {
            reader.error("action", format!("must be none, signal, http or restart, but is {value}"));
            default.action
        });
        let read = Self {
            action,
            signal: reader.or("signal", default.signal),
            path: reader.or("path", default.path),
            timeout: reader.or("timeout", Seconds(default.timeout)).0,
            settle: reader.or("settle", Seconds(default.settle)).0,
            acknowledge: reader.or("acknowledge", default.acknowledge),
        };
        if let Err(error) = text::check_path(&read.path) {
            reader.error("path", error);
        }
        if read.timeout < Duration::from_millis(1) {
            reader.error("timeout", "must be at least 1 ms");
        }
        if matches!(read.signal, Signal::Kill) {
            reader.error("signal", "SIGKILL ends an instance; action: restart replaces it");
        }
        if read.settle > read.timeout {
            let detail = format!("must not be longer than timeout, but is {:?} of {:?}", read.settle, read.timeout);
            reader.error("settle", detail);
        }
        reader.finish(|| read)
    }
}

/// What a service says of its document: `config`, `config_schema`, `config_overrides`, `config_change`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ServiceConfig {
    /// The service's layer of its document. `None`: it has no document.
    #[serde(rename = "config", skip_serializing_if = "Option::is_none")]
    pub layer: Option<Map<String, Value>>,
    /// The JSON Schema that its document must keep to, for each replica's as a whole; an object or a boolean. `None`: any
    /// document will do. Whether it is a schema at all is checked by whoever evaluates it.
    #[serde(rename = "config_schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// What is laid over it for single replicas.
    #[serde(rename = "config_overrides", skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<u32, Map<String, Value>>,
    /// What is done when the document changes.
    #[serde(rename = "config_change", skip_serializing_if = "is_default")]
    pub change: ConfigChange,
}

fn is_default(change: &ConfigChange) -> bool {
    *change == ConfigChange::default()
}

impl ServiceConfig {
    /// Takes its keys from a service's document. `managed`: whether coredinator runs the service.
    pub(crate) fn read(reader: &mut FieldReader, managed: bool) -> Self {
        let layer = reader.parsed("config", read_layer);
        let schema = reader.parsed("config_schema", read_schema);
        let overrides = reader.parsed("config_overrides", read_overrides).unwrap_or_default();
        let change = reader.parsed("config_change", ConfigChange::parse).unwrap_or_else(|| ConfigChange {
            // Nobody restarts what somebody else runs.
            action: if managed { ConfigAction::default() } else { ConfigAction::None },
            ..ConfigChange::default()
        });
        if layer.is_none() && !overrides.is_empty() {
            let error = FieldError::new(join(reader.pointer(), "config_overrides"), "has no meaning without config");
            reader.push(error.with_hint("config: {} gives the service what coredinator.config says"));
        }
        if layer.is_none() && schema.is_some() {
            let error = FieldError::new(join(reader.pointer(), "config_schema"), "has no meaning without config");
            reader.push(error.with_hint("config: {} gives the service what coredinator.config says"));
        }
        if !managed && !overrides.is_empty() {
            reader.error("config_overrides", "an external service has no replicas");
        }
        if !managed && change.action != ConfigAction::None {
            let pointer = join(reader.pointer(), "config_change");
            let detail = format!("coredinator does not run this service, so {} cannot be done", change.action);
            reader.push(FieldError::new(pointer, detail).with_hint("action: none; it asks the API for its document"));
        }
        let change = if managed || layer.is_some() { change } else { ConfigChange::default() };
        Self { layer, schema, overrides, change }
    }

    /// The service's document on `base`, before what is laid over it for single replicas; `None` if it has none.
    #[must_use]
    pub fn on(&self, base: &Map<String, Value>) -> Option<Map<String, Value>> {
        let layer = self.layer.as_ref()?;
        let mut document = base.clone();
        merge(&mut document, layer);
        Some(document)
    }
}

/// Reads a layer of a document: an object whose references to secrets are whole.
///
/// # Errors
/// All that is wrong with it, each under `pointer`.
pub fn read_layer(pointer: &str, value: Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    let mut errors = Vec::new();
    check_secrets(pointer, &value, &mut errors);
    match value {
        Value::Object(layer) if errors.is_empty() && SecretRef::KEYS.iter().any(|key| layer.contains_key(*key)) => {
            Err(vec![FieldError::new(pointer, "the document as a whole cannot be a secret")])
        }
        Value::Object(layer) if errors.is_empty() => Ok(layer),
        Value::Object(_) => Err(errors),
        other => Err(vec![FieldError::new(pointer, format!("expected an object, but found {}", kind(&other)))]),
    }
}

fn read_schema(pointer: &str, value: Value) -> Result<Value, Vec<FieldError>> {
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(value),
        Value::String(_) => {
            let error = FieldError::new(pointer, "the schema itself is expected here, but found a text");
            Err(vec![error.with_hint("the path of a schema's file can stand in a file of coredinator's alone")])
        }
        other => Err(vec![FieldError::new(pointer, format!("expected an object, but found {}", kind(&other)))]),
    }
}

fn read_overrides(pointer: &str, value: Value) -> Result<BTreeMap<u32, Map<String, Value>>, Vec<FieldError>> {
    let Value::Object(all) = value else {
        let detail = format!("expected a map from replicas (0, 1, …) to documents, but found {}", kind(&value));
        return Err(vec![FieldError::new(pointer, detail)]);
    };
    let (mut read, mut errors) = (BTreeMap::new(), Vec::new());
    for (key, value) in all {
        let at = join(pointer, &key);
        // 00 would be another key for the same replica.
        match key.parse::<u32>().ok().filter(|replica| replica.to_string() == key) {
            None => errors.push(FieldError::new(at, "the number of a replica, from 0, is expected here")),
            Some(replica) => match read_layer(&at, value) {
                Ok(layer) => drop(read.insert(replica, layer)),
                Err(found) => errors.extend(found),
            },
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

/// Lays `over` over `under`: objects are merged key by key, anything else is replaced.
pub fn merge(under: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(above)) if !is_secret(below) && !is_secret(above) => {
                merge(below, above);
            }
            _ => drop(under.insert(key.clone(), value.clone())),
        }
    }
}

/// A value that is not in the document, and where it is: `{secret_file: PATH}` or `{secret_env: NAME}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretRef<'a> {
    /// The content of a file, without the line ends at its end.
    File(&'a str),
    /// A variable of coredinator's own environment.
    Env(&'a str),
}

impl<'a> SecretRef<'a> {
    const KEYS: [&'static str; 2] = ["secret_file", "secret_env"];

    fn of(map: &'a Map<String, Value>) -> Option<Self> {
        let (key, value) = map.iter().next().filter(|_| map.len() == 1)?;
        let text = value.as_str()?;
        match key.as_str() {
            "secret_file" => Some(Self::File(text)),
            "secret_env" => Some(Self::Env(text)),
            _ => None,
        }
    }
}

fn is_secret(map: &Map<String, Value>) -> bool {
    SecretRef::of(map).is_some()
}

fn check_secrets(pointer: &str, value: &Value, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let at = join(pointer, key);
                if !SecretRef::KEYS.contains(&key.as_str()) {
                    check_secrets(&at, inner, errors);
                } else if map.len() > 1 {
                    errors.push(FieldError::new(at, "a reference to a secret stands alone in its object"));
                } else if inner.as_str().is_none_or(|text| text.is_empty() || text.contains('\0')) {
                    errors.push(FieldError::new(at, "must be a text that is not empty"));
                }
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                check_secrets(&format!("{pointer}/{i}"), inner, errors);
            }
        }
        _ => {}
    }
}

/// Puts secrets in place of the references to them, by `read`, which answers why it cannot.
///
/// # Errors
/// Those that could not be read, with their places.
pub fn fill_secrets(
    document: &mut Map<String, Value>,
    read: &mut dyn FnMut(SecretRef<'_>) -> Result<String, String>,
) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    for (key, value) in document {
        fill(&join("", key), value, read, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn fill(
    pointer: &str,
    value: &mut Value,
    read: &mut dyn FnMut(SecretRef<'_>) -> Result<String, String>,
    errors: &mut Vec<FieldError>,
) {
    match value {
        Value::Object(map) => {
            if let Some(secret) = SecretRef::of(map) {
                match read(secret) {
                    Ok(text) => *value = text.into(),
                    Err(error) => errors.push(FieldError::new(pointer, error)),
                }
                return;
            }
            map.iter_mut().for_each(|(key, inner)| fill(&join(pointer, key), inner, read, errors));
        }
        Value::Array(list) => {
            let items = list.iter_mut().enumerate();
            items.for_each(|(i, inner)| fill(&format!("{pointer}/{i}"), inner, read, errors));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn pointers(result: Result<impl fmt::Debug, Vec<FieldError>>) -> Vec<String> {
        result.unwrap_err().into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn layers_are_merged_key_by_key() {
        let mut under = object(&json!({"a": {"x": 1, "y": [1, 2]}, "b": 1, "s": {"secret_env": "A"}}));
        let over = object(&json!({"a": {"y": [3], "z": null}, "b": {"c": 1}, "s": {"secret_file": "/f"}}));
        merge(&mut under, &over);
        let wanted = json!({"a": {"x": 1, "y": [3], "z": null}, "b": {"c": 1}, "s": {"secret_file": "/f"}});
        assert_eq!(Value::Object(under), wanted);
    }

    #[test]
    fn secrets_are_put_in_place_and_those_that_are_missing_told_with_their_places() {
        let mut document =
            object(&json!({"a": {"k": {"secret_env": "HERE"}}, "l": [{"secret_file": "/gone"}], "p": 1}));
        let mut read = |secret: SecretRef<'_>| match secret {
            SecretRef::Env("HERE") => Ok("s3cret".to_owned()),
            other => Err(format!("no {other:?}")),
        };
        assert_eq!(pointers(fill_secrets(&mut document, &mut read)), ["/l/0"]);
        document.remove("l");
        fill_secrets(&mut document, &mut read).unwrap();
        assert_eq!(Value::Object(document), json!({"a": {"k": "s3cret"}, "p": 1}));
    }

    #[test]
    fn what_is_no_layer_is_refused_whole() {
        let layer = |value| read_layer("/c", value);
        assert!(layer(json!({})).is_ok() && layer(json!({"k": {"secret_env": "A"}})).is_ok());
        assert_eq!(pointers(layer(json!([]))), ["/c"]);
        assert_eq!(pointers(layer(json!({"secret_env": "A"}))), ["/c"]);
        let bad = json!({"a": {"secret_file": "/f", "x": 1}, "b": [{"secret_env": ""}], "c": {"secret_env": 7}});
        assert_eq!(pointers(layer(bad)), ["/c/a/secret_file", "/c/b/0/secret_env", "/c/c/secret_env"]);
        assert_eq!(
            pointers(read_overrides("/o", json!({"0": {}, "00": {}, "x": {}, "1": 2}))),
            ["/o/00", "/o/1", "/o/x"]
        );
    }

    #[test]
    fn the_table_of_actions() {
        let parse = |value| ConfigChange::parse("/x", value);
        assert_eq!(parse(json!("signal")).unwrap().action, ConfigAction::Signal);
        let read =
            parse(json!({"action": "http", "path": "/reload", "timeout": "5s", "settle": 0, "acknowledge": true}));
        let read = read.unwrap();
        assert_eq!((read.action, read.path.as_str(), read.acknowledge), (ConfigAction::Http, "/reload", true));
        assert_eq!(parse(serde_json::to_value(&read).unwrap()), Ok(read));
        let bad = json!({"action": "reboot", "signal": "KILL", "path": "x", "timeout": 0, "sttle": 1});
        assert_eq!(pointers(parse(bad)), ["/x/action", "/x/path", "/x/timeout", "/x/signal", "/x/settle", "/x/sttle"]);
        assert_eq!(pointers(parse(json!(7))), ["/x"]);
    }
}
