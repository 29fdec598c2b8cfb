//! `start`, `stop`, `restart`, `scale`.

use std::time::Duration;

use coredinator_core::ServiceStatus;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Failure,
    args::{ActionArgs, ScaleArgs},
    client::Client,
    fields::text,
    output::{Format, Output},
    paint,
    services::{encode, one},
    wait::{Condition, wait_for},
    wanted::Wanted,
};

/// What is asked of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as the commands")]
pub enum Action {
    Start,
    Stop,
    Restart,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    /// What has happened when it is done, seen from how the service was `before`.
    fn done(self, before: &Value) -> Condition {
        let ids = before.get("instances").and_then(Value::as_array).into_iter().flatten();
        let ids = ids.map(|instance| text(instance, "id").to_owned()).filter(|id| !id.is_empty()).collect();
        let after = before.get("index").and_then(Value::as_u64);
        match self {
            Self::Start => Condition { after, ..Condition::up() },
            Self::Restart => Condition { after, replaced: ids, ..Condition::up() },
            Self::Stop => Condition { replaced: ids, ..Condition::any([Wanted::Status(ServiceStatus::Stopped)]) },
        }
    }
}

/// `start`, `stop`, `restart`.
///
/// # Errors
/// As [`Client::send`], [`wait_for`].
pub async fn act(
    client: &Client,
    output: &Output,
    action: Action,
    args: &ActionArgs,
    limit: Duration,
) -> Result<(), Failure> {
    let mut conditions = Vec::new();
    for name in &args.names {
        let before = if args.wait { one(client, name).await? } else { Value::Null };
        client.send(Method::POST, &format!("/services/{}/{}", encode(name), action.word()), None).await?;
        tell(output, name, &format!("{} requested", action.word()))?;
        conditions.push((name.clone(), action.done(&before)));
    }
    if args.wait { wait_for(client, output, &conditions, limit).await } else { Ok(()) }
}

/// `scale`.
///
/// # Errors
/// As [`Client::send`], [`wait_for`].
pub async fn scale(client: &Client, output: &Output, args: &ScaleArgs, limit: Duration) -> Result<(), Failure> {
    let mut conditions = Vec::new();
    for (name, replicas) in &args.scales {
        let before = if args.wait { one(client, name).await? } else { Value::Null };
        client
            .send(Method::PUT, &format!("/services/{}/scale", encode(name)), Some(&json!({ "replicas": replicas })))
            .await?;
        tell(output, name, &format!("scaled to {replicas}"))?;
        let condition = match replicas {
            0 => Action::Stop.done(&before),
            _ => Condition { ready: Some(u64::from(*replicas)), ..Action::Start.done(&before) },
        };
        conditions.push((name.clone(), condition));
    }
    if args.wait { wait_for(client, output, &conditions, limit).await } else { Ok(()) }
}

/// Tells what was done to a service: its name as data where that is asked for, else a note.
pub(super) fn tell(output: &Output, name: &str, done: &str) -> Result<(), Failure> {
    if output.format == Format::Name {
        return output.text(&format!("{}\n", paint::clean(name)));
    }
    output.note(&format!("{}: {done}", paint::clean(name)));
    Ok(())
}
