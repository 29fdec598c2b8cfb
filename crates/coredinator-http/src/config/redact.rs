//! Secrets in documents: left out where a document is shown, put back where one is handed in again.

use coredinator_core::{FieldError, field::join};
use serde_json::{Map, Value};

/// What stands in a document where a secret was left out.
pub(crate) const REDACTED: &str = "***";

/// Whether a key's name says that its value should not be shown.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    [
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "TOKEN",
        "API_KEY",
        "APIKEY",
        "PRIVATE_KEY",
        "CREDENTIAL",
        "AUTHORIZATION",
        "COOKIE",
        "DATABASE_URL",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// Whether a map says where a secret is, instead of holding it.
fn is_reference(map: &Map<String, Value>) -> bool {
    map.len() == 1 && (map.contains_key("secret_file") || map.contains_key("secret_env"))
}

/// Calls `at` with every text that stands under a secret's name, and its pointer.
fn each(pointer: &str, value: &mut Value, at: &mut dyn FnMut(&str, &mut String)) {
    match value {
        Value::Object(map) if !is_reference(map) => {
            for (key, value) in map {
                let pointer = join(pointer, key);
                match value {
                    Value::String(text) if is_secret(key) => at(&pointer, text),
                    value => each(&pointer, value, at),
                }
            }
        }
        Value::Array(list) => {
            list.iter_mut().enumerate().for_each(|(i, value)| each(&format!("{pointer}/{i}"), value, at));
        }
        _ => {}
    }
}

/// Leaves secrets out of a service's document, or of a layer of one.
pub(crate) fn redact(document: &mut Value) {
    each("", document, &mut |_, text| REDACTED.clone_into(text));
}

/// Puts back what was left out of `document`, as far as `kept` holds it at the same place.
pub(crate) fn restore(document: &mut Value, kept: &Value) {
    each("", document, &mut |pointer, text| {
        if text == REDACTED
            && let Some(Value::String(secret)) = kept.pointer(pointer)
        {
            text.clone_from(secret);
        }
    });
}

/// What was left out of the value at `pointer`, and not put back.
pub(super) fn missing(pointer: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    each(pointer, &mut value.clone(), &mut |pointer, text| {
        if text == REDACTED {
            let name = pointer.rsplit('/').next().unwrap_or_default();
            let error = FieldError::new(pointer, "this value was left out when the document was made");
            errors
                .push(error.with_hint(format!("write the value, or a variable such as ${{{}}}", name.to_uppercase())));
        }
    });
    errors
}

/// Writes dollar signs twice in all texts, so that whoever reads the document finds no variables in it.
pub(crate) fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(list) => list.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_put_back() {
        let kept = json!({
            "environment": {"API_TOKEN": "t", "LOG": "info"},
            "config": {"db": {"password": "p", "password_file": {"secret_file": "/run/p"}}, "l": [{"api-key": "k"}]},
            "health_check": {"headers": {"Authorization": "Bearer x"}},
        });
        let mut shown = kept.clone();
        redact(&mut shown);
        let text = shown.to_string();
        assert!(["\"t\"", "\"p\"", "\"k\"", "Bearer"].iter().all(|secret| !text.contains(secret)), "{text}");
        assert_eq!(shown["config"]["db"]["password_file"], kept["config"]["db"]["password_file"]);
        assert_eq!(shown["environment"]["LOG"], "info");
        assert_eq!(missing("/a", &shown).len(), 4);
        let mut back = shown.clone();
        restore(&mut back, &kept);
        assert_eq!(back, kept);
        restore(&mut shown, &json!({"environment": {"API_TOKEN": 7}}));
        let missing = missing("/a", &shown);
        assert_eq!(missing.len(), 4, "what is no text cannot have been left out");
        assert!(missing.iter().any(|error| error.pointer == "/a/config/l/0/api-key"), "{missing:?}");
    }

    #[test]
    fn dollar_signs_are_doubled() {
        let mut value = json!({"a": ["$HOME", "${X}", "$$", 1], "$": "plain"});
        escape(&mut value);
        assert_eq!(value, json!({"a": ["$$HOME", "$${X}", "$$$$", 1], "$": "plain"}));
    }
}
