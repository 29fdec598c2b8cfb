//! The runtime itself: the trait over [`Shared`].

use std::sync::Arc;

use async_trait::async_trait;
use coredinator_core::{
    ExecOutcome, ExecRequest, Exit, FieldError, InstanceRef, LogQuery, LogStream, Observation, ObservationStream,
    Runtime, RuntimeCapabilities, RuntimeError, RuntimeName, Scope, ServiceName, ServiceSpec, StartRequest, Started,
    StopRequest, unknown_options,
};
use futures_util::{StreamExt, stream};
use rustix::process::Signal;
use tokio::{runtime::Handle, sync::RwLock, time::Instant};
use tracing::warn;

use crate::{
    census::Found,
    exec::{self, Surroundings},
    instance::VANISH,
    logs,
    options::ProcessRuntimeOptions,
    pidfd::PidFd,
    shared::{Place, Shared},
};

/// Runs instances as processes of this machine. Cheap to clone; all clones are one runtime.
///
/// To be used within a tokio runtime with its I/O driver on; the tasks that wait for instances run where they were started.
/// Dropping it touches no instance.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    shared: Arc<Shared>,
    /// A look through all processes waits for starts under way, and they for it: a process that is there but not yet noted is
    /// neither adopted twice nor taken for a left-over.
    gate: Arc<RwLock<()>>,
    keeps_exits: bool,
}

impl ProcessRuntime {
    /// The name under which it is registered: `process`.
    pub const NAME: &str = "process";

    /// Makes a runtime; touches no process and no file.
    ///
    /// # Errors
    /// [`RuntimeError::Internal`] where there is no Linux `/proc`.
    pub fn new(options: ProcessRuntimeOptions) -> Result<Self, RuntimeError> {
        let shared = Arc::new(Shared::new(options)?);
        Ok(Self { shared, gate: Arc::default(), keeps_exits: PidFd::keeps_exits() })
    }

    /// Runs `work` where it may block. It goes on to its end even if the caller goes away, so that no process is started and
    /// then forgotten.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let (shared, runtime) = (Arc::clone(&self.shared), Handle::current());
        let turn = self.shared.turn().await;
        let work = move || {
            let _turn = turn;
            let _context = runtime.enter();
            work(&shared)
        };
        let failed = |error| RuntimeError::internal("the runtime is shutting down", error);
        tokio::task::spawn_blocking(work).await.map_err(failed)?
    }

    async fn resolve(&self, instance: InstanceRef) -> Result<Place, RuntimeError> {
        if let Some(running) = self.shared.living(&instance.id) {
            return Ok(Place::Running(running));
        }
        let gate = Arc::clone(&self.gate).read_owned().await;
        self.blocking(move |shared| {
            let _gate = gate;
            shared.resolve(&instance)
        })
        .await
    }

    /// Waits for an instance's end, wherever it is in its life.
    async fn end_of(&self, instance: InstanceRef) -> Exit {
        match self.resolve(instance).await {
            Ok(Place::Running(running)) => running.ended().await,
            Ok(Place::Ended(exit)) => exit,
            Ok(Place::Gone(remains)) => {
                end(remains).await;
                self.unknown_end()
            }
            Err(error) => {
                warn!(%error, "cannot look for an instance");
                self.unknown_end()
            }
        }
    }

    fn unknown_end(&self) -> Exit {
        Exit { code: None, signal: None, oom_killed: false, why: None, at: self.shared.clock.now() }
    }
}

/// Kills what is left of instances whose leader is gone, and waits until it is. Answers whether it is.
async fn end(mut remains: Vec<Found>) -> bool {
    let deadline = Instant::now() + VANISH;
    loop {
        // Each is held by its descriptor; whoever cannot be signalled any more is gone.
        remains.retain(|found| found.fd.signal(Signal::KILL).is_ok() && found.is_alive());
        if remains.is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn name(&self) -> RuntimeName {
        RuntimeName::new(Self::NAME).unwrap_or_else(|_| unreachable!("a DNS label"))
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            scope: Scope::NodeLocal,
            adopts: true,
            exit_of_adopted: self.keeps_exits,
            logs: true,
            exec: true,
            native_health: false,
            inspects: true,
            signals: true,
        }
    }

    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        let mut errors = unknown_options(spec, &[]);
        if spec.command.is_empty() {
            errors.push(FieldError::new("/command", "a service that runs as a process needs a command"));
        }
        errors
    }

    async fn start(&self, request: StartRequest) -> Result<Started, RuntimeError> {
        let gate = Arc::clone(&self.gate).read_owned().await;
        self.blocking(move |shared| {
            let _gate = gate;
            shared.start(&request)
        })
        .await
    }

    async fn list(&self, known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        let (known, gate) = (known.to_vec(), Arc::clone(&self.gate).write_owned().await);
        let (started, left) = self
            .blocking(move |shared| {
                let _gate = gate;
                shared.list(&known)
            })
            .await?;
        end(left).await;
        Ok(started)
    }

    fn watch(&self, instance: &InstanceRef) -> ObservationStream {
        let (runtime, instance) = (self.clone(), instance.clone());
        let first = async move {
            match runtime.resolve(instance.clone()).await {
                Ok(Place::Running(running)) => {
                    let now = Observation::Running(running.to_started());
                    let end = async move { Observation::Exited(running.ended().await) };
                    stream::iter([now]).chain(stream::once(end)).boxed()
                }
                _ => stream::once(async move { Observation::Exited(runtime.end_of(instance).await) }).boxed(),
            }
        };
        stream::once(first).flatten().boxed()
    }

    async fn stop(&self, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError> {
        let gone = match self.resolve(instance.clone()).await? {
            Place::Running(running) => running.stop(how).await,
            Place::Ended(_) => true,
            Place::Gone(remains) => end(remains).await,
        };
        let survives = || RuntimeError::Internal {
            message: format!("processes of {} survive SIGKILL", instance.id),
            source: None,
        };
        gone.then_some(()).ok_or_else(survives)
    }

    async fn signal(&self, instance: &InstanceRef, signal: coredinator_core::Signal) -> Result<(), RuntimeError> {
        if let Place::Running(running) = self.resolve(instance.clone()).await? {
            running.send(signal);
        }
        Ok(())
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError> {
        logs::read(Arc::clone(&self.shared.logs), Arc::clone(&self.shared.clock), query).await
    }

    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        let service = service.clone();
        let failed = |error| RuntimeError::internal("cannot remove the logs", error);
        self.blocking(move |shared| shared.logs.forget(&service).map_err(failed)).await
    }

    async fn exec(&self, instance: &InstanceRef, request: ExecRequest) -> Result<ExecOutcome, RuntimeError> {
        let not_running = || RuntimeError::not_started("NotRunning", format!("{} does not run", instance.id));
        let Place::Running(running) = self.resolve(instance.clone()).await? else { return Err(not_running()) };
        let asked = Arc::clone(&running);
        let surroundings = self.blocking(move |_| Ok(Surroundings::of(&asked))).await?;
        exec::run(&running, surroundings.ok_or_else(not_running)?, request).await
    }

    async fn inspect(&self, instance: &InstanceRef) -> Result<Option<serde_json::Value>, RuntimeError> {
        let Place::Running(running) = self.resolve(instance.clone()).await? else { return Ok(None) };
        self.blocking(move |_| Ok(exec::inspect(&running))).await
    }
}
