//! The driver: what is asked of the engine for one instance, in order.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bollard::{
    errors::Error,
    models::{EndpointSettings, NetworkConnectRequest},
    query_parameters::{CreateContainerOptionsBuilder, KillContainerOptionsBuilder, StartContainerOptions},
};
use coredinator_core::{InstanceId, Reason, RuntimeError, Signal, StartRequest, Started, StopRequest};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::{Mutex, RwLock},
    time::{self, Duration},
};
use tracing::debug;

use crate::{
    coming::{AllComing, Coming, Stage},
    config::DockerRuntimeOptions,
    container::{self, Reach},
    engine::{Engine, failed, refused, status},
    events::Events,
    exec::Hanging,
    files, labels,
    options::DockerOptions,
    ports::Ports,
    pull::{self, Turns},
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
    pub(crate) coming: AllComing,
    turns: Turns,
    ports: Ports,
    /// One instance is started by one caller at a time.
    locks: Vec<Mutex<()>>,
    /// A list waits for starts under way, and they for it: what is made and about to be started is no left-over.
    pub(crate) gate: RwLock<()>,
}

impl Shared {
    pub(crate) fn new(options: DockerRuntimeOptions) -> Self {
        let engine = Engine::new(&options);
        Self {
            events: Events::new(engine.clone(), options.silence),
            engine,
            hanging: Hanging::default(),
            coming: AllComing::default(),
            turns: Turns::default(),
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

    /// Starts an instance; one whose image has to be fetched first is taken on.
    async fn start(self: &Arc<Self>, request: StartRequest) -> Result<Started, RuntimeError> {
        let options = parse(&request)?;
        let _one_at_a_time = self.lock_of(&request.id).lock().await;
        if let Some(found) = self.engine.find(&request.id).await? {
            return self.go_on(found).await;
        }
        if let Some(on_its_way) = self.coming.started().into_iter().find(|one| one.instance.id == request.id) {
            return Ok(on_its_way);
        }
        if !pull::is_needed(&self.engine, &options).await? {
            return self.begin(&request, &options).await;
        }
        let reason = Reason::new("Pulling", format!("pulling {}", options.image));
        let coming = self.coming.add(&request, self.engine.reached(&request.spec.host), reason);
        let taken_on = self.coming.started().into_iter().find(|one| one.instance.id == request.id);
        tokio::spawn(Arc::clone(self).bring(request, options, coming));
        taken_on.ok_or_else(|| RuntimeError::Internal { message: "what was taken on is gone".to_owned(), source: None })
    }

    /// Fetches the image of an instance that was taken on, and starts it. Ends early when nobody wants it any more.
    async fn bring(self: Arc<Self>, request: StartRequest, options: DockerOptions, coming: Arc<Coming>) {
        let brought = tokio::select! {
            // One that is being made is made to its end: who gives it up finds its container.
            biased;
            () = coming.given_up() => None,
            pulled = self.fetch(&options, &coming) => Some(pulled),
        };
        match brought {
            Some(Ok(())) => {}
            Some(Err(reason)) => return coming.tell(Stage::Failed(reason)),
            None => return self.coming.over(&request.id),
        }
        loop {
            let _one_at_a_time = self.lock_of(&request.id).lock().await;
            if coming.is_given_up() {
                return self.coming.over(&request.id);
            }
            let made = match self.engine.find(&request.id).await {
                Ok(Some(found)) => self.go_on(found).await.map(drop),
                Ok(None) => self.begin(&request, &options).await.map(drop),
                Err(error) => Err(error),
            };
            match made {
                Ok(()) => return self.coming.over(&request.id),
                Err(error @ RuntimeError::Unavailable { .. }) => coming.tell(Stage::Waiting(waits(&error))),
                Err(error) => return coming.tell(Stage::Failed(why(error))),
            }
            drop(_one_at_a_time);
            time::sleep(RETRY).await;
        }
    }

    /// Fetches an image, however often the engine goes away meanwhile.
    async fn fetch(&self, options: &DockerOptions, coming: &Coming) -> Result<(), Reason> {
        loop {
            let tell = |reason| coming.tell(Stage::Waiting(reason));
            match pull::run(&self.engine, &self.turns, options, tell).await {
                Ok(()) => return Ok(()),
                Err(error @ RuntimeError::Unavailable { .. }) => coming.tell(Stage::Waiting(waits(&error))),
                Err(error) => return Err(why(error)),
            }
            time::sleep(RETRY).await;
        }
    }

    /// Makes and starts the container of an instance whose image is there.
    async fn begin(&self, request: &StartRequest, options: &DockerOptions) -> Result<Started, RuntimeError> {
        let _gate = self.gate.read().await;
        let container = self.make(request, options).await?;
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
            if options.init {
                self.engine.has_program(&made.id).await?;
            }
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
        let made = |id: &InstanceId| all.iter().any(|started| started.instance.id == *id);
        let coming: Vec<Started> =
            self.coming.started().into_iter().filter(|coming| !made(&coming.instance.id)).collect();
        all.extend(coming);
        all.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
        Ok(all)
    }

    pub(crate) async fn stop(&self, id: &InstanceId, how: StopRequest) -> Result<(), RuntimeError> {
        if let Some(mut stage) = self.coming.give_up(id) {
            // An error says that its task is gone, and it with that.
            let _ = stage.wait_for(|stage| !matches!(stage, Stage::Waiting(_))).await;
            self.coming.over(id);
        }
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

    /// Signals the main process of an instance, if it runs.
    pub(crate) async fn signal_instance(&self, id: &InstanceId, signal: Signal) -> Result<(), RuntimeError> {
        match self.engine.find(id).await? {
            Some(Container { state: State::Running { .. }, id: container, .. }) => {
                self.signal(&container, signal).await
            }
            _ => Ok(()),
        }
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

fn parse(request: &StartRequest) -> Result<DockerOptions, RuntimeError> {
    DockerOptions::parse(&request.spec).map_err(|errors| {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        RuntimeError::not_started("InvalidOptions", told.join("; "))
    })
}

/// Why an instance could not be started.
fn why(error: RuntimeError) -> Reason {
    match error {
        RuntimeError::NotStarted { reason } => reason,
        other => Reason::new("StartFailed", other.to_string()),
    }
}

/// What an instance waits for whose engine has gone.
fn waits(error: &RuntimeError) -> Reason {
    Reason::new("RuntimeUnavailable", error.to_string())
}

/// Keeps `start` going to its end even if the caller goes away.
pub(crate) async fn start(shared: Arc<Shared>, request: StartRequest) -> Result<Started, RuntimeError> {
    let failed = |error| RuntimeError::internal("the runtime is shutting down", error);
    tokio::spawn(async move { shared.start(request).await }).await.map_err(failed)?
}
