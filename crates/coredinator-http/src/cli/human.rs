//! Times and amounts as people say them.

use std::time::Duration;

use coredinator_core::Timestamp;

/// A length of time in at most two units: `850ms`, `3.2s`, `4m10s`, `3h5m`, `12d3h`.
#[must_use]
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, unit: &str, small: u64, lesser: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{lesser}"),
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..10 if duration.subsec_millis() >= 100 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        1..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86400, "d", seconds / 3600 % 24, "h"),
    }
}

/// How long ago `then` was, in one unit: `now`, `12s ago`, `3m ago`; of what is to come: `in 4s`.
#[must_use]
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let coarse = |seconds: i64| match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    };
    match now.as_second().saturating_sub(then.as_second()) {
        0 => "now".to_owned(),
        seconds @ 1.. => format!("{} ago", coarse(seconds)),
        seconds => format!("in {}", coarse(seconds.saturating_neg())),
    }
}

/// Milliseconds to three digits: `0.4ms`, `45ms`, `1.2s`.
#[must_use]
pub fn milliseconds(amount: f64) -> String {
    match amount {
        ..10.0 => format!("{amount:.1}ms"),
        10.0..1000.0 => format!("{amount:.0}ms"),
        _ => format!("{:.1}s", amount / 1000.0),
    }
}

/// A text cut to `width` characters, with `…` where something is missing.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (millis, text) in [
            (0, "0ms"),
            (850, "850ms"),
            (3_250, "3.2s"),
            (9_050, "9s"),
            (42_900, "42s"),
            (60_000, "1m"),
            (250_000, "4m10s"),
            (11_100_000, "3h5m"),
            (1_047_600_000, "12d3h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn instants() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (before, text) in
            [(0, "now"), (12, "12s ago"), (200, "3m ago"), (9000, "2h ago"), (400_000, "4d ago"), (-4, "in 4s")]
        {
            assert_eq!(ago(Timestamp::from_second(1_000_000 - before).unwrap(), now), text);
        }
    }

    #[test]
    fn amounts_and_cuts() {
        assert_eq!([milliseconds(0.42), milliseconds(45.2), milliseconds(1234.0)], ["0.4ms", "45ms", "1.2s"]);
        assert_eq!([cut("äöü", 3), cut("äöüß", 3), cut("", 3)], ["äöü", "äö…", ""]);
    }
}
