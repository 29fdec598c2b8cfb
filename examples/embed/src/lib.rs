//! A runtime whose instances are tasks of this process: what it takes to write one of one's own.
//!
//! A runtime does as it is told: it starts, finds, watches and stops, and keeps no restart policy. This one needs little:
//! its instances end with the process, so there is nothing to adopt, and nobody keeps what they print; that it can show what a
//! task was really asked is all that it declares. `docs/custom-runtime.md` builds it in steps.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{
    Exit, FieldError, InstanceId, InstanceRef, LogQuery, LogStream, Observation, ObservationStream, Runtime,
    RuntimeCapabilities, RuntimeError, RuntimeName, ServiceName, ServiceSpec, SharedClock, Signal, StartRequest,
    Started, StopRequest, redacted_variables, unknown_options,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use serde_json::{Value, json};
use tokio::{sync::watch, task::AbortHandle};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

/// A program: gets the service's command without its first word, and is asked to end by the token; answers its exit code.
type Program = Arc<dyn Fn(Vec<String>, CancellationToken) -> BoxFuture<'static, i32> + Send + Sync>;

/// Runs services whose command names one of its programs, each instance as a task.
#[derive(Clone)]
pub struct TaskRuntime {
    clock: SharedClock,
    programs: HashMap<String, Program>,
    tasks: Arc<Mutex<HashMap<InstanceId, Task>>>,
}

struct Task {
    started: Started,
    spec: Arc<ServiceSpec>,
    stop: CancellationToken,
    abort: AbortHandle,
    ended: watch::Receiver<Option<Exit>>,
}

impl TaskRuntime {
    /// A runtime without programs.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, programs: HashMap::new(), tasks: Arc::default() }
    }

    /// Adds a program under the name that commands call it by.
    #[must_use]
    pub fn program<F>(
        mut self,
        name: &str,
        program: impl Fn(Vec<String>, CancellationToken) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = i32> + Send + 'static,
    {
        self.programs.insert(name.to_owned(), Arc::new(move |arguments, stop| program(arguments, stop).boxed()));
        self
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<InstanceId, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Runtime for TaskRuntime {
    fn name(&self) -> RuntimeName {
        RuntimeName::new("task").unwrap_or_else(|error| unreachable!("a DNS label: {error}"))
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities { inspects: true, ..RuntimeCapabilities::default() }
    }

    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        let mut errors = unknown_options(spec, &[]);
        if spec.command.is_empty() {
            errors.push(FieldError::new("/command", "a task needs a command, whose first word names a program"));
        }
        errors
    }

    async fn start(&self, request: StartRequest) -> Result<Started, RuntimeError> {
        let name = request.spec.command.first().map_or("", String::as_str);
        let not_found = || RuntimeError::not_started("CommandNotFound", format!("there is no program {name:?}"));
        let program = self.programs.get(name).ok_or_else(not_found)?;
        let mut tasks = self.tasks();
        if let Some(task) = tasks.get(&request.id) {
            return Ok(task.started.clone());
        }
        let StartRequest { id, replica, spec, .. } = request;
        let stop = CancellationToken::new();
        let (ended, is_ended) = watch::channel(None);
        let run = AssertUnwindSafe(program(spec.command[1..].to_vec(), stop.clone())).catch_unwind();
        let task = tokio::spawn(async move { run.await.unwrap_or(101) });
        let abort = task.abort_handle();
        let clock = Arc::clone(&self.clock);
        tokio::spawn(async move {
            // An error says that the task was aborted, which is what a kill is here.
            let (code, signal) = task.await.map_or((None, Some(9)), |code| (Some(code), None));
            ended.send_replace(Some(Exit { code, signal, oom_killed: false, why: None, at: clock.now() }));
        });
        let instance = InstanceRef { id: id.clone(), service: spec.name.clone(), replica, handle: None };
        let started = Started {
            instance,
            pid: None,
            host: spec.host.clone(),
            port: spec.port,
            started_at: self.clock.now(),
            running: true,
        };
        tasks.insert(id, Task { started: started.clone(), spec, stop, abort, ended: is_ended });
        Ok(started)
    }

    async fn list(&self, _known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        let tasks = self.tasks();
        Ok(tasks.values().filter(|task| task.ended.borrow().is_none()).map(|task| task.started.clone()).collect())
    }

    fn watch(&self, instance: &InstanceRef) -> ObservationStream {
        let known = self.tasks().get(&instance.id).map(|task| (task.started.clone(), task.ended.clone()));
        let Some((started, ended)) = known else {
            let exit = Exit { code: None, signal: None, oom_killed: false, why: None, at: self.clock.now() };
            return stream::once(async { Observation::Exited(exit) }).boxed();
        };
        let observed = WatchStream::new(ended)
            .map(move |ended| ended.map_or_else(|| Observation::Running(started.clone()), Observation::Exited));
        // The stream ends with the exit, whether or not somebody goes on to ask.
        let mut over = false;
        observed
            .take_while(move |observation| {
                let go_on = !over;
                over = matches!(observation, Observation::Exited(_));
                std::future::ready(go_on)
            })
            .boxed()
    }

    async fn stop(&self, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError> {
        let found =
            self.tasks().get(&instance.id).map(|task| (task.stop.clone(), task.abort.clone(), task.ended.clone()));
        let Some((stop, abort, mut ended)) = found else { return Ok(()) };
        stop.cancel();
        let grace = if how.signal == Signal::Kill { Duration::ZERO } else { how.grace };
        // An error says that its keeper is gone, and the task with it.
        if tokio::time::timeout(grace, ended.wait_for(Option::is_some)).await.is_err() {
            abort.abort();
            let _ = ended.wait_for(Option::is_some).await;
        }
        Ok(())
    }

    async fn logs(&self, _query: LogQuery) -> Result<LogStream, RuntimeError> {
        Err(RuntimeError::Unsupported { runtime: self.name(), what: "logs" })
    }

    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        self.tasks().retain(|_, task| task.started.instance.service != *service);
        Ok(())
    }

    async fn inspect(&self, instance: &InstanceRef) -> Result<Option<Value>, RuntimeError> {
        Ok(self.tasks().get(&instance.id).map(|task| {
            let variables = task.spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            json!({"program": task.spec.command, "environment": redacted_variables(variables)})
        }))
    }
}
