//! The runtime itself: the trait over [`Shared`].

use std::sync::Arc;

use async_trait::async_trait;
use coredinator_core::{
    FieldError, InstanceRef, LogQuery, LogStream, Observation, ObservationStream, Runtime, RuntimeCapabilities,
    RuntimeError, RuntimeName, Scope, ServiceName, ServiceSpec, StartRequest, Started, StopRequest,
};
use futures_util::{StreamExt, stream};

use crate::{
    config::DockerRuntimeOptions,
    logs,
    options::DockerOptions,
    shared::{self, Shared},
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
        RuntimeCapabilities { scope: Scope::NodeLocal, adopts: true, exit_of_adopted: true, logs: true }
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

    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError> {
        logs::read(Arc::clone(&self.shared), query).await
    }

    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
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
}
