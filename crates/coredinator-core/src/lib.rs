//! Contracts of coredinator, the control plane for fleets of reinforcement-learning services that share one plant.
//!
//! A plugin author depends on this crate alone. It holds
//! - the traits that plugins implement: [`Runtime`] (where instances run), [`HealthProbe`] (one health check), [`Store`]
//!   (the state of the world), [`ConfigValidator`] (whether a configuration document will do);
//! - the domain types they speak in, parsed at the boundary so that one which exists is valid: [`ServiceName`],
//!   [`ServiceSpec`], [`RestartPolicy`], [`HealthCheck`], …;
//! - with the feature `conformance`, a public suite for each of these that runs or keeps anything; with the feature `mock`, a
//!   mock of each but [`CoordinationStrategy`](coordination::CoordinationStrategy), for which a unit struct with `name` and
//!   `resolve` does.
//!
//! It does no I/O, starts no task and names no HTTP, SQL or container library.

pub mod clock;
pub mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod coordination;
mod dependency;
pub mod duration;
pub mod field;
mod health;
mod inside;
mod name;
mod probe;
mod restart;
mod revision;
mod runtime;
mod service;
pub mod size;
mod status;
mod store;
mod text;
mod validator;

pub use clock::{Clock, SharedClock, SystemClock, Timestamp};
pub use config::{ConfigAction, ConfigChange, ServiceConfig};
pub use dependency::{Dependency, DependencyCondition, DependencyCycle, DependencyGraph};
pub use field::{FieldError, FieldErrors};
pub use health::{CheckTiming, Fallback, HealthCheck, HealthStatus, HttpCheck, ProbeSpec, StatusRange};
pub use inside::{ExecOutcome, ExecRequest, REDACTED, is_secret, redacted, redacted_variables, without_nothing};
pub use name::{InstanceId, InvalidName, NodeName, RuntimeName, ServiceName};
pub use probe::{HealthProbe, Outcome, ProbeError, ProbeReport, ProbeTarget};
pub use restart::{Backoff, InvalidRestartPolicy, RestartBudget, RestartPolicy};
pub use revision::{Epoch, Revision};
pub use runtime::{
    InstanceRef, LogLine, LogQuery, LogStream, Observation, ObservationStream, OutputStream, Runtime,
    RuntimeCapabilities, RuntimeError, Scope, StartRequest, Started, StopRequest, unknown_options, validate_spec,
};
pub use service::{LogRetention, ServiceSpec, Signal, SpecDefaults};
pub use status::{
    ConfigAck, ConfigRollout, Event, Exit, InstanceRecord, InstanceState, Intent, Origin, Reason, RejectedConfig,
    ServiceRecord, ServiceStatus, Severity,
};
pub use store::{
    Batch, Change, ChangeStream, Fence, InvalidKey, Key, Lease, LeaseOperation, Listing, Operation, Precondition,
    Record, Store, StoreCapabilities, StoreCheck, StoreCheckOutcome, StoreConnections, StoreError, StoreLatency,
    StoreStatus,
};
pub use text::command as parse_command;
pub use validator::{ConfigCandidate, ConfigValidator, ConfigValidatorError, ConfigVerdict};

#[cfg(feature = "mock")]
pub use {probe::MockHealthProbe, runtime::MockRuntime, store::MockStore, validator::MockConfigValidator};
