//! What replicas tell each other of health, by the store: a word when a verdict changes, not each check's result.

use std::time::Duration;

use coredinator_core::{HealthStatus, InstanceId, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::health::{CheckKey, CheckKind, CheckSnapshot};

/// What the checks of one service came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Told {
    checks: Vec<OfCheck>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OfCheck {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replica: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceId>,
    #[serde(default)]
    readiness: bool,
    status: HealthStatus,
    #[serde(default)]
    since: Option<Timestamp>,
    #[serde(default)]
    last_check: Option<Timestamp>,
    #[serde(default)]
    response_micros: Option<u64>,
    #[serde(default)]
    message: String,
}

impl Told {
    /// What these checks say now.
    pub(super) fn of<'a>(checks: impl Iterator<Item = (&'a CheckKey, CheckSnapshot)>) -> Self {
        let of_check = |(key, now): (&CheckKey, CheckSnapshot)| OfCheck {
            replica: key.replica,
            instance: key.instance.clone(),
            readiness: key.kind == CheckKind::Readiness,
            status: now.status,
            since: now.since,
            last_check: now.last_check,
            response_micros: now.response_time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            message: now.message,
        };
        Self { checks: checks.map(of_check).collect() }
    }

    /// What was told of a check; nothing known, if nothing was.
    pub(super) fn recall(&self, key: &CheckKey) -> CheckSnapshot {
        let of_key = |told: &&OfCheck| {
            told.replica == key.replica
                && told.instance == key.instance
                && told.readiness == (key.kind == CheckKind::Readiness)
        };
        let Some(told) = self.checks.iter().find(of_key) else { return CheckSnapshot::default() };
        CheckSnapshot {
            status: told.status,
            since: told.since,
            last_check: told.last_check,
            response_time: told.response_micros.map(Duration::from_micros),
            message: told.message.clone(),
            ..CheckSnapshot::default()
        }
    }
}

/// What is known of a check whose replica is silent.
pub(super) fn silent(service: &ServiceName, silence: Duration, now: Timestamp) -> CheckSnapshot {
    let message =
        format!("nothing has been heard of the replica that checks {service} for {:.0} s", silence.as_secs_f64());
    CheckSnapshot { last_check: Some(now), message, ..CheckSnapshot::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_recalled_of_the_same_life_alone() {
        let key = |instance: &str, kind| CheckKey {
            service: ServiceName::new("a").unwrap(),
            replica: Some(1),
            instance: Some(InstanceId::new(instance).unwrap()),
            kind,
        };
        let now = CheckSnapshot {
            status: HealthStatus::Unhealthy,
            since: Some(Timestamp::UNIX_EPOCH),
            last_check: Some(Timestamp::UNIX_EPOCH),
            response_time: Some(Duration::from_millis(3)),
            message: "refused".to_owned(),
            ..CheckSnapshot::default()
        };
        let one = key("one", CheckKind::Health);
        let told = Told::of([(&one, now.clone())].into_iter());
        let told: Told = serde_json::from_slice(&serde_json::to_vec(&told).unwrap()).unwrap();
        assert_eq!(told.recall(&one), now);
        assert_eq!(told.recall(&key("two", CheckKind::Health)), CheckSnapshot::default());
        assert_eq!(told.recall(&key("one", CheckKind::Readiness)), CheckSnapshot::default());
    }
}
