//! The runtime itself: the trait over [`Shared`].

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bollard::models::ContainerInspectResponse;
use coredinator_core::{
    ExecOutcome, ExecRequest, FieldError, InstanceRef, LogQuery, LogStream, Observation, ObservationStream,
    ProbeReport, Runtime, RuntimeCapabilities, RuntimeError, RuntimeName, Scope, ServiceName, ServiceSpec, Signal,
    StartRequest, Started, StopRequest,
};
use futures_util::{StreamExt, stream};

use crate::{
    coming::Stage,
    config::DockerRuntimeOptions,
    exec, files, logs,
    options::DockerOptions,
    shared::{self, Shared},
    shown,
    state::{Container, State, next},
};

/// Runs instances as containers of a Docker engine. Cheap to clone; all clones are one runtime.
///
/// To be used within a tokio runtime. Dropping it touches no instance.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    shared: Arc<Shared>,
}

impl DockerRuntime {
    /// The name under which it is registered: `docker`.
    pub const NAME: &str = "docker";

    /// Makes a runtime. The engine is not asked for before it is needed, and may come and go.
    #[must_use]
    pub fn new(options: DockerRuntimeOptions) -> Self {
        Self { shared: Arc::new(Shared::new(options)) }
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn name(&self) -> RuntimeName {
        RuntimeName::new(Self::NAME).unwrap_or_else(|_| unreachable!("a DNS label"))
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            scope: if self.shared.engine.is_local() { Scope::NodeLocal } else { Scope::Cluster },
            adopts: true,
            exit_of_adopted: true,
            logs: true,
            exec: true,
            native_health: true,
            inspects: true,
            signals: true,
        }
    }

    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        DockerOptions::parse(spec).err().unwrap_or_default()
    }

    async fn start(&self, request: StartRequest) -> Result<Started, RuntimeError> {
        shared::start(Arc::clone(&self.shared), request).await
    }

    async fn list(&self, _known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        // Labels tell all that a handle could, and cannot be another's.
        self.shared.list().await
    }

    fn watch(&self, instance: &InstanceRef) -> ObservationStream {
        let (shared, id) = (Arc::clone(&self.shared), instance.id.clone());
        // Heard from before the first look, so that nothing falls in between.
        let hints = shared.events.hints();
        stream::unfold(Some((shared, hints, None)), move |watching| {
            let id = id.clone();
            async move {
                let (shared, mut hints, told) = watching?;
                loop {
                    if let Some(coming) = shared.coming.get(&id) {
                        let mut stage = coming.stage();
                        let now = stage.borrow_and_update().clone();
                        match now {
                            Stage::Failed(reason) => return Some((Observation::NotStarted(reason), None)),
                            Stage::Waiting(reason) => {
                                let news = Observation::Waiting(reason);
                                if told.as_ref() != Some(&news) {
                                    return Some((news.clone(), Some((shared, hints, Some(news)))));
                                }
                                // An error says that it is over as well.
                                let _ = stage.changed().await;
                                continue;
                            }
                            Stage::Over => {}
                        }
                    }
                    match shared.engine.find(&id).await {
                        Ok(found) => {
                            let news = next(told.as_ref(), found.as_ref(), shared.engine.clock());
                            match news {
                                Some(end @ Observation::Exited(_)) => return Some((end, None)),
                                Some(news) => return Some((news.clone(), Some((shared, hints, Some(news))))),
                                None => shared.news(&mut hints, &id).await,
                            }
                        }
                        // Nothing is known, so nothing is told; whoever waits hears of it from calls that fail.
                        Err(_) => shared.news_or_retry(&mut hints, &id).await,
                    }
                }
            }
        })
        .boxed()
    }

    async fn stop(&self, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError> {
        self.shared.stop(&instance.id, how).await
    }

    async fn signal(&self, instance: &InstanceRef, signal: Signal) -> Result<(), RuntimeError> {
        self.shared.signal_instance(&instance.id, signal).await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError> {
        logs::read(Arc::clone(&self.shared), query).await
    }

    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        // What is made and about to be started is no left-over.
        let _gate = self.shared.gate.write().await;
        self.shared.coming.forget(service);
        for life in self.shared.engine.lives(service, None).await? {
            let id = life.id.unwrap_or_default();
            if let Some(Container { state: State::Ended(_) | State::Created, .. }) =
                self.shared.engine.inspect(&id).await?
            {
                self.shared.engine.remove(&id).await?;
            }
        }
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<ServiceName>, RuntimeError> {
        self.shared.engine.services().await
    }

    async fn exec(&self, instance: &InstanceRef, request: ExecRequest) -> Result<ExecOutcome, RuntimeError> {
        exec::run(&self.shared, instance, request).await
    }

    async fn native_health(&self, instance: &InstanceRef) -> Result<Option<ProbeReport>, RuntimeError> {
        let found = self.shared.engine.details(&instance.id).await?;
        let running =
            |found: &ContainerInspectResponse| found.state.as_ref().is_some_and(|state| state.running == Some(true));
        match found.filter(running) {
            Some(found) => Ok(shown::health(&found)),
            None => Err(RuntimeError::not_started("NotRunning", format!("{} does not run", instance.id))),
        }
    }

    async fn inspect(&self, instance: &InstanceRef) -> Result<Option<serde_json::Value>, RuntimeError> {
        Ok(self.shared.engine.details(&instance.id).await?.as_ref().map(shown::asked))
    }

    async fn deliver(&self, instance: &InstanceRef, file: &Path) -> Result<(), RuntimeError> {
        match self.shared.engine.find(&instance.id).await? {
            Some(Container { id, state: State::Running { .. }, .. }) => {
                files::bring_again(&self.shared.engine, &id, file).await
            }
            _ => Ok(()),
        }
    }
}
