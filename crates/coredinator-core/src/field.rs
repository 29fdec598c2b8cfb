//! Reading untrusted documents field by field, so that every error is told at once and with its place.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// One thing wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) of the offending value; empty for the whole document.
    pub pointer: String,
    /// What is wrong, in a clause that starts in lower case.
    pub detail: String,
    /// What to write instead, where that can be guessed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl FieldError {
    /// An error at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), hint: None }
    }

    /// The same error with a suggestion.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error seen from a document that holds this one at `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }

    /// An unknown key, with the nearest of the known ones as a hint if one is near.
    #[must_use]
    pub fn unknown(pointer: &str, key: &str, known: &[&str]) -> Self {
        let error = Self::new(join(pointer, key), format!("unknown field {key:?}"));
        match nearest(key, known) {
            Some(near) => error.with_hint(format!("did you mean {near:?}?")),
            None => error,
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pointer = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{pointer}: {}", self.detail)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

/// All that is wrong with a document; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, error)| write!(f, "{}{error}", if i == 0 { "" } else { "; " }))
    }
}

impl std::error::Error for FieldErrors {}

/// `pointer` extended by one key, escaped as RFC 6901 asks.
#[must_use]
pub fn join(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The known word that is near enough to `word` to be what was meant.
#[must_use]
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|&candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= candidate.len().max(word.len()).div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The keys that readers asked for, by the pointers of their objects.
pub type AskedKeys = BTreeMap<String, BTreeSet<&'static str>>;

thread_local! {
    static RECORD: RefCell<Option<AskedKeys>> = const { RefCell::new(None) };
}

/// Runs `read`, and answers which keys it asked for of which objects: what there is to say, as the readers themselves know
/// it. For descriptions of documents, and for tests that hold them against the readers.
pub fn record<T>(read: impl FnOnce() -> T) -> (T, AskedKeys) {
    let before = RECORD.replace(Some(AskedKeys::new()));
    let read = read();
    (read, RECORD.replace(before).unwrap_or_default())
}

/// Takes an object apart key by key, gathering every error instead of stopping at the first.
///
/// A key that nobody takes is unknown, and told with the nearest of the keys that were asked for; keys that start with
/// `x-` belong to the user and are passed over.
#[derive(Debug)]
pub struct FieldReader {
    pointer: String,
    fields: Map<String, Value>,
    asked: BTreeSet<&'static str>,
    errors: Vec<FieldError>,
}

impl FieldReader {
    /// Starts on `value`, found at `pointer`. Anything but an object is one error, and reads as an empty object.
    #[must_use]
    pub fn new(pointer: &str, value: Value) -> Self {
        let mut reader =
            Self { pointer: pointer.to_owned(), fields: Map::new(), asked: BTreeSet::new(), errors: Vec::new() };
        match value {
            Value::Object(fields) => reader.fields = fields,
            other => {
                let detail = format!("expected an object, but found {}", kind(&other));
                reader.errors.push(FieldError::new(pointer, detail));
            }
        }
        reader
    }

    /// Where in the whole document this object is.
    #[must_use]
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Whether a key is there and has not been taken yet; `null` counts as absent.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|value| !value.is_null())
    }

    /// Takes a key's raw value; `null` counts as absent.
    pub fn raw(&mut self, key: &'static str) -> Option<Value> {
        self.asked.insert(key);
        RECORD.with_borrow_mut(|record| {
            if let Some(record) = record {
                record.entry(self.pointer.clone()).or_default().insert(key);
            }
        });
        self.fields.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a key's value if it is there and of the right type.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        self.raw(key).and_then(|value| match T::deserialize(&value) {
            Ok(read) => Some(read),
            Err(error) => {
                self.error(key, error.to_string());
                None
            }
        })
    }

    /// Takes a key's value, or its default where the key is absent (or wrong, which is told at the end).
    pub fn or<T: DeserializeOwned>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// Takes a key's value by a parser of the caller's, which gets the key's pointer for errors of its own.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str, Value) -> Result<T, Vec<FieldError>>,
    ) -> Option<T> {
        let pointer = join(&self.pointer, key);
        self.raw(key).and_then(|value| match parse(&pointer, value) {
            Ok(read) => Some(read),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        })
    }

    /// Tells an error about a key.
    pub fn error(&mut self, key: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(join(&self.pointer, key), detail));
    }

    /// Tells an error with its full pointer.
    pub fn push(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    /// Whether nothing was wrong so far.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Takes whatever keys are left, without judging them.
    pub fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.fields)
    }

    /// Ends the reading: every key left is unknown.
    ///
    /// # Errors
    /// Everything that was wrong, in the order found.
    pub fn finish<T>(mut self, value: impl FnOnce() -> T) -> Result<T, Vec<FieldError>> {
        let known: Vec<&str> = self.asked.iter().copied().collect();
        for key in self.fields.keys().filter(|key| !key.starts_with("x-")) {
            self.errors.push(FieldError::unknown(&self.pointer, key, &known));
        }
        if self.errors.is_empty() { Ok(value()) } else { Err(self.errors) }
    }
}

/// What a JSON value is, for messages.
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_errors_at_once_with_pointers_and_hints() {
        let mut reader = FieldReader::new("/s", json!({"port": "x", "hosst": 1, "x-mine": 2, "a/b": 3}));
        let port: Option<u16> = reader.optional("port");
        let host: String = reader.or("host", "localhost".into());
        assert_eq!((port, host.as_str()), (None, "localhost"));
        let errors = reader.finish(|| ()).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/s/port", "/s/a~1b", "/s/hosst"]);
        assert_eq!(errors[2].hint.as_deref(), Some("did you mean \"host\"?"));
        assert_eq!(errors[1].hint, None);
    }

    #[test]
    fn not_an_object() {
        let errors = FieldReader::new("", json!([1])).finish(|| ()).unwrap_err();
        assert_eq!(errors[0].to_string(), "/: expected an object, but found a list");
    }
}
