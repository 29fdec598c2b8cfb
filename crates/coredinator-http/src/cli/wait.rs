//! Waiting until services have come to be as wanted.

use std::time::Duration;

use coredinator_core::ServiceStatus;
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    ExitStatus, Failure, args::WaitArgs, client::Client, fields::text, human, output::Output, paint, services::encode,
    wanted::Wanted,
};

/// How long waiting may take where nobody says.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the server may hold a question back until something changes.
const HOLD: &str = "15s";
/// Questions come no faster than this, should a server not hold them back.
const PAUSE: Duration = Duration::from_millis(100);

/// The condition that a service is to meet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// Any of these will do.
    pub wanted: Vec<Wanted>,
    /// None of these instances may run any more: they are being replaced.
    pub replaced: Vec<String>,
    /// So many instances are to be ready.
    pub ready: Option<u64>,
    /// A failure that was there before this change of the service does not count.
    pub after: Option<u64>,
}

impl Condition {
    /// Any of `wanted`.
    #[must_use]
    pub fn any(wanted: impl Into<Vec<Wanted>>) -> Self {
        Self { wanted: wanted.into(), ..Self::default() }
    }

    /// Well, or done.
    #[must_use]
    pub fn up() -> Self {
        Self::any([Wanted::Status(ServiceStatus::Healthy), Wanted::Status(ServiceStatus::Completed)])
    }

    fn words(&self) -> String {
        self.wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }
}

/// What a look at a service says about a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is met.
    Met,
    /// Not yet.
    NotYet,
    /// It will not be met unless somebody does something.
    Hopeless,
}

/// Judges a service (`None`: there is no such) by a condition.
#[must_use]
pub fn judge(service: Option<&Value>, condition: &Condition) -> Verdict {
    let Some(service) = service else {
        let wanted = condition.wanted.contains(&Wanted::Deleted);
        return if wanted { Verdict::Met } else { Verdict::Hopeless };
    };
    let status = text(service, "status");
    let instances = service.get("instances").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let replaced = instances
        .iter()
        .filter(|instance| !matches!(text(instance, "state"), "stopped" | "completed" | "failed" | "backoff"))
        .all(|instance| !condition.replaced.iter().any(|old| old == text(instance, "id")));
    let ready = condition.ready.is_none_or(|wanted| service.get("ready").and_then(Value::as_u64) == Some(wanted));
    let there =
        condition.wanted.iter().any(|wanted| matches!(wanted, Wanted::Status(wanted) if wanted.as_str() == status));
    let fresh =
        condition.after.is_none_or(|index| service.get("index").and_then(Value::as_u64).is_none_or(|now| now > index));
    match status {
        _ if there && replaced && ready => Verdict::Met,
        "failed" if fresh && !condition.wanted.contains(&Wanted::Deleted) => Verdict::Hopeless,
        _ => Verdict::NotYet,
    }
}

/// Waits for several services at once, telling of changes on the way.
///
/// # Errors
/// [`ExitStatus::Timeout`] with the last state of each that is not there; [`ExitStatus::Failed`] as soon as one is hopeless.
pub async fn wait_for(
    client: &Client,
    output: &Output,
    services: &[(String, Condition)],
    limit: Duration,
) -> Result<(), Failure> {
    let last = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let remember = |name: &str, state: Option<String>| {
        if let Ok(mut last) = last.lock() {
            match state {
                Some(state) => last.insert(name.to_owned(), state),
                None => last.remove(name),
            };
        }
    };
    let each = services.iter().map(|(name, condition)| wait_for_one(client, output, name, condition, &remember));
    match timeout(limit, try_join_all(each)).await {
        Ok(result) => result.map(drop),
        Err(_) => {
            let last = last.lock().map(|last| last.clone()).unwrap_or_default();
            let words = services.first().map(|(_, condition)| condition.words()).unwrap_or_default();
            let names = last.keys().cloned().collect::<Vec<_>>().join(", ");
            let mut failure =
                Failure::new(ExitStatus::Timeout, format!("not {words} within {}: {names}", human::span(limit)));
            failure.details = last.into_iter().map(|(name, state)| format!("{name} is {state}")).collect();
            Err(failure.hint("see why by \"coredinator describe\" and \"coredinator logs\""))
        }
    }
}

