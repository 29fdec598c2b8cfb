//! The driver: what is asked of the engine for one instance, in order.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bollard::{
    auth::DockerCredentials,
    errors::Error,
    models::{EndpointSettings, NetworkConnectRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, KillContainerOptionsBuilder, StartContainerOptions,
    },
};
use coredinator_core::{InstanceId, RuntimeError, Signal, StartRequest, Started, StopRequest};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::{Mutex, RwLock},
    time::{self, Duration},
};
use tracing::{debug, info};

use crate::{
    config::DockerRuntimeOptions,
    container::{self, Reach},
    engine::{Engine, failed, refused, said, status},
    events::Events,
    exec::Hanging,
    files, labels,
    options::{DockerOptions, Pull},
    ports::Ports,
    state::{Container, State},
};

/// How long the engine may take over a kill.
const KILLED: Duration = Duration::from_secs(30);
/// How many containers are looked at side by side.
const SIDE_BY_SIDE: usize = 16;
/// How long to wait before an engine that failed is asked again, where no event wakes earlier.
const RETRY: Duration = Duration::from_secs(1);

/// The runtime's state, shared by its handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) events: Events,
    pub(crate) hanging: Hanging,
    ports: Ports,
    /// One instance is started by one caller at a time.
    locks: Vec<Mutex<()>>,
    /// A list waits for starts under way, and they for it: what is made and about to be started is no left-over.
    pub(crate) gate: RwLock<()>,
}

impl Shared {
    pub(crate) fn new(options: DockerRuntimeOptions) -> Self {
        let engine = Engine::new(options.host, &options.owner, options.clock);
        Self {
            events: Events::new(engine.clone()),
            engine,
            hanging: Hanging::default(),
            ports: Ports::new(options.ports),
            locks: (0..256).map(|_| Mutex::default()).collect(),
            gate: RwLock::default(),
        }
    }

    fn lock_of(&self, id: &InstanceId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let slot = hasher.finish() % self.locks.len() as u64;
        &self.locks[usize::try_from(slot).unwrap_or(0)]
    }

    pub(crate) async fn start(&self, request: &StartRequest) -> Result<Started, RuntimeError> {
        let invalid = |errors: Vec<coredinator_core::FieldError>| {
            let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
            RuntimeError::not_started("InvalidOptions", told.join("; "))
        };
        let options = DockerOptions::parse(&request.spec).map_err(invalid)?;
        let _one_at_a_time = self.lock_of(&request.id).lock().await;
        if let Some(found) = self.engine.find(&request.id).await? {
            return self.go_on(found).await;
        }
        self.image(&options).await?;
        let _gate = self.gate.read().await;
        let container = self.make(request, &options).await?;
        if let Err(error) = self.engine.tidy(&request.spec.name, request.replica, &container.id).await {
            debug!(%error, "cannot remove earlier containers");
        }
        Ok(container.to_started())
    }

    /// An id that has a container already: it runs, or its start met a crash midway and is brought to its end.
    async fn go_on(&self, found: Container) -> Result<Started, RuntimeError> {
        match found.state {
            State::Running { .. } => Ok(found.to_started()),
            State::Created => Ok(self.run(&found.id).await?.to_started()),
            State::Ended(exit) => Err(RuntimeError::not_started("AlreadyEnded", exit.to_string())),
        }
    }

    /// Makes and starts the container. A port that the replica had before is asked for first.
    async fn make(&self, request: &StartRequest, options: &DockerOptions) -> Result<Container, RuntimeError> {
        let no_port = || RuntimeError::not_started("NoFreePort", "there is no free port left on this machine");
        let reach = match Reach::of(&request.spec, options) {
            Some(reach) => reach,
            None => Reach::Machine(self.ports.allocate(request.preferred_port).ok_or_else(no_port)?),
        };
        if let (Reach::Published { inside, outside: 0 }, Some(outside)) = (reach, request.preferred_port) {
            match self.attempt(request, options, Reach::Published { inside, outside }).await {
                Err(RuntimeError::NotStarted { reason }) if reason.code == "PortInUse" => {}
                other => return other,
            }
        }
        self.attempt(request, options, reach).await
    }

    async fn attempt(
        &self,
        request: &StartRequest,
        options: &DockerOptions,
        reach: Reach,
    ) -> Result<Container, RuntimeError> {
        let client = self.engine.client().await?;
        let name = labels::name(&request.id, self.engine.owner());
        let named = CreateContainerOptionsBuilder::new().name(&name).build();
        let host = self.engine.reached(&request.spec.host);
        let body = container::body(request, options, self.engine.owner(), host, reach);
        let made = client.create_container(Some(named), body).await.map_err(|error| match status(&error) {
            Some(409) => RuntimeError::not_started("NameTaken", format!("the name {name} is another container's")),
            _ => refused(&error),
        })?;
        let joined = async {
            files::bring(&self.engine, &made.id, request, options).await?;
            for network in options.networks.iter().skip(1) {
                let request = NetworkConnectRequest {
                    container: made.id.clone(),
                    endpoint_config: Some(EndpointSettings::default()),
                };
                client.connect_network(network, request).await.map_err(|error| refused(&error))?;
            }
            self.run(&made.id).await
        };
        let outcome = joined.await;
        if matches!(outcome, Err(RuntimeError::NotStarted { .. } | RuntimeError::Internal { .. })) {
            self.engine.remove(&made.id).await?;
        }
        outcome
    }

