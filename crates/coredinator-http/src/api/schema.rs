//! Schemas, for the API's description alone, of types that the contracts' crate owns, which knows nothing of OpenAPI.
//! Tests hold them against the real ones.

#![expect(dead_code, reason = "these types are described, never made")]

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

/// A service in one word.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ServiceStatus {
    /// Every wanted instance runs and passes its checks.
    Healthy,
    /// Some instance is in discovery, but not all are well.
    Degraded,
    /// None is in discovery, and at least one failed its checks.
    Unhealthy,
    /// On the way up.
    Starting,
    /// No instance runs; the next start has its time.
    Backoff,
    /// Stopped (or stopping) because somebody asked for it, or scaled to 0.
    Stopped,
    /// Ran to its end with success.
    Completed,
    /// Ended, and will not be started again unless by hand.
    Failed,
    /// Nothing is known yet.
    Unknown,
}

/// Where one replica is in its life.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum InstanceState {
    Pending,
    Starting,
    Running,
    Backoff,
    Stopping,
    Stopped,
    Completed,
    Failed,
}

/// What the answers of a check mean.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum HealthStatus {
    Healthy,
    Degraded,
    Unknown,
    Unhealthy,
}

/// How a check ended.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Pass,
    Warn,
    Fail,
}

/// Where a service was declared.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// In the configuration file: gone when the file no longer names it.
    File,
    /// By an update of the configuration: gone when one no longer names it.
    Config,
    /// Through the API: gone when it is deregistered.
    Api,
}

/// Whether an event is business as usual.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    Normal,
    /// Somebody should look.
    Warning,
}

/// An output stream of an instance.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputStream {
    Stdout,
    Stderr,
}

/// What must hold of a dependency before its dependents start: that it was started, `required` or not, and its condition.
#[derive(Deserialize, ToSchema)]
pub(super) struct Dependency {
    condition: Option<DependencyCondition>,
    /// `false`: a dependency that does not exist or has failed for good is passed over with a warning.
    required: Option<bool>,
}

/// What a dependency must have reached before its dependents start.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the words are Compose's")]
pub(super) enum DependencyCondition {
    /// Every replica has been started.
    ServiceStarted,
    /// Every replica is healthy.
    ServiceHealthy,
    /// It ended, with a success exit code.
    ServiceCompletedSuccessfully,
}

/// One thing wrong with a request, and where.
#[derive(Deserialize, ToSchema)]
pub(super) struct FieldError {
    /// JSON pointer into the body, or `?` and the name of a query parameter.
    #[schema(example = "/port")]
    pointer: String,
    /// What is wrong.
    detail: String,
    /// What to write instead, where that can be guessed.
    hint: Option<String>,
    /// The line of a configuration, from 1.
    #[schema(nullable = false)]
    line: Option<usize>,
    /// The column in it, in characters, from 1.
    #[schema(nullable = false)]
    column: Option<usize>,
}

/// Something that happened.
#[derive(Deserialize, ToSchema)]
pub(super) struct Event {
    /// Its number: rises with every event, never used again.
    id: u64,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    at: String,
    /// The service it is about.
    service: String,
    /// The replica it is about, if it is about one.
    #[schema(nullable = false)]
    replica: Option<u32>,
    /// The life it is about, if it is about one.
    #[schema(nullable = false)]
    instance: Option<String>,
    severity: Severity,
    /// What happened, as a `CamelCase` word.
    #[schema(example = "Started")]
    code: String,
    /// What happened, for people.
    message: String,
    /// The store's revision with which it became visible.
    revision: u64,
}

/// The newest events, oldest first.
#[derive(Deserialize, ToSchema)]
pub(super) struct EventList {
    events: Vec<Event>,
}

/// A line of an instance's output, as the data of a server-sent event.
#[derive(Deserialize, ToSchema)]
pub(super) struct LogLine {
    replica: u32,
    stream: OutputStream,
    /// When, as far as is known.
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    at: Option<String>,
    line: String,
}

/// A number of seconds, or a text with units such as `250ms` or `1m30s`.
#[derive(Deserialize, ToSchema)]
#[schema(example = 0.5)]
#[serde(untagged)]
pub(super) enum Seconds {
    Number(f64),
    Text(String),
}

/// A program and its arguments: a list, or one text that is split at white space outside quotes.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!(["./corerl", "--port", "{port}"]))]
#[serde(untagged)]
pub(super) enum CommandLine {
    List(Vec<String>),
    Line(String),
}

/// The pauses between restarts: none before the first, then exponential with jitter up to a cap.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Backoff {
    initial: Option<Seconds>,
    max: Option<Seconds>,
    #[schema(minimum = 1)]
    factor: Option<f64>,
    #[schema(minimum = 0, maximum = 1)]
    jitter: Option<f64>,
    reset_after: Option<Seconds>,
}

/// How many restarts are too many.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestartBudget {
    /// 0 is no limit.
    #[schema(minimum = 0, maximum = 1000)]
    attempts: Option<u32>,
    window: Option<Seconds>,
}

