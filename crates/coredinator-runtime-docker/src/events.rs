//! The engine's event stream: who listens to it is told where to look again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{models::EventMessage, query_parameters::EventsOptionsBuilder};
use coredinator_core::{RuntimeError, Timestamp};
use futures_util::StreamExt;
use tokio::{sync::broadcast, task::JoinHandle, time};
use tracing::{debug, info, warn};

use crate::{engine::Engine, labels};

/// The events that change what is told of an instance, as Docker calls them and, where that differs, as Podman does, which
/// picks events by its own words. Others (each check by `exec` makes three) are left out.
const KINDS: [&str; 10] = ["create", "start", "die", "died", "oom", "pause", "unpause", "destroy", "remove", "rename"];
/// The pause after a stream that broke, and the longest one.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many hints whoever listens may be late by. One that is later looks at everything.
const BACKLOG: usize = 1024;

/// Where something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Anywhere: the stream was broken, or has just begun.
    Everywhere,
    /// With one instance.
    Instance { id: String, service: String },
}

impl Hint {
    /// Reads an event; `None` for what is no container of a service.
    pub(crate) fn read(event: &EventMessage) -> Option<Self> {
        let attributes = event.actor.as_ref()?.attributes.as_ref()?;
        let get = |key| attributes.get(key).cloned();
        Some(Self::Instance { id: get(labels::INSTANCE)?, service: get(labels::SERVICE)? })
    }
}

/// Listens to the engine from the first who wants to hear to the end of the runtime.
#[derive(Debug)]
pub(crate) struct Events {
    engine: Engine,
    silence: Duration,
    hints: broadcast::Sender<Hint>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Events {
    pub(crate) fn new(engine: Engine, silence: Duration) -> Self {
        Self { engine, silence, hints: broadcast::Sender::new(BACKLOG), task: Mutex::default() }
    }

    /// Hints from now on. To be called within a tokio runtime.
    pub(crate) fn hints(&self) -> Hints {
        let hints = Hints(self.hints.subscribe());
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(listen(self.engine.clone(), self.silence, self.hints.clone())));
        }
        hints
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

/// What one listener hears.
#[derive(Debug)]
pub(crate) struct Hints(broadcast::Receiver<Hint>);

impl Hints {
    /// Waits until something happened that `concerns` the listener, or may have.
    pub(crate) async fn next(&mut self, concerns: impl Fn(&str, &str) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(Hint::Instance { id, service }) if !concerns(&id, &service) => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The runtime is gone; nobody will look again.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

async fn listen(engine: Engine, silence: Duration, hints: broadcast::Sender<Hint>) {
    // By the engine's clock, in nanoseconds: where the stream goes on, so that nothing is missed in between.
    let mut since: Option<i64> = None;
    let mut pause = PAUSE;
    let mut away = false;
    loop {
        match follow(&engine, silence, &hints, &mut since, &mut away).await {
            Ok(()) => pause = PAUSE,
            Err(error) if !away => {
                warn!(%error, "lost the Docker engine");
                away = true;
            }
            Err(error) => debug!(%error, "the Docker engine is still away"),
        }
        // Another engine may answer next time, of another version.
        engine.lost().await;
        time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Follows the stream until it ends.
async fn follow(
    engine: &Engine,
    silence: Duration,
    hints: &broadcast::Sender<Hint>,
    since: &mut Option<i64>,
    away: &mut bool,
) -> Result<(), RuntimeError> {
    let client = engine.client().await?;
    let asked = client.info().await.map_err(|error| crate::engine::failed("cannot ask the engine", error))?;
    let begin = (*since).or_else(|| nanoseconds(asked.system_time.as_deref()));
    if std::mem::take(away) {
        info!("the Docker engine is back");
    }
    // Whatever happened until `begin` is seen by those who look now; whatever comes after is in the stream.
    let _ = hints.send(Hint::Everywhere);
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![engine.label_of_ours()]),
        ("event", KINDS.map(str::to_owned).to_vec()),
    ]);
    let mut options = EventsOptionsBuilder::new().filters(&filters);
    if let Some(begin) = begin {
        options = options.since(&format!("{}.{:09}", begin / 1_000_000_000, begin % 1_000_000_000));
        *since = Some(begin);
    }
    let mut events = std::pin::pin!(client.events(Some(options.build())));
    while let Ok(Some(event)) = time::timeout(silence, events.next()).await {
        let event = event.map_err(|error| crate::engine::failed("cannot follow the engine's events", error))?;
        *since = event.time_nano.or(*since);
        if let Some(hint) = Hint::read(&event) {
            // Nobody may be listening.
            let _ = hints.send(hint);
        }
    }
    Ok(())
}

fn nanoseconds(time: Option<&str>) -> Option<i64> {
    let time: Timestamp = time?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    #[test]
    fn an_event_of_ours_points_to_its_instance() {
        let attributes = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
        };
        let event =
            |attributes| EventMessage { actor: Some(EventActor { id: None, attributes }), ..EventMessage::default() };
        let ours = event(attributes(&[(labels::INSTANCE, "a-0-1"), (labels::SERVICE, "a"), ("exitCode", "1")]));
        assert_eq!(Hint::read(&ours), Some(Hint::Instance { id: "a-0-1".into(), service: "a".into() }));
        for other in [event(None), event(attributes(&[("name", "x")])), EventMessage::default()] {
            assert_eq!(Hint::read(&other), None);
        }
    }
}