    async fn run(&self, container: &str) -> Result<Container, RuntimeError> {
        let client = self.engine.client().await?;
        let started = client.start_container(container, None::<StartContainerOptions>).await;
        started.map_err(|error| refused(&error))?;
        let vanished = || RuntimeError::not_started("ContainerRemoved", "the container was removed as it started");
        self.engine.inspect(container).await?.ok_or_else(vanished)
    }

    /// Sees to it that the engine has the image.
    async fn image(&self, options: &DockerOptions) -> Result<(), RuntimeError> {
        let client = self.engine.client().await?;
        let (image, never) = (&options.image, options.pull == Pull::Never);
        if options.pull != Pull::Always {
            match client.inspect_image(image).await {
                Ok(_) => return Ok(()),
                Err(error) if status(&error) == Some(404) && !never => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        info!(image, "pulling an image");
        let wanted = CreateImageOptionsBuilder::new().from_image(&tagged(image)).build();
        let pulled = client.create_image(Some(wanted), None, None::<DockerCredentials>);
        let pulled: Result<(), Error> = pulled
            .try_for_each(async |step| {
                debug!(image, layer = step.id, status = step.status, "pulling");
                Ok(())
            })
            .await;
        pulled.map_err(|error| match error {
            Error::DockerResponseServerError { .. } | Error::DockerStreamError { .. } => {
                RuntimeError::not_started("ImagePullFailed", format!("cannot pull {image}: {}", said(&error)))
            }
            other => refused(&other),
        })
    }

    /// All that lives. What was made and never started met a crash midway; nothing of it is left behind.
    pub(crate) async fn list(&self) -> Result<Vec<Started>, RuntimeError> {
        let _gate = self.gate.write().await;
        let listed = self.engine.containers(&[]).await?;
        let inspected = listed.into_iter().filter_map(|listed| listed.id).map(|id| async move {
            match self.engine.inspect(&id).await? {
                Some(container) if container.state == State::Created => {
                    self.engine.remove(&container.id).await.map(|()| None)
                }
                other => Ok(other),
            }
        });
        let found: Vec<Option<Container>> =
            stream::iter(inspected).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        let living = found.into_iter().flatten().filter(|it| matches!(it.state, State::Running { .. }));
        let mut all: Vec<Started> = living.map(|it| it.to_started()).collect();
        all.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
        Ok(all)
    }

    pub(crate) async fn stop(&self, id: &InstanceId, how: StopRequest) -> Result<(), RuntimeError> {
        let Some(found) = self.engine.find(id).await? else { return Ok(()) };
        let State::Running { paused } = found.state else {
            return if found.state == State::Created { self.engine.remove(&found.id).await } else { Ok(()) };
        };
        if paused {
            // One that is frozen hears no signal. It may have been thawed, or have ended, since.
            let thawed = self.engine.client().await?.unpause_container(&found.id).await;
            thawed.or_else(|error| gone(error, "cannot unpause a container"))?;
        }
        if how.signal != Signal::Kill && !how.grace.is_zero() {
            self.signal(&found.id, how.signal).await?;
            if self.ends_within(&found, how.grace).await? {
                return Ok(());
            }
        }
        self.signal(&found.id, Signal::Kill).await?;
        if self.ends_within(&found, KILLED).await? {
            return Ok(());
        }
        Err(RuntimeError::Internal { message: format!("the container of {id} survives SIGKILL"), source: None })
    }

    async fn signal(&self, container: &str, signal: Signal) -> Result<(), RuntimeError> {
        let options = KillContainerOptionsBuilder::new().signal(&signal.to_string()).build();
        let sent = self.engine.client().await?.kill_container(container, Some(options)).await;
        sent.or_else(|error| gone(error, "cannot signal a container"))
    }

    async fn ends_within(&self, container: &Container, limit: Duration) -> Result<bool, RuntimeError> {
        let mut hints = self.events.hints();
        let ended = async {
            loop {
                match self.engine.inspect(&container.id).await? {
                    Some(Container { state: State::Running { .. }, .. }) => {}
                    _ => return Ok(()),
                }
                self.news(&mut hints, &container.tags.id).await;
            }
        };
        match time::timeout(limit, ended).await {
            Ok(ended) => ended.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Waits for news of an instance.
    pub(crate) async fn news(&self, hints: &mut crate::events::Hints, id: &InstanceId) {
        hints.next(|instance, _| instance == id.as_str()).await;
    }

    /// Waits for news of an instance, or a while, after which an engine that failed is asked again.
    pub(crate) async fn news_or_retry(&self, hints: &mut crate::events::Hints, id: &InstanceId) {
        let _ = time::timeout(RETRY, self.news(hints, id)).await;
    }
}

/// What was not there any more, or did not run, is as it should be.
fn gone(error: Error, doing: &str) -> Result<(), RuntimeError> {
    if matches!(status(&error), Some(404 | 409 | 304)) { Ok(()) } else { Err(failed(doing, error)) }
}

/// Without a tag the engine would pull all that there are.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// Keeps `start` going to its end even if the caller goes away.
pub(crate) async fn start(shared: Arc<Shared>, request: StartRequest) -> Result<Started, RuntimeError> {
    let failed = |error| RuntimeError::internal("the runtime is shutting down", error);
    tokio::spawn(async move { shared.start(&request).await }).await.map_err(failed)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, full) in
            [("a", "a:latest"), ("r:5000/a", "r:5000/a:latest"), ("a:1", "a:1"), ("a@sha256:0", "a@sha256:0")]
        {
            assert_eq!(tagged(image), full);
        }
    }
}
