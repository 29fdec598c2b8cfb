//! Durations as people write them: a number of seconds, or text with units such as `250ms` or `1m30s`.
//!
//! Use with `#[serde(with = "coredinator_core::duration")]`. Written back as a number of seconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// The longest duration that is accepted: ten years. Longer ones are typing errors, and overflow clocks.
pub const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why a text or number is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: {0:?} (use seconds, such as 30 or 0.5, or text with units, such as \"250ms\" or \"1m30s\")")]
pub struct InvalidDuration(String);

/// Parses `"1h2m3.5s"`, `"250ms"`, or a bare number of seconds.
///
/// # Errors
/// What is not of that form, negative, or longer than [`MAX`].
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return from_seconds(seconds).ok_or_else(invalid);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let amount: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += amount
            * match &rest[..end] {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return Err(invalid()),
            };
        rest = &rest[end..];
    }
    from_seconds(total).filter(|_| !text.trim().is_empty()).ok_or_else(invalid)
}

/// A non-negative, finite number of seconds up to [`MAX`], to the nanosecond.
#[must_use]
pub fn from_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= MAX)
}

/// Writes a duration as a number of seconds, without a fraction where there is none.
///
/// # Errors
/// Whatever the serializer returns.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    if duration.subsec_nanos() == 0 {
        serializer.serialize_u64(duration.as_secs())
    } else {
        serializer.serialize_f64(duration.as_secs_f64())
    }
}

/// Reads a number of seconds or a text with units.
///
/// # Errors
/// What is neither, negative, or longer than [`MAX`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = Duration;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration: a number of seconds, or text such as \"250ms\" or \"1m30s\"")
        }
        fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
            let duration = Duration::from_secs(seconds);
            if duration > MAX { Err(E::invalid_value(de::Unexpected::Unsigned(seconds), &self)) } else { Ok(duration) }
        }
        fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
            u64::try_from(seconds)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(seconds), &self))
                .and_then(|seconds| self.visit_u64(seconds))
        }
        fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
            from_seconds(seconds).ok_or_else(|| E::invalid_value(de::Unexpected::Float(seconds), &self))
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// The same for a value wrapped for use as a field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(#[serde(with = "self")] pub Duration);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_and_numbers() {
        for (text, millis) in [
            ("30", 30_000),
            ("0.5", 500),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1.5s", 1_500),
            (" 2s ", 2_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
        for bad in ["", " ", "s", "1x", "-1", "1s-", "NaN", "inf", "1e99", "1m 30", "99999d", "1..2s"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn json_numbers_and_texts() {
        let read = |text: &str| serde_json::from_str::<Seconds>(text).map(|s| s.0);
        assert_eq!(read("30").unwrap(), Duration::from_secs(30));
        assert_eq!(read("0.25").unwrap(), Duration::from_millis(250));
        assert_eq!(read("\"1m30s\"").unwrap(), Duration::from_secs(90));
        for bad in ["-1", "1e300", "18446744073709551615", "true", "null", "\"x\"", "[]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Seconds(Duration::from_secs(30))).unwrap(), "30");
        assert_eq!(serde_json::to_string(&Seconds(Duration::from_millis(250))).unwrap(), "0.25");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn round_trip(millis in 0..=MAX.as_millis() as u64) {
            let wanted = Seconds(Duration::from_millis(millis));
            let read: Seconds = serde_json::from_str(&serde_json::to_string(&wanted).unwrap()).unwrap();
            prop_assert!(read.0.abs_diff(wanted.0) < Duration::from_micros(1));
        }
    }
}
