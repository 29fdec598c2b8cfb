//! The contract of what runs instances: processes, containers, pods.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigAction, ExecOutcome, ExecRequest, Exit, FieldError, HealthCheck, InstanceId, ProbeReport, ProbeSpec,
    RuntimeName, ServiceName, ServiceSpec, Signal, Timestamp,
};

/// What a runtime is asked to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The life to start, coined and stored by the caller before.
    pub id: InstanceId,
    /// Which replica of the service it is, from 0.
    pub replica: u32,
    /// The service.
    pub spec: Arc<ServiceSpec>,
    /// The port that the replica had before, to be allocated again if `spec.port` is 0 and it is free.
    pub preferred_port: Option<u16>,
    /// Variables that coredinator adds to the spec's environment (`COREDINATOR_…`), which win over it.
    /// `COREDINATOR_CONFIG_FILE` names a file of this machine: a runtime whose instances do not see those brings the file to
    /// them before they start, and names the place where they find it instead.
    pub environment: BTreeMap<String, String>,
}

/// An instance as its runtime knows it: enough to find it, stop it and watch it.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRef {
    /// Its id.
    pub id: InstanceId,
    /// The service it belongs to.
    pub service: ServiceName,
    /// Which replica of the service it is.
    pub replica: u32,
    /// What [`Runtime::start`] answered for it; `None` if coredinator died before it could be stored.
    pub handle: Option<serde_json::Value>,
}

/// An instance that a runtime has started, or taken on to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// The instance, with its handle.
    pub instance: InstanceRef,
    /// Its process id, where there is one on this machine.
    pub pid: Option<u32>,
    /// Where it is reached.
    pub host: String,
    /// The port at which it is reached; 0 if it has none.
    pub port: u16,
    /// When it started.
    pub started_at: Timestamp,
    /// Whether it runs already. `false`: it has been taken on, the fields above say what is known so far, and
    /// [`Observation::Running`] tells the rest.
    pub running: bool,
}

/// What became of an instance, as its runtime saw it.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// It is there but does not run yet, and this is why (an image is being pulled, no node has room).
    Waiting(crate::Reason),
    /// It runs, here. `running` is true.
    Running(Started),
    /// It ended, and what runs it has started it again by itself, in place: the same instance goes on. That is counted, and
    /// nothing else is done about it.
    Restarted {
        /// It runs, as with [`Running`](Self::Running).
        started: Started,
        /// How often that has happened since it was last told; at least 1.
        times: u32,
        /// How it ended the last time, where that is known.
        last: Option<Exit>,
    },
    /// It ended. The last observation of an instance.
    Exited(Exit),
    /// It had been taken on and could not be started after all; nothing of it is left. The last observation of an instance.
    NotStarted(crate::Reason),
}

/// How an instance is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRequest {
    /// Sent first, to all of its processes.
    pub signal: Signal,
    /// How long it may take over that before it is killed. 0: it is killed at once.
    pub grace: Duration,
}

impl StopRequest {
    /// Kills at once.
    pub const KILL: Self = Self { signal: Signal::Kill, grace: Duration::ZERO };

    /// What the spec says.
    #[must_use]
    pub fn from_spec(spec: &ServiceSpec) -> Self {
        Self { signal: spec.stop_signal, grace: spec.stop_grace_period }
    }
}

/// One of an instance's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which lines of a service's output are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// The service.
    pub service: ServiceName,
    /// One replica; `None` for all.
    pub replica: Option<u32>,
    /// At most this many of the newest lines of each replica; `None` for all that are kept.
    pub tail: Option<usize>,
    /// No lines written before; more may be told where the runtime does not know to the line.
    pub since: Option<Timestamp>,
    /// Whether to go on with new lines as they are written, over restarts of the instance too.
    pub follow: bool,
}

/// A line of an instance's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The replica that wrote it.
    pub replica: u32,
    /// Where it wrote it.
    pub stream: OutputStream,
    /// When, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The line without its end; what is not UTF-8 is replaced.
    pub line: String,
}

/// Whether an instance lives on this machine or in a place that every replica of coredinator reaches alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// On the machine of the coredinator that started it.
    #[default]
    NodeLocal,
    /// Wherever; whoever leads looks after it.
    Cluster,
}

/// What a runtime can do beyond what all must; the conformance suite chooses its cases by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuntimeCapabilities {
    /// Where its instances live.
    pub scope: Scope,
    /// Instances outlive the runtime's own process, and a new one finds them by [`Runtime::list`].
    pub adopts: bool,
    /// The exit code of an adopted instance is known.
    pub exit_of_adopted: bool,
    /// It keeps the output of instances.
    pub logs: bool,
    /// It runs commands inside of instances: [`Runtime::exec`].
    pub exec: bool,
    /// What runs its instances checks their health by itself and tells: [`Runtime::native_health`].
    pub native_health: bool,
    /// It shows what was really asked for an instance: [`Runtime::inspect`].
    pub inspects: bool,
    /// It can send signals to instances: [`Runtime::signal`].
    pub signals: bool,
}

