//! Waiting for a service, or for any, to become what a request waits for.

use std::{sync::Arc, time::Duration};

use coredinator_core::InstanceState;
use coredinator_registry::ServiceView;
use tokio::sync::watch;

use super::{params::Params, problem::Problem, state::Api};

/// What a long-poll asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LongPoll {
    /// Answer when what is there is no longer at this index. An index of the future, as from a server that has been
    /// replaced since, is answered at once.
    index: u64,
    /// Answer then in any case.
    wait: Duration,
}

impl LongPoll {
    /// Takes `index` and `wait`.
    pub(super) fn read(params: &mut Params) -> Option<Self> {
        let (index, wait) = (params.number("index"), params.wait());
        if index.is_none() && wait.is_some() {
            params.error("wait", "has no meaning without index");
        }
        index.map(|index| Self { index, wait: wait.unwrap_or(super::params::DEFAULT_WAIT) })
    }

    /// Waits until `current` answers another index, the time is over, or the server shuts down.
    pub(super) async fn ended<E>(self, api: &Api, current: impl Fn() -> Result<u64, E>) -> Result<(), E> {
        let mut changes = api.index.clone();
        let changed = async {
            loop {
                changes.borrow_and_update();
                if current()? != self.index || changes.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            ended = changed => ended,
            () = tokio::time::sleep(self.wait) => Ok(()),
            () = api.shutdown.cancelled() => Ok(()),
        }
    }
}

/// Waits until `reached` is true of the service (`None`: it is gone).
///
/// # Errors
/// 504 with what the service was at last; 503 when the server shuts down meanwhile.
pub(super) async fn until(
    api: &Api,
    name: &str,
    wait: Duration,
    reached: impl Fn(Option<&ServiceView>) -> bool,
) -> Result<Option<Arc<ServiceView>>, Problem> {
    let mut changes: watch::Receiver<u64> = api.index.clone();
    let waiting = async {
        loop {
            changes.borrow_and_update();
            let view = api.registry.service(name).ok();
            if reached(view.as_deref()) || changes.changed().await.is_err() {
                return view;
            }
        }
    };
    tokio::select! {
        view = waiting => Ok(view),
        () = api.shutdown.cancelled() => Err(Problem::draining()),
        () = tokio::time::sleep(wait) => {
            let last = api.registry.service(name).map(|view| format!("{}: {}", view.status, view.reason));
            let last = last.unwrap_or_else(|_| "gone".to_owned());
            Err(Problem::too_slow(format!("the command was taken, but after {wait:?} {name} is still {last}")))
        }
    }
}

/// Whether a managed service has followed the last command, and rests in what came of it: every wanted instance is ready,
/// has completed or has failed for good, and no other lives.
pub(super) fn is_settled(view: &ServiceView) -> bool {
    let wanted = view.wanted_replicas();
    let surplus_gone = view.instances.iter().all(|i| i.record.replica < wanted || !i.record.state.is_live());
    let settled = view.instances.iter().filter(|instance| {
        let record = &instance.record;
        let current = record.followed >= view.intent.command && record.generation >= view.record.runs_since;
        let rests = match record.state {
            InstanceState::Running => instance.ready,
            InstanceState::Completed | InstanceState::Failed => true,
            _ => false,
        };
        record.replica < wanted && current && rests
    });
    surplus_gone && settled.count() as u64 == u64::from(wanted)
}
