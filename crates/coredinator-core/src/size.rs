//! Sizes in bytes as Compose writes them, for the options of runtimes.

use serde_json::Value;

/// Reads a number of bytes above 0: a whole number, or a text with a unit of 1024 (`512m`, `1.5gb`, `64KiB`).
///
/// # Errors
/// What was expected and what was found, for people.
pub fn bytes(value: &Value) -> Result<i64, String> {
    let wrong = || format!("expected a size such as 512m or 2gb, but found {value}");
    let read = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => parse(text),
        _ => None,
    };
    read.filter(|&bytes| bytes > 0).ok_or_else(wrong)
}

fn parse(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    #[expect(clippy::cast_precision_loss, reason = "powers of two are exact")]
    let bytes = number.parse::<f64>().ok()? * (1_i64 << shift) as f64;
    // Engines count in signed 64 bits; what is near their end is no machine's memory.
    #[expect(clippy::cast_possible_truncation, reason = "checked to lie within")]
    (0.0..9e18).contains(&bytes).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn units_are_of_1024() {
        for (written, read) in [
            (json!(1024), Some(1024)),
            (json!("1024"), Some(1024)),
            (json!("64k"), Some(65_536)),
            (json!("1.5GiB"), Some(1_610_612_736)),
            (json!("2 mb"), Some(2_097_152)),
            (json!("10b"), Some(10)),
            (json!(0), None),
            (json!(-1), None),
            (json!("0"), None),
            (json!("m"), None),
            (json!("5x"), None),
            (json!("1.2.3m"), None),
            (json!("99999999999t"), None),
            (json!([]), None),
        ] {
            assert_eq!(bytes(&written).ok(), read, "{written}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", number in "[0-9.]{0,30}[kmgtb]{0,3}") {
            let _ = (bytes(&json!(text)), bytes(&json!(number)));
        }
    }
}
