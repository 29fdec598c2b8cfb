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

    /// The same error, with the nearest of the known words as a hint if one is near `word`.
    #[must_use]
    pub fn with_nearest(self, word: &str, known: &[&str]) -> Self {
        match nearest(word, known) {
            Some(near) => self.with_hint(format!("did you mean {near:?}?")),
            None => self,
        }
    }

    /// What the reader of a type said of the value at `pointer`, in words that do not need the type: a word that is none of the
    /// known ones with the nearest of them as a hint if one is near.
    #[must_use]
    pub fn unread(pointer: impl Into<String>, told: &str) -> Self {
        let error = Self::new(pointer, plain_words::of(told));
        match plain_words::unknown_word(told) {
            Some((word, known)) => error.with_nearest(word, &known),
            None => error,
        }
    }

    /// An unknown key, with the nearest of the known ones as a hint if one is near.
    #[must_use]
    pub fn unknown(pointer: &str, key: &str, known: &[&str]) -> Self {
        Self::new(join(pointer, key), format!("unknown field {key:?}")).with_nearest(key, known)
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
    let length = word.chars().count();
    let within = |candidate: &str| candidate.len().max(word.len()).div_ceil(3);
    known
        .iter()
        // Of lengths too far apart the distance, which takes time, need not be asked.
        .filter(|&&candidate| candidate.chars().count().abs_diff(length) <= within(candidate))
        .map(|&candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= within(candidate))
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
                self.push(FieldError::unread(join(&self.pointer, key), &error.to_string()));
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

/// What serde says of a value that is not of the type wanted, without the names of types.
mod plain_words {
    /// How much is shown of a text.
    const SHOWN: usize = 64;

    pub(super) fn of(told: &str) -> String {
        if let Some((word, known)) = unknown_word(told) {
            let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
            let known = match &known[..] {
                [one] => one.clone(),
                many => format!("one of {}", many.join(", ")),
            };
            return format!("must be {known}, but is {:?}", cut(word));
        }
        if let Some(field) = told.strip_prefix("missing field ") {
            return format!("{:?} is missing", field.trim_matches('`'));
        }
        let rest = ["invalid type: ", "invalid value: "].iter().find_map(|start| told.strip_prefix(start));
        match rest.and_then(|rest| rest.rsplit_once(", expected ")) {
            Some((found, wanted)) => format!("expected {}, but found {}", expected(wanted), found_one(found)),
            None => told.to_owned(),
        }
    }

    /// A word that is none of the known ones, and these.
    pub(super) fn unknown_word(told: &str) -> Option<(&str, Vec<&str>)> {
        let (word, known) = told.strip_prefix("unknown variant `")?.rsplit_once("`, expected ")?;
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        (!known.is_empty()).then_some((word, known))
    }

    fn expected(wanted: &str) -> String {
        let range = |least: &dyn std::fmt::Display, most: &dyn std::fmt::Display| {
            format!("a whole number of {least} to {most}")
        };
        match wanted {
            "f64" | "f32" => "a number".to_owned(),
            "u8" => range(&u8::MIN, &u8::MAX),
            "u16" => range(&u16::MIN, &u16::MAX),
            "u32" => range(&u32::MIN, &u32::MAX),
            "u64" | "u128" | "usize" => "a whole number of 0 or more".to_owned(),
            "i32" => range(&i32::MIN, &i32::MAX),
            "i64" | "i128" | "isize" => "a whole number".to_owned(),
            "a string" | "a borrowed string" => "a text".to_owned(),
            "a boolean" => "true or false".to_owned(),
            "a sequence" => "a list".to_owned(),
            "a map" => "an object".to_owned(),
            structure if structure.starts_with("struct ") => "an object".to_owned(),
            other => other.to_owned(),
        }
    }

    fn found_one(found: &str) -> String {
        match found {
            "null" | "unit value" | "Option value" => "nothing".to_owned(),
            "map" => "an object".to_owned(),
            "sequence" => "a list".to_owned(),
            _ => match found.split_once('`') {
                Some(("integer " | "floating point " | "boolean " | "character ", value)) => {
                    value.trim_matches('`').to_owned()
                }
                _ => cut(found.strip_prefix("string ").unwrap_or(found)),
            },
        }
    }

    fn cut(text: &str) -> String {
        match text.char_indices().nth(SHOWN) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.to_owned(),
        }
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
    fn no_names_of_types() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Word {
            Linear,
            Quadratic,
        }
        #[derive(Debug, Deserialize)]
        struct Inner {
            #[expect(dead_code, reason = "only read")]
            cycles: u32,
        }
        fn told<T: DeserializeOwned>(value: &Value) -> String {
            let mut reader = FieldReader::new("", json!({ "x": value }));
            assert!(reader.optional::<T>("x").is_none());
            reader.finish(|| ()).unwrap_err()[0].to_string()
        }
        for (told, wanted) in [
            (told::<f64>(&json!("much")), "expected a number, but found \"much\""),
            (told::<u64>(&json!(-1)), "expected a whole number of 0 or more, but found -1"),
            (told::<u16>(&json!(70_000)), "expected a whole number of 0 to 65535, but found 70000"),
            (told::<u64>(&json!(1.5)), "expected a whole number of 0 or more, but found 1.5"),
            (told::<bool>(&json!([1])), "expected true or false, but found a list"),
            (told::<String>(&json!({})), "expected a text, but found an object"),
            (told::<Vec<u8>>(&json!(true)), "expected a list, but found true"),
            (told::<Inner>(&json!(5)), "expected an object, but found 5"),
            (told::<Inner>(&json!({})), "\"cycles\" is missing"),
            (
                told::<Word>(&json!("linea")),
                "must be one of \"linear\", \"quadratic\", but is \"linea\" (did you mean \"linear\"?)",
            ),
            (told::<Word>(&json!("cubes")), "must be one of \"linear\", \"quadratic\", but is \"cubes\""),
        ] {
            assert_eq!(told, format!("/x: {wanted}"));
        }
        let long = FieldError::unread("", &format!("invalid type: string {:?}, expected f64", "ä".repeat(1000)));
        assert!(long.detail.len() < 200 && long.detail.ends_with('…'), "{long}");
        assert_eq!(FieldError::unread("/x", "as it is").detail, "as it is");
    }

    #[test]
    fn not_an_object() {
        let errors = FieldReader::new("", json!([1])).finish(|| ()).unwrap_err();
        assert_eq!(errors[0].to_string(), "/: expected an object, but found a list");
    }
}
