//! Puts the parts together: configuration in, a running coredinator out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use coredinator_coord::{Coordinator, CoordinatorOptions, Strategies, transport::HttpTransport};
use coredinator_core::{
    Batch, FieldError, HealthProbe, Key, Precondition, Runtime, RuntimeError, RuntimeName, Scope, SharedClock, Store,
    StoreError, SystemClock, Timestamp, coordination::CoordinationStrategy,
};
use coredinator_registry::{
    ConfigOutcome, ConfigValidation, DataDir, Registry, RegistryOptions,
    health::{ProbeRegistry, ProbedRuntimes},
    leadership::{Leadership, LeadershipOptions},
    store::MeasuredStore,
};
#[cfg(feature = "docker")]
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
#[cfg(feature = "kubernetes")]
use coredinator_runtime_k8s::{KubernetesRuntime, KubernetesRuntimeOptions};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use coredinator_supervisor::{Runtimes, Shutdown, Supervisor, SupervisorOptions};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    StartError,
    api::{self, ApiOptions, ApiState, Readiness, ServeOptions, ServerInfo},
    beginning::Beginning,
    config::Config,
    coordination::{self, Lead, Machine, Services},
    metrics, node,
    reload::{self, Reloader},
    store::OpenedStore,
    validator,
};

/// How many health checks are made at the same time.
const CHECK_CONCURRENCY: usize = 4096;
/// How long requests under way may take once everything else has ended.
const DRAIN: Duration = Duration::from_secs(5);

/// A coredinator in the making. Runtimes, probes and a store of one's own are given here.
///
/// ```no_run
/// # async fn example(config: coredinator_http::config::Config) -> Result<(), coredinator_http::StartError> {
/// let running = coredinator_http::Coredinator::new(config).start().await?;
/// println!("listening on {}", running.address());
/// running.stop(coredinator_http::Shutdown::StopServices, Default::default()).await;
/// # Ok(())
/// # }
/// ```
pub struct Coredinator {
    config: Config,
    runtimes: Vec<RuntimeMaker>,
    /// Those of the user's own.
    probes: ProbeRegistry,
    strategies: Strategies,
    store: Option<Arc<dyn Store>>,
    validation: Option<ConfigValidation>,
    clock: SharedClock,
    file: Option<String>,
    read: Option<reload::Read>,
}

/// Makes a runtime once it is known whose instances it starts.
type RuntimeMaker = Box<dyn FnOnce(&Identity) -> Result<Arc<dyn Runtime>, RuntimeError> + Send>;

/// What a runtime needs to know of the coredinator that it works for.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Unique per store, and the same after every restart: what runtimes mark their instances with where every replica reaches
    /// them alike.
    pub owner: String,
    /// The same, unique per store and node: what runtimes mark their instances with that live on this machine alone. Where no
    /// other replica can use the store it is `owner`.
    pub local_owner: String,
    /// What stamps.
    pub clock: SharedClock,
    /// Where files can be kept: the data directory's `logs`.
    pub log_dir: std::path::PathBuf,
}