/// Why a runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The instance could not be started, and this is why (no such program, no such image). Worth trying again later:
    /// what is missing may appear.
    #[error("{reason}")]
    NotStarted {
        /// What is the matter; its code is a `CamelCase` word such as `CommandNotFound`.
        reason: crate::Reason,
    },
    /// What runs instances cannot be reached (no Docker engine, no API server). Worth trying again; nothing is known of
    /// the instances meanwhile.
    #[error("runtime {runtime} is unavailable: {message}")]
    Unavailable {
        /// The runtime.
        runtime: RuntimeName,
        /// What is the matter.
        message: String,
    },
    /// It does not do this.
    #[error("runtime {runtime} does not support {what}")]
    Unsupported {
        /// The runtime.
        runtime: RuntimeName,
        /// What it was asked.
        what: &'static str,
    },
    /// Something that should not happen did.
    #[error("{message}")]
    Internal {
        /// What was being done.
        message: String,
        /// What went wrong.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl RuntimeError {
    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Unsupported { .. })
    }

    /// A [`NotStarted`](Self::NotStarted).
    pub fn not_started(code: &str, message: impl Into<String>) -> Self {
        Self::NotStarted { reason: crate::Reason::new(code, message) }
    }

    /// An [`Internal`](Self::Internal) with its cause.
    pub fn internal(message: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal { message: message.into(), source: Some(Box::new(source)) }
    }
}

/// Lines of output, oldest first.
pub type LogStream = BoxStream<'static, Result<LogLine, RuntimeError>>;

/// What an instance does from now on: its state at once, then every change, ended by [`Observation::Exited`] or
/// [`Observation::NotStarted`].
pub type ObservationStream = BoxStream<'static, Observation>;

/// Starts, finds, watches and stops instances of one kind.
///
/// The supervisor decides what should run; a runtime only does it. It keeps no restart policy of its own. Calls about
/// different instances may come at the same time, calls about one instance come one after the other (except
/// [`watch`](Self::watch), which goes on beside them, and a second, more urgent [`stop`](Self::stop)).
/// Implementors run [`conformance::runtime`](crate::conformance::runtime).
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The name by which specs choose it.
    fn name(&self) -> RuntimeName;

    /// What it can do beyond what all must.
    fn capabilities(&self) -> RuntimeCapabilities;

    /// Checks what a spec asks of this runtime, its `options` above all; pointers are relative to the spec. Pure: it
    /// looks at nothing but the spec, so that a file can be checked on another machine.
    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError>;

    /// Starts an instance and answers when it runs, or, where that can take long, when the runtime has taken it on: then
    /// [`Started::running`] is false, and [`watch`](Self::watch) tells the rest.
    ///
    /// To ensure correctness:
    /// - what is started carries the id, the service and this coredinator's identity where a later
    ///   [`list`](Self::list) finds them, from the first instant it exists;
    /// - an id that runs already is answered, not started twice;
    /// - when it fails, nothing of the instance is left.
    ///
    /// # Errors
    /// [`RuntimeError::NotStarted`] with the reason; [`RuntimeError::Unavailable`], after which the instance may or may not
    /// run, and [`list`](Self::list) tells.
    async fn start(&self, request: StartRequest) -> Result<Started, RuntimeError>;

    /// Takes note of a service that is declared to run here: instances of it may live where its spec says although nothing that is
    /// stored tells so, such as one whose start met a crash. Told of every such service before [`list`](Self::list) is asked.
    fn declared(&self, _spec: &ServiceSpec) {}

    /// Finds every living instance that this coredinator started: those of `known` that are alive, and any other that
    /// carries this coredinator's identity, such as one whose start met a crash before its handle could be stored.
    ///
    /// To ensure correctness:
    /// - it answers nothing that somebody else started, whatever the handles in `known` say: a process id may have been
    ///   given to another process since, a name to another container;
    /// - it leaves out what has ended, and ends what is left of an instance whose main process is gone;
    /// - an instance that it answers can be watched and stopped exactly as one that was just started.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`]: nothing is known, and nothing may be concluded about any instance.
    async fn list(&self, known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError>;

    /// Watches one instance. One that is not there (any more) is answered by [`Observation::Exited`], with what is known
    /// of its end.
    ///
    /// To ensure correctness:
    /// - the end is told by the kernel or the engine, not found by polling, and only when nothing of the instance is left
    ///   (processes that outlive their leader are ended first);
    /// - dropping the stream touches nothing.
    fn watch(&self, instance: &InstanceRef) -> ObservationStream;

    /// Ends an instance: its signal, its grace, then the kill; answers when nothing of it is left. One that is gone
    /// already is no error. A second call while the first waits may only hurry it.
    ///
    /// To ensure correctness: nothing but the instance is touched, even if its process id or name is another's by now.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`], [`RuntimeError::Internal`]: something of it may be left.
    async fn stop(&self, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError>;

    /// Sends a signal to an instance's main process, and answers when it has been sent. One that is gone is no error: its
    /// end is told by [`watch`](Self::watch).
    ///
    /// To ensure correctness: nothing but the instance is touched, even if its process id or name is another's by now.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] without [`RuntimeCapabilities::signals`]; [`RuntimeError::Unavailable`].
    async fn signal(&self, instance: &InstanceRef, signal: Signal) -> Result<(), RuntimeError> {
        let _ = (instance, signal);
        Err(RuntimeError::Unsupported { runtime: self.name(), what: "signals" })
    }

    /// Reads a service's output. Without `follow` the stream ends with the newest line.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] without [`RuntimeCapabilities::logs`].
    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError>;

    /// Forgets whatever is kept of a service that no longer exists (its output above all). Its instances have ended.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`], [`RuntimeError::Internal`].
    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError>;

    /// The services of which something is kept that is known to be this coredinator's, and that [`forget`](Self::forget) would
    /// take away. So that what a service left behind which was deregistered while the runtime was away is found later.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`], [`RuntimeError::Internal`].
    async fn kept(&self) -> Result<Vec<ServiceName>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Runs a command inside an instance: where the instance's own program would see the same files, network and variables.
    ///
    /// To ensure correctness:
    /// - the caller sets the time limit and drops the future at its end: the command is given up then, and ended where it
    ///   can be reached; what cannot be reached is bounded in number, so that hung commands do not pile up;
    /// - what it writes is read in bounded amount.
    ///
    /// # Errors
    /// [`RuntimeError::NotStarted`]: there is no such instance (any more), or no such program in it.
    /// [`RuntimeError::Unsupported`] without [`RuntimeCapabilities::exec`]. [`RuntimeError::Unavailable`].
    async fn exec(&self, _instance: &InstanceRef, _request: ExecRequest) -> Result<ExecOutcome, RuntimeError> {
        Err(RuntimeError::Unsupported { runtime: self.name(), what: "commands inside of instances" })
    }

    /// What the engine that runs an instance says of its health, by checks of its own. `None`: it has not said anything yet,
    /// or checks nothing.
    ///
    /// # Errors
    /// [`RuntimeError::NotStarted`]: there is no such instance (any more). [`RuntimeError::Unsupported`] without
    /// [`RuntimeCapabilities::native_health`]. [`RuntimeError::Unavailable`].
    async fn native_health(&self, _instance: &InstanceRef) -> Result<Option<ProbeReport>, RuntimeError> {
        Err(RuntimeError::Unsupported { runtime: self.name(), what: "health checks of its own" })
    }

    /// What was really asked for an instance, in the words of whatever runs it: the process, the container, the pod. An
    /// object; what may be secret in it is [`redacted`](crate::redacted). `None`: there is no such instance (any more).
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] without [`RuntimeCapabilities::inspects`]. [`RuntimeError::Unavailable`].
    async fn inspect(&self, _instance: &InstanceRef) -> Result<Option<serde_json::Value>, RuntimeError> {
        Err(RuntimeError::Unsupported { runtime: self.name(), what: "inspection" })
    }

    /// The file that `COREDINATOR_CONFIG_FILE` named when the instance started has other content now, on this machine: brings
    /// it to the instance. Nothing is to be done where instances see this machine's files.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`], [`RuntimeError::Internal`]: the instance has the old content.
    async fn deliver(&self, _instance: &InstanceRef, _file: &Path) -> Result<(), RuntimeError> {
        Ok(())
    }
}