/// How much of an instance's output is kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logs {
    /// In bytes, of one file.
    #[schema(minimum = 4096)]
    max_size: Option<u64>,
    #[schema(minimum = 1, maximum = 1000)]
    max_files: Option<u32>,
}

/// What is asked, when, and what it takes to change one's mind. The kind follows from what is there: `command`, `ttl`, or
/// `path`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthCheck {
    /// `http`, `tcp`, `command`, `heartbeat`, or a plugin's word.
    kind: Option<String>,
    interval: Option<Seconds>,
    timeout: Option<Seconds>,
    /// Failures in a row that make an instance unhealthy.
    #[schema(minimum = 1)]
    retries: Option<u32>,
    /// Passes in a row that make an unhealthy instance healthy again.
    #[schema(minimum = 1)]
    success_threshold: Option<u32>,
    start_period: Option<Seconds>,
    start_interval: Option<Seconds>,
    #[schema(minimum = 0, maximum = 1)]
    jitter: Option<f64>,
    /// No check at all.
    disable: Option<bool>,
    #[schema(pattern = "^/")]
    path: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    /// Statuses or ranges of them, such as `204` or `"200-299"`.
    expected_status: Option<Vec<serde_json::Value>>,
    expected_headers: Option<BTreeMap<String, String>>,
    expected_body: Option<String>,
    command: Option<CommandLine>,
    /// Of a heartbeat: silence for longer than this is a failure.
    ttl: Option<Seconds>,
    /// Of a plugin's probe.
    options: Option<BTreeMap<String, serde_json::Value>>,
}

/// A service's document. `name`, `host`, `port` and `health_endpoint` suffice for an external service, which is watched and
/// never started; one with a `runtime` is managed, and may carry keys of that runtime and `x-…` keys beside these.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"name": "corerl", "host": "localhost", "port": 8000, "health_endpoint": "/api/corerl/health"}))]
pub(super) struct ServiceDocument {
    /// A DNS label.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    name: String,
    /// What starts its instances, such as `process`.
    runtime: Option<String>,
    /// The node on which it runs, where its runtime is one of a single machine; where it is declared, if none is named.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    node: Option<String>,
    command: Option<CommandLine>,
    /// Variables added to an instance's environment; or a list of `KEY=VALUE`.
    environment: Option<BTreeMap<String, String>>,
    working_dir: Option<String>,
    #[schema(default = "localhost")]
    host: Option<String>,
    /// 0 (managed services only): a free one is allocated for each instance.
    #[schema(default = 0)]
    port: Option<u16>,
    #[schema(pattern = "^/")]
    health_endpoint: Option<String>,
    health_check: Option<HealthCheck>,
    /// A further check that decides only whether it is in discovery.
    readiness_check: Option<HealthCheck>,
    /// `no`, `always`, `on-failure[:max]` or `unless-stopped`.
    #[schema(pattern = "^(no|always|on-failure(:[1-9][0-9]*)?|unless-stopped)$")]
    restart_policy: Option<String>,
    backoff: Option<Backoff>,
    restart_budget: Option<RestartBudget>,
    success_exit_codes: Option<Vec<i32>>,
    #[schema(minimum = 0, maximum = 10000)]
    replicas: Option<u32>,
    /// By the name of the service depended on; or a list of names.
    depends_on: Option<BTreeMap<String, Dependency>>,
    /// Such as `SIGTERM`.
    stop_signal: Option<String>,
    stop_grace_period: Option<Seconds>,
    /// For selecting; or a list of `KEY=VALUE`.
    labels: Option<BTreeMap<String, String>>,
    version: Option<String>,
    logs: Option<Logs>,
    /// Its configuration document, over the base that all share. `{secret_file: PATH}` and `{secret_env: NAME}` stand for
    /// secrets.
    config: Option<BTreeMap<String, serde_json::Value>>,
    /// The JSON Schema that its document must keep to, for each replica's as a whole. It names nothing outside of itself.
    config_schema: Option<BTreeMap<String, serde_json::Value>>,
    /// What is laid over its document for single replicas, by their numbers.
    config_overrides: Option<BTreeMap<String, BTreeMap<String, serde_json::Value>>>,
    config_change: Option<ConfigChange>,
}

/// What is done when a service's document changes, one instance at a time. The action alone may be written as one word.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigChange {
    action: Option<ConfigAction>,
    /// Such as `SIGHUP`, the default.
    signal: Option<String>,
    /// To which the revision is posted.
    #[schema(pattern = "^/", default = "/-/reload")]
    path: Option<String>,
    /// How long an instance may take to be well again.
    timeout: Option<Seconds>,
    /// How long it must have been well, where it does not acknowledge.
    settle: Option<Seconds>,
    /// Whether it must acknowledge before the next one is told.
    acknowledge: Option<bool>,
}

/// How an instance comes to take up a new document.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConfigAction {
    /// By itself.
    None,
    /// It is sent a signal.
    Signal,
    /// It is sent an HTTP request.
    Http,
    /// It is replaced.
    Restart,
}
