//! What the API says and hears, as types: the server renders them, clients read them.
//!
//! Every key is always there; `null` says "none" or "not known yet". Times are RFC 3339, UTC, to the millisecond.

mod whole;

use std::collections::BTreeMap;

use coredinator_core::{
    DependencyCondition, FieldError, HealthStatus, InstanceId, InstanceState, NodeName, Origin, Outcome, RestartPolicy,
    RuntimeName, ServiceName, ServiceStatus, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
pub use whole::{
    Health, HealthOfService, Leader, Leadership, LeadershipInShort, LeaseTimes, OverallStatus, Reload, Replica,
    ReplicaRole, SystemHealth, SystemMetrics, Version,
};

use super::schema;

/// Whether a service should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It should (an external service: always).
    Running,
    /// It was stopped by hand, or is being deregistered.
    Stopped,
}

/// A service as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name, which is its `service_id`.
    #[schema(value_type = String, example = "corerl")]
    pub name: ServiceName,
    /// The service in one word.
    #[schema(value_type = schema::ServiceStatus)]
    pub status: ServiceStatus,
    /// Why that is its status, for people.
    pub reason: String,
    /// The same, as a `CamelCase` word for programs.
    #[schema(example = "Healthy")]
    pub reason_code: String,
    /// Since when that is its status.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Whether it should run.
    pub desired: Desired,
    /// The host name or address at which it is reached.
    pub host: String,
    /// The port at which it is reached. Where it is declared as 0, that of the first instance which has one, else 0.
    pub port: u16,
    /// The path of its HTTP health check.
    pub health_endpoint: Option<String>,
    /// What happens when an instance ends by itself: `no`, `always`, `on-failure[:max]`, `unless-stopped`.
    #[schema(value_type = String, example = "on-failure:3")]
    pub restart_policy: RestartPolicy,
    /// What runs its instances; `null`: it is external, watched and never started.
    #[schema(value_type = Option<String>, example = "process")]
    pub runtime: Option<RuntimeName>,
    /// The node that it names, or where it was declared: where it runs, if its runtime is one of a single machine.
    #[schema(value_type = Option<String>, example = "plant-a")]
    pub node: Option<NodeName>,
    /// The program and its arguments; empty for an external service.
    pub command: Vec<String>,
    /// How many instances are declared (or scaled to by hand), whether or not it is stopped.
    pub replicas: u32,
    /// How many are in discovery. An external service that is up counts as one.
    pub ready: u32,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// The user's word for what version this is.
    pub version: Option<String>,
    /// What must hold of other services before an instance starts.
    #[schema(value_type = BTreeMap<String, schema::DependencyCondition>)]
    pub depends_on: BTreeMap<ServiceName, DependencyCondition>,
    /// When any of its checks was last made.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_health_check: Option<Timestamp>,
    /// How long its slowest check last took to answer.
    pub response_time_ms: Option<f64>,
    /// When the first of its instances that wait will be started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_restart_at: Option<Timestamp>,
    /// Where it was declared, which decides who may take it away.
    #[schema(value_type = schema::Origin)]
    pub origin: Origin,
    /// When it was first declared.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Rises with every change of its declaration, from 1.
    pub generation: u64,
    /// It was deregistered, and is gone when its instances have stopped.
    pub deleting: bool,
    /// Changes with everything here but check results and uptimes: for `?index=`.
    pub index: u64,
    /// How far its configuration document has come; `null`: it has none.
    pub config: Option<ServiceConfigState>,
    /// Its instances, in the order of their replicas; empty for an external service.
    pub instances: Vec<Instance>,
}

/// How far a service's configuration document has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceConfigState {
    /// The newest revision.
    pub revision: u64,
    /// The newest with which every instance was well; 0: none yet.
    pub stable: u64,
    /// In how many running instances another one is in force than the newest.
    pub drifted: u32,
    /// The newest that failed and was taken back; `null` once there is a newer one that did not.
    pub rejected: Option<RejectedRevision>,
}

/// A revision of a configuration document that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedRevision {
    /// Which.
    pub revision: u64,
    /// Why.
    pub reason: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// An instance and its configuration document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceConfigState {
    /// The revision that it was given.
    pub revision: u64,
    /// The revision that it said is in force in it; `null`: it said nothing in this life.
    pub acknowledged: Option<u64>,
    /// Whether another revision is in force in it than the newest.
    pub drifted: bool,
}

/// One replica of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its current or last life; `null`: it has not lived yet.
    #[schema(value_type = Option<String>)]
    pub id: Option<InstanceId>,
    /// Which replica it is, from 0.
    pub replica: u32,
    /// Where it is in its life.
    #[schema(value_type = schema::InstanceState)]
    pub state: InstanceState,
    /// Why it is there, for people.
    pub reason: String,
    /// The same, as a `CamelCase` word for programs.
    pub reason_code: String,
    /// Since when it is there.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Whether it is in discovery.
    pub ready: bool,
    /// The node on which it lives or lived last; `null`: in a place that every replica of coredinator reaches alike.
    #[schema(value_type = Option<String>, example = "plant-a")]
    pub node: Option<NodeName>,
    /// Its process id, where there is one.
    pub pid: Option<u32>,
    /// Where it is reached.
    pub host: String,
    /// The port at which it is reached; 0 while none is known.
    pub port: u16,
    /// When its current or last life started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// For how long it has been running; `null` while it does not.
    pub uptime_seconds: Option<u64>,
    /// How often it was started again without being asked to, ever.
    pub restarts: u64,
    /// How many of those came in a row, without a good period in between.
    pub attempts: u32,
    /// When it will be started next, while it is in back-off.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_restart_at: Option<Timestamp>,
    /// How its last life ended.
    pub last_exit: Option<LastExit>,
    /// What its health check says, while it runs and has one.
    pub health: Option<CheckSummary>,
    /// What its readiness check says, while it runs and has one.
    pub readiness: Option<CheckSummary>,
    /// Its configuration document, while it runs and has one.
    pub config: Option<InstanceConfigState>,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastExit {
    /// Its exit code; `null` if a signal ended it, or nobody could tell.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory, where that can be known.
    pub oom_killed: bool,
    /// When coredinator learned of it.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// What a check says now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckSummary {
    /// What its answers, with its thresholds, mean.
    #[schema(value_type = schema::HealthStatus)]
    pub status: HealthStatus,
    /// What the last check found, for people; empty if never checked.
    pub message: String,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// When the last check ended; `null`: never checked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_check: Option<Timestamp>,
    /// How long the last answer took; `null`: there was none.
    pub response_time_ms: Option<f64>,
}

