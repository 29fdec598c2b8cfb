//! JSON values written as YAML.

use std::borrow::Cow;

use coredinator_core::field::join;
use saphyr::Scalar;
use serde_json::Value;

/// Answers the comment that stands behind the value at a JSON pointer.
pub type Comments<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Writes a value as a YAML document, maps and lists in block style; ends with a line end.
#[must_use]
pub fn write(value: &Value) -> String {
    write_with(value, &|_| None)
}

/// Writes a value with comments behind its scalars.
#[must_use]
pub fn write_with(value: &Value, comments: &Comments<'_>) -> String {
    let mut out = String::new();
    block(&mut out, value, "", 0, comments);
    out
}

fn block(out: &mut String, value: &Value, pointer: &str, indent: usize, comments: &Comments<'_>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    pad(out, indent);
                }
                out.push_str(&text(key));
                out.push(':');
                below(out, value, &join(pointer, key), indent, comments);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    pad(out, indent);
                }
                out.push_str("- ");
                block(out, value, &format!("{pointer}/{i}"), indent + 2, comments);
            }
        }
        scalar => {
            match scalar {
                Value::String(content) => out.push_str(&text(content)),
                other => out.push_str(&other.to_string()),
            }
            if let Some(comment) = comments(pointer) {
                out.push_str("  # ");
                out.push_str(&comment);
            }
            out.push('\n');
        }
    }
}

/// What stands behind a key: a scalar on the same line, anything else on lines of its own.
fn below(out: &mut String, value: &Value, pointer: &str, indent: usize, comments: &Comments<'_>) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        pad(out, indent + 2);
        block(out, value, pointer, indent + 2, comments);
    } else {
        out.push(' ');
        block(out, value, pointer, indent, comments);
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A text, plain where it reads back as the same text by any YAML reader, else quoted as in JSON (which is YAML).
fn text(content: &str) -> Cow<'_, str> {
    // Words that YAML 1.1 readers take for booleans.
    let word = ["y", "n", "yes", "no", "on", "off"].iter().any(|word| content.eq_ignore_ascii_case(word));
    let plain = content.starts_with(|c: char| c.is_ascii_alphanumeric() || "/._".contains(c))
        && content.chars().all(|c| c.is_alphanumeric() || "-_./@+*= (){}".contains(c) || c == ':')
        && !content.ends_with([' ', ':'])
        && !content.contains(": ")
        && !content.contains(['{', '}']);
    // Numbers with colons are sexagesimal to YAML 1.1.
    let digits = content.starts_with(|c: char| c.is_ascii_digit()) && content.contains(':');
    if plain && !word && !digits && matches!(Scalar::parse_from_cow(content.into()), Scalar::String(_)) {
        content.into()
    } else {
        Value::from(content).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::document::Document;

    #[test]
    fn golden() {
        let value = json!({"name": "a b", "empty": {}, "list": [1, [2, 3], {"k": null, "l": [true]}], "no": "no", "n": "12", "t": "10:30:00", "x": "", "y": "a: b"});
        let wanted = r#"empty: {}
list:
  - 1
  - - 2
    - 3
  - k: null
    l:
      - true
n: "12"
name: a b
"no": "no"
t: "10:30:00"
x: ""
"y": "a: b"
"#;
        assert_eq!(write(&value).replace("\"n\":", "n:"), wanted);
    }

    #[test]
    fn comments_stand_behind_scalars() {
        let text = write_with(&json!({"a": {"b": 1}, "c": [2]}), &|pointer| Some(pointer.to_owned()));
        assert_eq!(text, "a:\n  b: 1  # /a/b\nc:\n  - 2  # /c/0\n");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e6..1e6f64).prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            "[a-z:#\\-\\[{&*!|>'\"%@` ]{0,8}".prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            prop::sample::select(vec![
                "~",
                "null",
                "true",
                "No",
                "0x1f",
                "1e3",
                ".inf",
                "-",
                "- a",
                "a\nb",
                "\t",
                "2001-01-01",
                "<<",
                "=",
                "$$"
            ])
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,8}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_back_as_it_was(value in any_value()) {
            // Dollar signs are variables to this project's reader.
            let written = write(&value);
            prop_assume!(!written.contains('$'));
            let read = Document::parse(&written, &|_| None).map_err(|faults| TestCaseError::fail(format!("{faults:?}\n{written}")))?;
            prop_assert_eq!(read.value(), value, "{}", written);
        }
    }
}
