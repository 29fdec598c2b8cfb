//! Texts that documents hold in more than one place: commands, paths, scalars.

use serde_json::Value;

use crate::{FieldError, field::kind};

/// Reads a command: a list, or one string that is split at white space outside quotes.
///
/// # Errors
/// An empty command, a program that is empty, a NUL byte, an open quote.
pub fn command(pointer: &str, value: Value) -> Result<Vec<String>, Vec<FieldError>> {
    let fail = |detail: String| Err(vec![FieldError::new(pointer, detail)]);
    let words = match value {
        Value::String(line) => match split_words(&line) {
            Ok(words) => words,
            Err(detail) => return fail(detail.to_owned()),
        },
        Value::Array(list) => match list.iter().map(scalar).collect::<Option<Vec<String>>>() {
            Some(words) => words,
            None => return fail("expected a list of texts".to_owned()),
        },
        other => return fail(format!("expected a list of texts or one text, but found {}", kind(&other))),
    };
    if words.first().is_none_or(String::is_empty) {
        return fail("must name a program".to_owned());
    }
    if words.iter().any(|word| word.contains('\0')) {
        return fail("must not hold a NUL byte".to_owned());
    }
    Ok(words)
}

/// Splits at white space; single quotes keep all, double quotes and bare text know backslash escapes. No expansion.
fn split_words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next().ok_or("ends in a backslash")?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("has a quote that is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// Checks that `path` can stand in a request line as it is.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("must start with '/', but is {path:?}"));
    }
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        return Err(format!("must be percent-encoded, but holds {bad:?}"));
    }
    if path.len() > 2048 {
        return Err(format!("must be at most 2048 characters, but has {}", path.len()));
    }
    Ok(())
}

/// A text, number or boolean written out; nothing is the empty text. `None` for lists and objects.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn splitting_never_panics_and_keeps_quoted_words(words in prop::collection::vec("[^'\\x00]{1,8}", 1..5), junk in "\\PC*") {
            let _ = split_words(&junk);
            let line = words.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_words(&line).unwrap(), words);
        }
    }
}