impl fmt::Debug for dyn Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runtime").field(&self.name()).finish()
    }
}

/// Checks what a spec asks of its runtime: as the runtime's own [`validate`](Runtime::validate) does, that it has a health of
/// its own where a check relies on that, and that it sends signals where the spec asks for them. Pointers are relative to the spec.
#[must_use]
pub fn validate_spec(runtime: &dyn Runtime, spec: &ServiceSpec) -> Vec<FieldError> {
    let mut errors = runtime.validate(spec);
    let native = |check: &Option<HealthCheck>| check.as_ref().is_some_and(|check| check.probe == ProbeSpec::Native);
    for (key, check) in [("health_check", &spec.health_check), ("readiness_check", &spec.readiness_check)] {
        if native(check) && !runtime.capabilities().native_health {
            let detail = format!("runtime {} has no health checks of its own", runtime.name());
            errors.push(FieldError::new(format!("/{key}/kind"), detail));
        }
    }
    let signals = spec.config.layer.is_some() && spec.config.change.action == ConfigAction::Signal;
    if signals && !runtime.capabilities().signals {
        let detail = format!("runtime {} cannot send signals", runtime.name());
        errors.push(FieldError::new("/config_change/action", detail).with_hint("action: http, or restart"));
    }
    errors
}

/// The options that `spec` holds and no runtime understands, as errors: what [`Runtime::validate`] answers for them.
#[must_use]
pub fn unknown_options(spec: &ServiceSpec, known: &[&str]) -> Vec<FieldError> {
    spec.options
        .keys()
        .filter(|key| !key.starts_with("x-") && !known.contains(&key.as_str()))
        .map(|key| FieldError::unknown("", key, &[known, ServiceSpec::KEYS].concat()))
        .collect()
}
