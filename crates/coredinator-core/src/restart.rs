//! When a service that ended is started again.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{FieldError, field::FieldReader};

/// What happens when an instance ends without having been asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// Never started again: `no`.
    No,
    /// Started again whatever its exit code: `always`. A stop by hand lasts until coredinator itself starts again.
    #[default]
    Always,
    /// Started again when it failed, at most `max` times in a row (without a `max`: without end): `on-failure[:max]`.
    OnFailure {
        /// How many restarts in a row are tried; `None` for no limit.
        max: Option<NonZeroU32>,
    },
    /// As `always`, but a stop by hand survives coredinator's own restart: `unless-stopped`.
    UnlessStopped,
}

/// Not one of the restart policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown restart policy {0:?} (one of no, always, on-failure, on-failure:N with N >= 1, unless-stopped)")]
pub struct InvalidRestartPolicy(String);

impl FromStr for RestartPolicy {
    type Err = InvalidRestartPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "no" | "Never" => Ok(Self::No),
            "always" | "Always" => Ok(Self::Always),
            "on-failure" | "OnFailure" => Ok(Self::OnFailure { max: None }),
            "unless-stopped" => Ok(Self::UnlessStopped),
            other => other
                .strip_prefix("on-failure:")
                .and_then(|max| max.parse().ok())
                .map(|max| Self::OnFailure { max: Some(max) })
                .ok_or_else(|| InvalidRestartPolicy(text.to_owned())),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = InvalidRestartPolicy;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.pad("no"),
            Self::Always => f.pad("always"),
            Self::OnFailure { max: None } => f.pad("on-failure"),
            Self::OnFailure { max: Some(max) } => f.pad(&format!("on-failure:{max}")),
            Self::UnlessStopped => f.pad("unless-stopped"),
        }
    }
}

/// The pauses between restarts: none before the first, then exponential with jitter up to a cap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Backoff {
    /// The pause before the second restart in a row; the first comes at once.
    #[serde(with = "crate::duration")]
    pub initial: Duration,
    /// No pause is longer than this (before jitter).
    #[serde(with = "crate::duration")]
    pub max: Duration,
    /// By how much each pause is longer than the one before; at least 1.
    pub factor: f64,
    /// The share of a pause by which it is lengthened or shortened at random, 0 to 1. 0 is none.
    pub jitter: f64,
    /// How long an instance must have been good (ready where a health check says so, else running) for the count of
    /// restarts in a row to start anew.
    #[serde(with = "crate::duration")]
    pub reset_after: Duration,
}

impl Default for Backoff {
    /// 1 s, doubled up to 5 min, ±10 %, anew after 10 min.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(300),
            factor: 2.0,
            jitter: 0.1,
            reset_after: Duration::from_secs(600),
        }
    }
}

impl Backoff {
    /// Reads `{initial, max, factor, jitter, reset_after}`, every key optional.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(pointer: &str, value: Value) -> Result<Self, Vec<FieldError>> {
        let default = Self::default();
        let mut reader = FieldReader::new(pointer, value);
        let seconds = |reader: &mut FieldReader, key, default| reader.or(key, crate::duration::Seconds(default)).0;
        let read = Self {
            initial: seconds(&mut reader, "initial", default.initial),
            max: seconds(&mut reader, "max", default.max),
            factor: reader.or("factor", default.factor),
            jitter: reader.or("jitter", default.jitter),
            reset_after: seconds(&mut reader, "reset_after", default.reset_after),
        };
        if !(read.factor.is_finite() && read.factor >= 1.0) {
            reader.error("factor", format!("must be at least 1, but is {}", read.factor));
        }
        if !(0.0..=1.0).contains(&read.jitter) {
            reader.error("jitter", format!("must be between 0 and 1, but is {}", read.jitter));
        }
        if read.initial > read.max {
            let (initial, max) = (read.initial, read.max);
            reader.error("initial", format!("must not exceed max, but {initial:?} is longer than {max:?}"));
        }
        reader.finish(|| read)
    }

    /// The pause before restart number `attempt` in a row (1 is the first), with `random` drawn from [0, 1).
    ///
    /// The first restart is immediate: a process that died once is most often well after one more start.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        // Nothing stays nothing, also where the factor's power is no finite number any more.
        if attempt <= 1 || self.initial.is_zero() {
            return Duration::ZERO;
        }
        let doublings = i32::try_from(attempt - 2).unwrap_or(i32::MAX);
        let pause = (self.initial.as_secs_f64() * self.factor.powi(doublings)).min(self.max.as_secs_f64());
        let spread = 1.0 + self.jitter * (2.0 * random - 1.0);
        Duration::try_from_secs_f64(pause * spread).unwrap_or(self.max)
    }
}

/// How many restarts are allowed within a sliding window before the service counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RestartBudget {
    /// Restarts allowed within `window`. 0 is no limit.
    pub attempts: u32,
    /// The length of the sliding window.
    #[serde(with = "crate::duration")]
    pub window: Duration,
}

impl Default for RestartBudget {
    /// No limit: back-off alone slows a crash loop down.
    fn default() -> Self {
        Self { attempts: 0, window: Duration::from_secs(1800) }
    }
}

impl RestartBudget {
    /// Reads `{attempts, window}`, every key optional.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(pointer: &str, value: Value) -> Result<Self, Vec<FieldError>> {
        let default = Self::default();
        let mut reader = FieldReader::new(pointer, value);
        let read = Self {
            attempts: reader.or("attempts", default.attempts),
            window: reader.or("window", crate::duration::Seconds(default.window)).0,
        };
        if read.attempts > 1000 {
            reader.error("attempts", format!("must be at most 1000, but is {}", read.attempts));
        }
        reader.finish(|| read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_round_trip() {
        for text in ["no", "always", "on-failure", "on-failure:3", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for bad in ["", "ALWAYS", "on-failure:", "on-failure:0", "on-failure:-1", "on-failure:x", "never"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn first_restart_at_once_then_doubling_to_the_cap() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let seconds: Vec<u64> =
            [1, 2, 3, 4, 9, 11, 12, u32::MAX].iter().map(|&n| backoff.delay(n, 0.5).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 128, 300, 300, 300]);
    }

    #[test]
    fn nonsense_is_refused_field_by_field() {
        let errors = Backoff::parse("/backoff", json!({"initial": 9, "max": 1, "factor": 0.5, "jitter": 2, "maxx": 1}))
            .unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/backoff/factor", "/backoff/jitter", "/backoff/initial", "/backoff/maxx"]);
    }

    #[test]
    fn no_pause_stays_none_however_often() {
        let backoff = Backoff { initial: Duration::ZERO, ..Backoff::default() };
        assert_eq!([2, 100, 2000, u32::MAX].map(|attempt| backoff.delay(attempt, 0.9)), [Duration::ZERO; 4]);
    }

    proptest! {
        #[test]
        fn delays_grow_and_stay_within_the_jittered_cap(attempt in 1u32..200, random in 0.0..1.0f64, factor in 1.0..10.0f64) {
            let backoff = Backoff { factor, ..Backoff::default() };
            let delay = backoff.delay(attempt, random);
            prop_assert!(delay.as_secs_f64() <= backoff.max.as_secs_f64() * 1.1 + 1e-6);
            let calm = Backoff { jitter: 0.0, ..backoff };
            prop_assert!(calm.delay(attempt, random) <= calm.delay(attempt + 1, random));
        }
    }
}