impl Coredinator {
    /// A coredinator of this configuration, with the runtimes (processes; containers with the feature `docker`, pods with
    /// `kubernetes`) and the probes that come with it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let new = Self {
            config,
            runtimes: Vec::new(),
            probes: ProbeRegistry::empty(),
            strategies: Strategies::builtin(),
            store: None,
            validation: None,
            clock: Arc::new(SystemClock),
            file: Some("the configuration".to_owned()),
            read: None,
        }
        .runtime(|identity| {
            // Those of before the store was shared are found, too.
            let options = ProcessRuntimeOptions::new(&identity.log_dir, &identity.local_owner)
                .with_former_owner(&identity.owner)
                .with_clock(Arc::clone(&identity.clock));
            Ok(Arc::new(ProcessRuntime::new(options)?))
        });
        #[cfg(feature = "docker")]
        let new = new.runtime(|identity| {
            // Those of before the store was shared are found, too.
            let options = DockerRuntimeOptions::new(&identity.local_owner)
                .with_former_owner(&identity.owner)
                .with_clock(Arc::clone(&identity.clock));
            Ok(Arc::new(DockerRuntime::new(options)))
        });
        #[cfg(feature = "kubernetes")]
        let new = new.runtime(|identity| {
            let options = KubernetesRuntimeOptions::new(&identity.owner).with_clock(Arc::clone(&identity.clock));
            Ok(Arc::new(KubernetesRuntime::new(options)))
        });
        new
    }

    /// Adds a runtime, or replaces the one of the same name.
    #[must_use]
    pub fn runtime(
        mut self,
        make: impl FnOnce(&Identity) -> Result<Arc<dyn Runtime>, RuntimeError> + Send + 'static,
    ) -> Self {
        self.runtimes.push(Box::new(make));
        self
    }

    /// Adds a kind of health check, or replaces the one that comes with coredinator.
    #[must_use]
    pub fn probe(mut self, probe: impl HealthProbe) -> Self {
        self.probes = self.probes.with(probe);
        self
    }

    /// Adds a strategy that has no options, by which conflicts between agents can be resolved, or replaces the one of its
    /// name. A configuration that names it must be loaded with it among its
    /// [checks](crate::config::Checks::with_strategies).
    #[must_use]
    pub fn strategy(mut self, strategy: impl CoordinationStrategy) -> Self {
        self.strategies = self.strategies.with(strategy);
        self
    }

    /// The same for a strategy that is made from its options: an object (empty where none are given), found at a pointer.
    #[must_use]
    pub fn strategy_maker(
        mut self,
        name: &str,
        make: impl Fn(&str, Value) -> Result<Arc<dyn CoordinationStrategy>, Vec<FieldError>> + Send + Sync + 'static,
    ) -> Self {
        self.strategies = self.strategies.with_maker(name, make);
        self
    }

    /// Uses this store instead of the one that the configuration names.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Has the configuration documents of services judged by this instead of what the configuration names.
    #[must_use]
    pub fn config_validation(mut self, validation: ConfigValidation) -> Self {
        self.validation = Some(validation);
        self
    }

    /// What the configuration came from, as people call it. `None`: there was no file, and what the last coredinator on
    /// this state had is left as it is. Unless this is called, the configuration itself counts as the file.
    #[must_use]
    pub fn file(mut self, file: Option<String>) -> Self {
        self.file = file;
        self
    }

    /// How the file is read again when coredinator is asked to: by SIGHUP (where [`serve`](crate::serve()) runs it) or
    /// `POST /-/reload`. Without this neither finds a file.
    #[must_use]
    pub fn reload(mut self, read: reload::Read) -> Self {
        self.read = Some(read);
        self
    }

    /// Starts it on the current tokio runtime: locks the data directory, binds the port, opens the store, and only then
    /// looks for what runs already, and acts.
    ///
    /// # Errors
    /// [`StartError`]; nothing has been started then, and nothing but the data directory has been made.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self { mut config, runtimes, probes, strategies, store, validation, clock, file: source, read } = self;
        // Before anything counts.
        let recorder = metrics::recorder();
        let data_dir = DataDir::open(&config.data_dir)?;
        let listener = bind(&config.host, config.port).await?;
        let address =
            listener.local_addr().map_err(|source| StartError::Bind { address: config.host.clone(), source })?;
        let opened = match store {
            Some(store) => OpenedStore::given(store),
            None => OpenedStore::open(&config, &data_dir).await?,
        };
        let store: Arc<dyn Store> = Arc::new(MeasuredStore::new(opened.store()));
        let owner = owner(store.as_ref()).await?;
        let (started_at, seed) = (clock.now(), fastrand::u64(..));
        let leadership = join(&config, &data_dir, &store, address, started_at).await?;
        let sole = !store.capabilities().shared;
        let local_owner = if sole { owner.clone() } else { format!("{owner}.{}", leadership.node()) };
        let identity = Identity { owner, local_owner, clock: Arc::clone(&clock), log_dir: data_dir.logs() };
        let made: Result<Vec<_>, _> = runtimes.into_iter().map(|make| make(&identity)).collect();
        let runtimes = Runtimes::new(made?);
        let probed = runtimes.iter().map(Arc::clone).collect::<ProbedRuntimes>();
        let probes = ProbeRegistry::builtin().with_runtimes(probed).with_all(&probes);
        let options = RegistryOptions {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            probes,
            check_concurrency: CHECK_CONCURRENCY,
            seed,
        };
        let validation = validation.or_else(|| config.config_validator.as_ref().map(validator::validation));
        let registry = Registry::open_at(options, leadership.place(reached_by_all(&runtimes))).await?;
        let registry = registry.with_validation(validation);
        let name = source.as_deref().unwrap_or("no file");
        let reloader = Reloader::new(name, read, &registry, &runtimes);
        let beginning = Beginning::new(&registry, &reloader, source.is_some().then(|| config.clone()));
        let declared = beginning.begin().await?;
        config = config.with_live(&registry.config_document(), &strategies);
        let coordinator = Coordinator::start(CoordinatorOptions {
            store,
            clock: Arc::clone(&clock),
            strategies: strategies.clone(),
            config: config.coordination.clone(),
            services: Arc::new(Services(registry.clone())),
            host: Arc::new(Machine::here()),
            transport: Arc::new(HttpTransport::new()),
            lead: Arc::new(Lead(registry.place().clone())),
        })
        .await?;
        let supervisor = Supervisor::start(SupervisorOptions {
            registry: registry.clone(),
            runtimes: runtimes.clone(),
            clock,
            seed: fastrand::u64(..),
            url: Some(format!("http://{}", reachable(address))),
            document_dir: Some(data_dir.run()),
        });
        let (ready, readiness) = watch::channel(Readiness::Starting);
        let streams = CancellationToken::new();
        let info = ServerInfo { version: env!("CARGO_PKG_VERSION").to_owned(), started_at, address: Some(address) };
        let state = ApiState::new(registry.clone(), runtimes, coordinator.clone(), info, readiness, streams.clone());
        let drained = CancellationToken::new();
        let following = coordination::follow(registry.clone(), coordinator.clone(), strategies.clone());
        let end = drained.clone();
        tokio::spawn(async move { end.run_until_cancelled(following).await });
        if let Some(recorder) = recorder {
            metrics::keep_up(recorder, drained.clone());
        }
        let router = api::router(
            state,
            ApiOptions { settings: config, strategies, reloader: Some(reloader.clone()), ..ApiOptions::default() },
        );
        let serving = ServeOptions { drain: DRAIN, ..ServeOptions::default() };
        let server = tokio::spawn(api::serve(listener, router, drained.clone(), serving));
        let ready = mark_ready(ready, supervisor.adopted());
        Ok(Running {
            registry,
            leadership,
            coordinator,
            supervisor,
            address,
            started_at,
            declared,
            reloader,
            ready,
            streams,
            drained,
            server,
            opened,
            _data_dir: data_dir,
        })
    }
}

