//! The runtime itself: the trait over [`Shared`].

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use coredinator_core::{
    ExecOutcome, ExecRequest, Exit, FieldError, InstanceRef, LogQuery, LogStream, Observation, ObservationStream,
    ProbeReport, Runtime, RuntimeCapabilities, RuntimeError, RuntimeName, Scope, ServiceName, ServiceSpec,
    StartRequest, Started, StopRequest,
};
use futures_util::{StreamExt, stream};
use kube::Client;
use serde_json::Value;
use tokio::time;

use crate::{
    config::KubernetesRuntimeOptions,
    engine::{Engine, Trouble},
    events::{Hints, Look},
    exec, logs,
    options::KubernetesOptions,
    shared::{self, Shared},
    shown,
    state::{Found, Handle, State, next},
};

/// How long what is left of an instance may take to end once its program has.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Runs instances as pods of a Kubernetes cluster. Cheap to clone; all clones are one runtime.
///
/// To be used within a tokio runtime. Dropping it touches no instance.
#[derive(Debug, Clone)]
pub struct KubernetesRuntime {
    shared: Arc<Shared>,
}

impl KubernetesRuntime {
    /// The name under which it is registered: `kubernetes`.
    pub const NAME: &str = "kubernetes";

    /// Makes a runtime. The cluster is not asked for before it is needed, and may come and go.
    #[must_use]
    pub fn new(options: KubernetesRuntimeOptions) -> Self {
        Self { shared: Arc::new(Shared::new(Engine::new(options))) }
    }

    /// The same over a client of one's own, whatever the options say of access. The client should not ask again by itself:
    /// that is done here.
    #[must_use]
    pub fn with_client(options: KubernetesRuntimeOptions, client: Client) -> Self {
        Self { shared: Arc::new(Shared::new(Engine::with_client(options, client))) }
    }
}

#[async_trait]
impl Runtime for KubernetesRuntime {
    fn name(&self) -> RuntimeName {
        RuntimeName::new(Self::NAME).unwrap_or_else(|_| unreachable!("a DNS label"))
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            scope: Scope::Cluster,
            adopts: true,
            exit_of_adopted: true,
            logs: true,
            exec: true,
            native_health: true,
            inspects: true,
            // A pod is signalled by nobody but its kubelet, and by that only to end.
            signals: false,
        }
    }

    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        KubernetesOptions::parse(spec).err().unwrap_or_default()
    }

    fn declared(&self, spec: &ServiceSpec) {
        if let Ok(KubernetesOptions { namespace: Some(namespace), .. }) = KubernetesOptions::parse(spec) {
            self.shared.engine.learn(&namespace);
        }
    }

    async fn start(&self, request: StartRequest) -> Result<Started, RuntimeError> {
        shared::start(Arc::clone(&self.shared), request).await
    }

    async fn list(&self, known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        self.shared.list(known).await
    }

    fn watch(&self, instance: &InstanceRef) -> ObservationStream {
        if let Some(handle) = Handle::read(instance) {
            self.shared.events.cover(&handle.namespace);
        }
        let watching = Watching {
            shared: Arc::clone(&self.shared),
            // Heard from before the first look, so that nothing falls in between.
            hints: self.shared.events.hints(),
            instance: instance.clone(),
            counted: Handle::read(instance).map(|handle| handle.counted),
            told: None,
        };
        stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            let news = watching.next().await;
            let goes_on = !matches!(news, Observation::Exited(_) | Observation::NotStarted(_));
            Some((news, goes_on.then_some(watching)))
        })
        .boxed()
    }

    async fn stop(&self, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError> {
        self.shared.stop(instance, how).await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError> {
        logs::read(Arc::clone(&self.shared), query).await
    }

    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        self.shared.forget(service).await
    }

    async fn kept(&self) -> Result<Vec<ServiceName>, RuntimeError> {
        self.shared.kept().await
    }

    async fn exec(&self, instance: &InstanceRef, request: ExecRequest) -> Result<ExecOutcome, RuntimeError> {
        exec::run(&self.shared, instance, request).await
    }

    async fn deliver(&self, instance: &InstanceRef, file: &Path) -> Result<(), RuntimeError> {
        self.shared.deliver(instance, file).await
    }

    async fn native_health(&self, instance: &InstanceRef) -> Result<Option<ProbeReport>, RuntimeError> {
        let found = match self.shared.events.look(&instance.id) {
            Look::Seen { found, .. } => Some(*found),
            // What has ended is known to have.
            Look::Gone(_) => None,
            Look::Unseen => self.shared.engine.find(instance).await.map_err(Trouble::unknown)?,
        };
        match found.filter(|found| !matches!(found.state, State::Ended(_))) {
            Some(found) => Ok(shown::health(&found)),
            None => Err(RuntimeError::not_started("NotRunning", format!("{} does not run", instance.id))),
        }
    }

    async fn inspect(&self, instance: &InstanceRef) -> Result<Option<Value>, RuntimeError> {
        let pod = self.shared.engine.pod(instance).await.map_err(Trouble::unknown)?;
        Ok(pod.map(|(_, pod)| shown::asked(&pod)))
    }
}

/// One watch on one instance.
struct Watching {
    shared: Arc<Shared>,
    hints: Hints,
    instance: InstanceRef,
    /// How many of the kubelet's restarts have been counted; `None`: it begins to be counted now.
    counted: Option<u32>,
    told: Option<Observation>,
}

impl Watching {
    async fn next(&mut self) -> Observation {
        let id = self.instance.id.clone();
        loop {
            match self.shared.events.look(&id) {
                Look::Seen { found, due } => {
                    if let Some(news) = self.judge(&found).await {
                        return news;
                    }
                    let news = self.shared.news(&mut self.hints, &id);
                    match due {
                        Some(due) => drop(time::timeout_at(due, news).await),
                        None => news.await,
                    }
                }
                Look::Gone(exit) => return Observation::Exited(exit),
                Look::Unseen => match self.shared.engine.find(&self.instance).await {
                    Ok(Some(found)) => {
                        self.shared.events.cover(&found.namespace);
                        self.shared.events.note(found);
                    }
                    Ok(None) => {
                        let at = self.shared.engine.clock().now();
                        return Observation::Exited(Exit {
                            code: None,
                            signal: None,
                            oom_killed: false,
                            why: None,
                            at,
                        });
                    }
                    // Nothing is known, so nothing is told; whoever waits hears of it from calls that fail.
                    Err(_) => self.shared.news_or_retry(&mut self.hints, &id).await,
                },
            }
        }
    }

    /// What is new about a pod that was seen like this.
    async fn judge(&mut self, found: &Found) -> Option<Observation> {
        if let Some(reason) = found.will_not_run() {
            return match self.shared.undo(found).await {
                Ok(()) => Some(Observation::NotStarted(reason.clone())),
                // What is left of it is tried again; until then it waits.
                Err(_) => {
                    tokio::time::sleep(LEFTOVERS).await;
                    None
                }
            };
        }
        let counted = *self.counted.get_or_insert(found.restarts);
        let news = next(self.told.as_ref(), found, counted)?;
        if matches!(news, Observation::Exited(_)) && found.leftovers {
            // What a template put beside the program ends with it.
            if let Err(error) = self.shared.end(found, LEFTOVERS).await {
                tracing::debug!(%error, "cannot end what is left of a pod");
            }
        }
        self.counted = Some(if matches!(found.state, State::Running) { found.restarts } else { counted });
        self.told = Some(match &news {
            Observation::Restarted { started, .. } => Observation::Running(started.clone()),
            other => other.clone(),
        });
        Some(news)
    }
}