async fn wait_for_one(
    client: &Client,
    output: &Output,
    name: &str,
    condition: &Condition,
    remember: &impl Fn(&str, Option<String>),
) -> Result<(), Failure> {
    let mut index: Option<u64> = None;
    let mut told = String::new();
    loop {
        let asked = Instant::now();
        let held = index.map_or_else(String::new, |index| format!("?index={index}&wait={HOLD}"));
        let service = match client.get(&format!("/services/{}{held}", encode(name))).await {
            Ok(service) => Some(service),
            Err(failure) if failure.exit == ExitStatus::NotFound && condition.wanted.contains(&Wanted::Deleted) => None,
            Err(failure) => return Err(failure),
        };
        let status = service.as_ref().map_or("deleted", |service| text(service, "status")).to_owned();
        let reason = service.as_ref().map_or("", |service| text(service, "reason"));
        let state = if reason.is_empty() { status.clone() } else { format!("{status}: {}", paint::clean(reason)) };
        remember(name, Some(state.clone()));
        if told != status {
            output.note(&format!("{name}: {}{}", paint::status(&status), paint::clean(&state[status.len()..])));
            told = status;
        }
        match judge(service.as_ref(), condition) {
            Verdict::Met => {
                remember(name, None);
                return Ok(());
            }
            Verdict::Hopeless => {
                let failure = Failure::new(ExitStatus::Failed, format!("{name} is {state}"));
                return Err(failure.hint(format!(
                    "see its output by \"coredinator logs {name}\", and start it again by \"coredinator start {name}\""
                )));
            }
            Verdict::NotYet => {}
        }
        let now = service.as_ref().and_then(|service| service.get("index")).and_then(Value::as_u64);
        if now.is_none() || (now == index && asked.elapsed() < PAUSE) {
            sleep(PAUSE).await;
        }
        index = now;
    }
}

/// `wait`.
///
/// # Errors
/// As [`wait_for`].
pub async fn run(client: &Client, output: &Output, args: &WaitArgs, limit: Duration) -> Result<(), Failure> {
    let services: Vec<_> = args.names.iter().map(|name| (name.clone(), Condition::any(args.wanted.clone()))).collect();
    wait_for(client, output, &services, limit).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn verdicts() {
        let wanted =
            |words: &[&str]| Condition::any(words.iter().map(|word| word.parse().unwrap()).collect::<Vec<_>>());
        let is = |status: &str| json!({"status": status, "index": 5, "ready": 1, "instances": [{"id": "a-0-x", "state": "running"}]});
        let old = Condition { replaced: vec!["a-0-x".into()], ..Condition::up() };
        for (verdict, service, condition) in [
            (Verdict::Met, Some(is("healthy")), wanted(&["healthy"])),
            (Verdict::Met, Some(is("completed")), Condition::up()),
            (Verdict::Met, Some(is("failed")), wanted(&["failed"])),
            (Verdict::Met, None, wanted(&["deleted"])),
            (Verdict::NotYet, Some(is("starting")), Condition::up()),
            (Verdict::NotYet, Some(is("unhealthy")), Condition::up()),
            (Verdict::NotYet, Some(is("failed")), wanted(&["deleted"])),
            (Verdict::NotYet, Some(is("healthy")), old.clone()),
            (Verdict::NotYet, Some(is("healthy")), Condition { ready: Some(2), ..Condition::up() }),
            (Verdict::Met, Some(is("healthy")), Condition { ready: Some(1), ..Condition::up() }),
            (Verdict::Met, Some(json!({"status": "healthy", "instances": [{"id": "a-0-y", "state": "running"}]})), old),
            (Verdict::Hopeless, Some(is("failed")), Condition::up()),
            (Verdict::NotYet, Some(is("failed")), Condition { after: Some(5), ..Condition::up() }),
            (Verdict::Hopeless, Some(is("failed")), Condition { after: Some(4), ..Condition::up() }),
            (Verdict::Hopeless, None, Condition::up()),
            (Verdict::NotYet, Some(json!(3)), Condition::up()),
        ] {
            assert_eq!(judge(service.as_ref(), &condition), verdict, "{service:?} {condition:?}");
        }
    }
}