/// A running coredinator.
pub struct Running {
    registry: Registry,
    leadership: Leadership,
    coordinator: Coordinator,
    supervisor: Supervisor,
    address: SocketAddr,
    started_at: Timestamp,
    declared: Option<ConfigOutcome>,
    reloader: Reloader,
    ready: Arc<watch::Sender<Readiness>>,
    streams: CancellationToken,
    drained: CancellationToken,
    server: JoinHandle<()>,
    opened: OpenedStore,
    _data_dir: DataDir,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address at which it is reached from this machine, as `http://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", reachable(self.address))
    }

    /// When it was started.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The registry, for reading and declaring from Rust.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What coordinates agents, for registering and deciding from Rust.
    #[must_use]
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// What the configuration changed against the state that was found; `None` where there was no file, or where that state goes
    /// on for now, because the file could not be judged or the store takes no writes.
    #[must_use]
    pub fn declared(&self) -> Option<&ConfigOutcome> {
        self.declared.as_ref()
    }

    /// Reads the file anew.
    #[must_use]
    pub fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    /// Ends it: services first (unless they are left running), then streams, then requests under way. While services stop,
    /// the API goes on telling. Cancelling `force` turns an orderly stop into one that kills.
    ///
    /// Where several replicas share the store, what the leader does is handed over before anything else, and services that
    /// another replica can look after go on.
    pub async fn stop(self, how: Shutdown, force: CancellationToken) {
        self.ready.send_replace(Readiness::Draining);
        if !self.registry.place().is_sole() {
            self.supervisor.step_down().await;
            self.coordinator.shutdown().await;
            self.leadership.resign().await;
        }
        self.supervisor.shutdown(how, force).await;
        self.coordinator.shutdown().await;
        self.streams.cancel();
        self.drained.cancel();
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server ended badly");
        }
        self.leadership.leave().await;
        self.registry.close();
        self.opened.close().await;
    }
}

/// Joins the replicas on the store, as the node that this is.
async fn join(
    config: &Config,
    data_dir: &DataDir,
    store: &Arc<dyn Store>,
    address: SocketAddr,
    started_at: Timestamp,
) -> Result<Leadership, StartError> {
    let identity = node::identity(data_dir, config.node.as_ref())?;
    let advertised = config.advertise.clone().unwrap_or_else(|| match address.ip() {
        // It listens everywhere: others know the machine by its name.
        ip if ip.is_unspecified() => format!("http://{}:{}", node::host_name(), address.port()),
        _ => format!("http://{address}"),
    });
    let leadership = Leadership::join(LeadershipOptions {
        store: Arc::clone(store),
        identity: identity.clone(),
        timing: config.leadership,
        above: coredinator_coord::highest_epoch(store.as_ref()).await?,
        address: Some(advertised),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
    })
    .await?;
    node::remember(data_dir, &identity, leadership.node());
    Ok(leadership)
}

/// The runtimes whose instances every replica reaches alike.
fn reached_by_all(runtimes: &Runtimes) -> BTreeSet<RuntimeName> {
    let all = runtimes.iter().filter(|runtime| runtime.capabilities().scope == Scope::Cluster);
    all.map(|runtime| runtime.name()).collect()
}

async fn bind(host: &str, port: u16) -> Result<TcpListener, StartError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    TcpListener::bind((host, port)).await.map_err(|source| {
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        StartError::Bind { address, source }
    })
}

/// The address at which a process on this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The identity of the coredinator to which the store belongs; coined with the store.
async fn owner(store: &dyn Store) -> Result<String, StoreError> {
    let key = Key::new("meta/owner").map_err(|error| StoreError::Invalid(error.to_string()))?;
    // A store that takes no writes now has been begun before.
    let record = match store.get(&key).await? {
        Some(known) => Some(known),
        None => {
            let coined = format!("{:032x}", fastrand::u128(..));
            let batch = Batch::new().put(key.clone(), coined.clone().into_bytes(), Precondition::Absent);
            match store.write(batch).await {
                Ok(_) => return Ok(coined),
                Err(StoreError::Conflict { .. }) => store.get(&key).await?,
                Err(error) => return Err(error),
            }
        }
    };
    let text = record.and_then(|record| String::from_utf8(record.value).ok());
    text.ok_or_else(|| StoreError::Unusable("the store's record of whose it is (meta/owner) cannot be read".to_owned()))
}

/// Ready is, who has found what runs already.
fn mark_ready(ready: watch::Sender<Readiness>, mut adopted: watch::Receiver<bool>) -> Arc<watch::Sender<Readiness>> {
    let ready = Arc::new(ready);
    let marking = Arc::clone(&ready);
    tokio::spawn(async move {
        if adopted.wait_for(|adopted| *adopted).await.is_ok() {
            marking.send_if_modified(|state| {
                let starting = *state == Readiness::Starting;
                if starting {
                    *state = Readiness::Ready;
                }
                starting
            });
        }
    });
    ready
}
