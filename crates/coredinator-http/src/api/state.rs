//! What the API stands on.

use std::{fmt, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use coredinator_coord::{Coordinator, Strategies};
use coredinator_core::{CheckTiming, SpecDefaults, Timestamp};
use coredinator_registry::{Registry, ServiceView};
use coredinator_supervisor::Runtimes;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{peers::Peers, problem::Problem, render::Renderer, system::SystemSampler};
use crate::{
    config::{Config, live::Live},
    reload::Reloader,
};

/// What a server says of itself.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// The version of coredinator.
    pub version: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// Where it listens; `None` where it listens nowhere, as in tests.
    pub address: Option<SocketAddr>,
}

/// How far coredinator is with coming up or going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It is opening its store and adopting what runs.
    Starting,
    /// It does its work.
    Ready,
    /// It is on its way down: what it answers is true, but it should not be asked any more.
    Draining,
}

impl Readiness {
    /// Whether it does its work.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self == Self::Ready
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        })
    }
}

/// Everything that handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Parts>);

/// The parts of an [`ApiState`].
pub(super) struct Parts {
    pub(super) registry: Registry,
    pub(super) runtimes: Runtimes,
    pub(super) coordinator: Coordinator,
    /// How many problems on paper are solved at the same time.
    pub(super) dry_runs: Semaphore,
    pub(super) info: ServerInfo,
    pub(super) ready: watch::Receiver<Readiness>,
    /// Ends whatever would hold a shutdown up: streams, and requests that wait.
    pub(super) shutdown: CancellationToken,
    pub(super) index: watch::Receiver<u64>,
    pub(super) renderer: Renderer,
    pub(super) system: SystemSampler,
    /// The way to other replicas.
    pub(super) forwarder: reqwest::Client,
    pub(super) peers: Peers,
}

/// How long another replica may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

impl ApiState {
    /// Puts the state together, and starts to sample the machine on the current tokio runtime. Streams and waiting
    /// requests end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(
        registry: Registry,
        runtimes: Runtimes,
        coordinator: Coordinator,
        info: ServerInfo,
        ready: watch::Receiver<Readiness>,
        shutdown: CancellationToken,
    ) -> Self {
        let index = registry.index();
        // Indices start anew with every process; this keeps their entity tags apart.
        let renderer = Renderer::new(info.started_at.as_microsecond().unsigned_abs());
        let system = SystemSampler::start();
        let dry_runs = Semaphore::new(1);
        // What the proxies of the environment are for is not the traffic between replicas.
        let forwarder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT);
        let forwarder = forwarder.redirect(reqwest::redirect::Policy::none()).build().unwrap_or_default();
        Self(Arc::new(Parts {
            registry,
            runtimes,
            coordinator,
            dry_runs,
            info,
            ready,
            shutdown,
            index,
            renderer,
            system,
            forwarder,
            peers: Peers::default(),
        }))
    }
}

/// What handlers get: the state, and what was set. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    state: ApiState,
    pub(super) options: Arc<ApiOptions>,
}

impl Api {
    pub(super) fn new(state: ApiState, options: ApiOptions) -> Self {
        Self { state, options: Arc::new(options) }
    }

    /// The time now.
    pub(super) fn now(&self) -> Timestamp {
        self.registry.clock().now()
    }

    /// What coordinates agents, unless that is disabled.
    pub(super) fn coordinator(&self) -> Result<&Coordinator, Problem> {
        if self.coordinator.config().enabled {
            Ok(&self.state.0.coordinator)
        } else {
            let detail = "coordination is disabled; to enable it, set coredinator.coordination.enabled to true in the \
                          configuration";
            Err(Problem::conflict("CoordinationDisabled", detail))
        }
    }

    /// The configuration in force.
    pub(super) fn live(&self) -> Live<'_> {
        Live {
            settings: &self.options.settings,
            registry: &self.registry,
            runtimes: &self.runtimes,
            strategies: &self.options.strategies,
        }
    }

    /// What holds of registered services where their documents are silent.
    pub(super) fn spec_defaults(&self) -> SpecDefaults {
        let base = self.options.settings.health_check;
        let section = self.registry.config().sections.get("health_check").cloned();
        let health_check = section.and_then(|section| CheckTiming::parse("", section, &base).ok());
        SpecDefaults { health_check: health_check.unwrap_or(base) }
    }

    /// One service.
    pub(super) fn service(&self, name: &str) -> Result<Arc<ServiceView>, Problem> {
        could_be_a_service(name)?;
        Ok(self.registry.service(name)?)
    }
}

/// Refuses what is too long for a service's name: looking for the nearest one takes time that grows with its length. Whether
/// there is such a service is for whoever changes it to find out, as what is known here may be old.
pub(super) fn could_be_a_service(name: &str) -> Result<(), Problem> {
    if name.len() > 128 { Err(Problem::no_service(name)) } else { Ok(()) }
}

impl Deref for Api {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.state.0
    }
}

/// What can be set about the API.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Bodies larger than this many bytes are refused.
    pub max_body: usize,
    /// The same for agents and their intentions.
    pub max_intention: usize,
    /// The same for problems on paper.
    pub max_problem: usize,
    /// The same for configurations.
    pub max_config: usize,
    /// A request that has not been answered by then (beyond what it asked to wait) is given up.
    pub timeout: Duration,
    /// Host names, beside `localhost`, under which browsers on this machine may change things.
    pub allowed_hosts: Vec<String>,
    /// The configuration as coredinator was started with it.
    pub settings: Config,
    /// The strategies by which a coordination section is judged.
    pub strategies: Strategies,
    /// What reads the file anew.
    pub reloader: Option<Reloader>,
}

impl Default for ApiOptions {
    /// 1 MiB (intentions 4, problems and configurations 16), 30 s, no further host, a configuration of defaults.
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            max_intention: 4 * 1024 * 1024,
            max_problem: 16 * 1024 * 1024,
            max_config: crate::config::document::MAX_BYTES,
            timeout: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
            settings: Config::default(),
            strategies: Strategies::builtin(),
            reloader: None,
        }
    }
}
