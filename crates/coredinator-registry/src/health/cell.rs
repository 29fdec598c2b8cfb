//! What a check says now, and what it said of late.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{HealthStatus, Outcome, Timestamp};

/// How many of a check's last results are kept.
pub const HISTORY: usize = 50;

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// When it ended.
    pub at: Timestamp,
    /// How it ended; `None`: it could not be asked.
    pub outcome: Option<Outcome>,
    /// How long the answer took; `None`: there was none, or (a heartbeat) nothing was asked.
    pub response_time: Option<Duration>,
    /// What was found, for people.
    pub message: String,
}

/// What a check says now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckSnapshot {
    /// What its answers, through hysteresis, mean.
    pub status: HealthStatus,
    /// Since when it has this status; `None`: since ever.
    pub since: Option<Timestamp>,
    /// When the last check ended; `None`: never checked.
    pub last_check: Option<Timestamp>,
    /// How long the last answer took; `None`: the last check had none.
    pub response_time: Option<Duration>,
    /// What the last check found, for people; empty if never checked.
    pub message: String,
    /// Failures in a row, those too that did not count.
    pub consecutive_failures: u32,
    /// Checks ever made.
    pub checks: u64,
    /// Checks that ever failed.
    pub failures: u64,
}

/// A result as the ring keeps it; equal messages in a row are one.
struct Kept {
    at: Timestamp,
    outcome: Option<Outcome>,
    response_micros: Option<u32>,
    message: Arc<str>,
}

#[derive(Default)]
struct State {
    status: HealthStatus,
    since: Option<Timestamp>,
    consecutive_failures: u32,
    checks: u64,
    failures: u64,
    history: VecDeque<Kept>,
}

/// What one check says: written by the monitor after each check, cheap to read for everybody else.
#[derive(Default)]
pub struct CheckCell(Mutex<State>);

impl CheckCell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its answers, through hysteresis, mean.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        self.state().status
    }

    /// All that it says now, as of one moment.
    #[must_use]
    pub fn snapshot(&self) -> CheckSnapshot {
        let state = self.state();
        let last = state.history.back();
        CheckSnapshot {
            status: state.status,
            since: state.since,
            last_check: last.map(|last| last.at),
            response_time: last.and_then(Kept::response_time),
            message: last.map(|last| last.message.as_ref().to_owned()).unwrap_or_default(),
            consecutive_failures: state.consecutive_failures,
            checks: state.checks,
            failures: state.failures,
        }
    }

    /// The last [`HISTORY`] results, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<CheckResult> {
        let state = self.state();
        let results = state.history.iter().map(|kept| CheckResult {
            at: kept.at,
            outcome: kept.outcome,
            response_time: kept.response_time(),
            message: kept.message.as_ref().to_owned(),
        });
        results.collect()
    }

    /// A cell that says what another one said.
    pub(crate) fn recalled(snapshot: &CheckSnapshot) -> Self {
        let outcome = match snapshot.status {
            HealthStatus::Healthy => Some(Outcome::Pass),
            HealthStatus::Degraded => Some(Outcome::Warn),
            HealthStatus::Unhealthy => Some(Outcome::Fail),
            HealthStatus::Unknown => None,
        };
        let last = snapshot.last_check.map(|at| Kept {
            at,
            outcome,
            response_micros: snapshot.response_time.map(|time| u32::try_from(time.as_micros()).unwrap_or(u32::MAX)),
            message: snapshot.message.as_str().into(),
        });
        Self(Mutex::new(State {
            status: snapshot.status,
            since: snapshot.since,
            consecutive_failures: snapshot.consecutive_failures,
            checks: snapshot.checks,
            failures: snapshot.failures,
            history: last.into_iter().collect(),
        }))
    }

    /// Takes in a result and the status that follows from it.
    pub(super) fn record(
        &self,
        status: HealthStatus,
        at: Timestamp,
        outcome: Option<Outcome>,
        response_time: Option<Duration>,
        message: &str,
    ) {
        let mut state = self.state();
        if state.status != status {
            state.status = status;
            state.since = Some(at);
        }
        state.checks += 1;
        match outcome {
            Some(Outcome::Fail) => {
                state.failures += 1;
                state.consecutive_failures = state.consecutive_failures.saturating_add(1);
            }
            Some(Outcome::Pass | Outcome::Warn) => state.consecutive_failures = 0,
            None => {}
        }
        let same = state.history.back().map(|last| &last.message).filter(|last| last.as_ref() == message);
        let message = same.cloned().unwrap_or_else(|| message.into());
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        let response_micros = response_time.map(|time| u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        state.history.push_back(Kept { at, outcome, response_micros, message });
    }
}

impl Kept {
    fn response_time(&self) -> Option<Duration> {
        self.response_micros.map(|micros| Duration::from_micros(micros.into()))
    }
}

impl fmt::Debug for CheckCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckCell").field(&self.snapshot()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn never_checked() {
        let cell = CheckCell::default();
        assert_eq!(cell.snapshot(), CheckSnapshot::default());
        assert_eq!(cell.status(), HealthStatus::Unknown);
        assert!(cell.history().is_empty());
    }

    #[test]
    fn the_last_results_are_kept_oldest_first() {
        let cell = CheckCell::default();
        for second in 0..60 {
            let outcome = if second < 58 { Outcome::Pass } else { Outcome::Fail };
            let status = if second < 58 { HealthStatus::Healthy } else { HealthStatus::Degraded };
            cell.record(status, at(second), Some(outcome), Some(Duration::from_millis(2)), &format!("m{}", second / 7));
        }
        cell.record(HealthStatus::Degraded, at(60), None, None, "no file descriptors");
        let history = cell.history();
        assert_eq!(history.len(), HISTORY);
        assert_eq!((history[0].at, history[0].message.as_str()), (at(11), "m1"));
        assert_eq!(history[HISTORY - 1].outcome, None);
        let expected = CheckSnapshot {
            status: HealthStatus::Degraded,
            since: Some(at(58)),
            last_check: Some(at(60)),
            response_time: None,
            message: "no file descriptors".to_owned(),
            consecutive_failures: 2,
            checks: 61,
            failures: 2,
        };
        assert_eq!(cell.snapshot(), expected);
    }
}