/// Services, in the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceList {
    /// Those that were asked for.
    pub services: Vec<Service>,
    /// Hand it back as `page_token` for the next page; empty: this was the last.
    pub next_page_token: String,
}

/// The health of one service, check by check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceHealth {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// The service in one word.
    #[schema(value_type = schema::ServiceStatus)]
    pub status: ServiceStatus,
    /// Why that is its status, for people.
    pub reason: String,
    /// The same, as a `CamelCase` word for programs.
    pub reason_code: String,
    /// Since when that is its status.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When any of its checks was last made.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_check: Option<Timestamp>,
    /// How long its slowest check last took to answer.
    pub response_time_ms: Option<f64>,
    /// Its checks: one for an external service, one or two for each running instance of a managed one.
    pub checks: Vec<Check>,
}

/// What follows from a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Failing takes the instance out of discovery and, with a restart policy, restarts it.
    Health,
    /// Failing only takes it out of discovery.
    Readiness,
}

/// One check and its last results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What follows from it.
    pub kind: CheckKind,
    /// What is done: `http`, `tcp`, `command`, `heartbeat`, or a plugin's word.
    #[schema(example = "http")]
    pub probe: String,
    /// The replica that is checked; `null` for an external service.
    pub replica: Option<u32>,
    /// The instance that is checked; `null` for an external service.
    #[schema(value_type = Option<String>)]
    pub instance_id: Option<InstanceId>,
    /// What it says now.
    #[serde(flatten)]
    pub now: CheckSummary,
    /// Since when it says so; `null`: since ever.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// How often it was made.
    pub checks: u64,
    /// How often it failed.
    pub failures: u64,
    /// Its last results (50 at most), oldest first.
    pub history: Vec<CheckResult>,
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckResult {
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How it ended; `null`: it could not be carried out.
    #[schema(value_type = Option<schema::Outcome>)]
    pub outcome: Option<Outcome>,
    /// How long the answer took; `null`: there was none.
    pub response_time_ms: Option<f64>,
    /// What was found, for people.
    pub message: String,
}

/// Where a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoints {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// The places to which requests can go now; empty: nowhere.
    pub endpoints: Vec<Endpoint>,
}

/// One place to which requests can go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// The instance; `null` for an external service.
    #[schema(value_type = Option<String>)]
    pub instance_id: Option<InstanceId>,
    /// The host name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Both as the start of a URL.
    #[schema(example = "http://localhost:8000")]
    pub url: String,
}

/// Targets of one service for Prometheus' HTTP service discovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrometheusTargets {
    /// `host:port` of each place.
    pub targets: Vec<String>,
    /// `service`, and the service's labels as `__meta_coredinator_label_…`.
    pub labels: BTreeMap<String, String>,
}

/// How many instances should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many; 0 is none.
    #[schema(minimum = 0, maximum = 10000)]
    pub replicas: u32,
}

/// A service's own word on how it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// How it is; `pass` where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Outcome>)]
    pub status: Option<Outcome>,
    /// In its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Which instance speaks: the value of `COREDINATOR_INSTANCE_ID`. Needed where several run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub instance_id: Option<InstanceId>,
}

/// Why a request was not answered as asked (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// `urn:coredinator:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:coredinator:problem:NotFound")]
    pub kind: String,
    /// What the status means.
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// What is the matter this time.
    pub detail: String,
    /// The path that was asked for.
    pub instance: String,
    /// A `CamelCase` word for programs.
    #[schema(example = "NotFound")]
    pub code: String,
    /// The request's `X-Request-Id`, given or made up.
    pub request_id: String,
    /// Whether the same request may succeed later, unchanged.
    pub retryable: bool,
    /// Everything that is wrong with the request, where that can be told field by field. The pointer is a JSON pointer into
    /// the body, or `?` and the name of a query parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::FieldError>)]
    pub errors: Vec<PlacedError>,
}

/// One thing wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedError {
    /// What is wrong, and where.
    #[serde(flatten)]
    pub error: FieldError,
    /// The line of a configuration, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in it, in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

/// What was really asked for a service's instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Inspected {
    /// The service.
    #[schema(value_type = String, example = "corerl")]
    pub service: ServiceName,
    /// What it is declared to run as.
    #[schema(value_type = String, example = "docker")]
    pub runtime: RuntimeName,
    /// Those that live.
    pub instances: Vec<InspectedInstance>,
}

/// What was really asked for one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InspectedInstance {
    /// Which replica of the service it is.
    pub replica: u32,
    /// Its id.
    #[schema(value_type = Option<String>)]
    pub id: Option<InstanceId>,
    /// What runs it.
    #[schema(value_type = String, example = "docker")]
    pub runtime: RuntimeName,
    /// In the words of what runs it; `null`: it knows of no such instance (yet, or any more).
    pub asked: Option<serde_json::Value>,
}
