//! What can be asked of an instance that runs: to carry out a command inside it, and how its engine says it is.

use serde_json::Value;

/// A command to be run inside an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments. `{port}`, `{host}` and `{replica}` are expanded as in the instance's own command:
    /// inside of a container the port is the one inside.
    pub command: Vec<String>,
    /// How many bytes of what it writes are kept, both streams together; what comes after them is read and dropped.
    pub max_output: usize,
}

/// How a command inside an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The beginning of what it wrote, both streams as they came.
    pub output: Vec<u8>,
}

/// What stands for a secret that is not shown.
pub const REDACTED: &str = "***";

/// Whether a variable or key of this name is taken to hold a secret: it speaks of a password, a token, a key or the like.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 7] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIAL", "PRIVATE", "APIKEY"];
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word)) || name == "KEY" || name.ends_with("_KEY") || name.ends_with("_PASS")
}

/// A variable's value as it may be shown: [`REDACTED`] where its name speaks of a secret, and for the password in a URL.
#[must_use]
pub fn redacted(name: &str, value: &str) -> String {
    if is_secret(name) && !value.is_empty() {
        return REDACTED.to_owned();
    }
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    // A password may hold '/' and '@' that should have been encoded: everything up to the last '@' is hidden.
    let login = rest.rsplit_once('@').and_then(|(login, place)| Some((login.split_once(':')?.0, place)));
    login.map_or_else(|| value.to_owned(), |(user, place)| format!("{scheme}://{user}:{REDACTED}@{place}"))
}

/// Variables as they may be shown, an object of texts: values [`redacted`].
pub fn redacted_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    variables.into_iter().map(|(name, value)| (name.to_owned(), Value::String(redacted(name, value)))).collect()
}

/// Takes out of a document whatever says nothing: null, false, 0, and texts, lists and objects that are empty. What is left
/// of what an engine answers is what it was really asked.
#[must_use]
pub fn without_nothing(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(list) => {
            // Places in a list have a meaning: they stay.
            let list: Vec<Value> =
                list.into_iter().map(|element| without_nothing(element).unwrap_or_default()).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(map) => {
            let map: serde_json::Map<String, Value> =
                map.into_iter().filter_map(|(key, value)| Some((key, without_nothing(value)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_known_by_their_names_and_places() {
        for (name, value, shown) in [
            ("DB_PASSWORD", "x", "***"),
            ("api_token", "x", "***"),
            ("AWS_SECRET_ACCESS_KEY", "x", "***"),
            ("KEYBOARD", "us", "us"),
            ("PASSWORD", "", ""),
            ("DATABASE_URL", "postgres://me:a@b@db/x", "postgres://me:***@db/x"),
            ("COREDINATOR_URL", "http://127.0.0.1:8002", "http://127.0.0.1:8002"),
            ("MAIL", "me@example.org", "me@example.org"),
        ] {
            assert_eq!(redacted(name, value), shown, "{name}");
        }
        assert_eq!(redacted_variables([("A", "b"), ("TOKEN", "c")]), json!({"A": "b", "TOKEN": "***"}));
    }

    #[test]
    fn nothing_is_left_out() {
        let full = json!({"a": null, "b": {"c": "", "d": []}, "e": [0, {"f": false}], "g": 1, "h": {"i": true}});
        assert_eq!(without_nothing(full), Some(json!({"e": [null, null], "g": 1, "h": {"i": true}})));
        assert_eq!(without_nothing(json!({"a": {}})), None);
    }
}
