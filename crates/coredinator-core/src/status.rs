//! What coredinator observed of services: the states of instances, and what follows for the service as a whole.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{InstanceId, InstanceRef, NodeName, Revision, RuntimeName, ServiceName, clock::Timestamp};

/// Where one replica of a service is in its life.
///
/// `Pending -> Starting -> Running -> Stopping -> Stopped | Completed | Failed`, with `Backoff` between an end that the
/// restart policy answers and the next start. Whether a running instance is ready is health's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Wanted, and waiting for what it depends on.
    #[default]
    Pending,
    /// The runtime has been asked to start it.
    Starting,
    /// It runs.
    Running,
    /// It ended by itself and will be started again at `next_restart_at`.
    Backoff,
    /// It has been asked to end.
    Stopping,
    /// It ended because it was asked to.
    Stopped,
    /// It ended by itself with success, and its policy is content with that.
    Completed,
    /// It ended by itself, and will not be started again unless by hand.
    Failed,
}

impl InstanceState {
    /// Whether something of it may be running in the runtime.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Failed => "failed",
        })
    }
}

/// A service as a whole, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceStatus {
    /// Every wanted instance runs and passes its checks.
    Healthy,
    /// Some instance is in discovery, but not all are well.
    Degraded,
    /// None is in discovery, and at least one failed its checks.
    Unhealthy,
    /// On the way up: waiting for dependencies, being started, or not yet checked for the first time.
    Starting,
    /// No instance runs; the next start has its time.
    Backoff,
    /// Stopped (or stopping) because somebody asked for it, or scaled to 0.
    Stopped,
    /// Ran to its end with success.
    Completed,
    /// Ended, and will not be started again unless by hand.
    Failed,
    /// Nothing is known yet: an external service that was never checked.
    #[default]
    Unknown,
}

impl ServiceStatus {
    /// All of them, in the order of their documentation.
    pub const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Degraded,
        Self::Unhealthy,
        Self::Starting,
        Self::Backoff,
        Self::Stopped,
        Self::Completed,
        Self::Failed,
        Self::Unknown,
    ];

    /// The word for it, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Starting => "starting",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ServiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for ServiceStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|status| status.as_str()).collect();
            format!("unknown status {text:?} (one of {})", known.join(", "))
        })
    }
}

/// Why something is as it is: a word for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reason {
    /// A `CamelCase` word of a fixed set, such as `BackOff` or `Unhealthy`.
    pub code: String,
    /// A sentence without a final stop, such as `exited with code 1; restart 3 in 3.8 s`.
    pub message: String,
}

impl Reason {
    /// A reason.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.message)
    }
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; `None` if a signal ended it, or nobody could tell.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory, where that can be known.
    #[serde(default)]
    pub oom_killed: bool,
    /// What ended it, where it was not the program itself and what runs it knows: that it was evicted, that its node is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
    /// When coredinator learned of it.
    pub at: Timestamp,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            _ if self.oom_killed => f.write_str("killed by the kernel: out of memory"),
            _ if self.why.is_some() => self.why.iter().try_for_each(|why| f.write_str(&why.message)),
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => write!(f, "ended by signal {signal}"),
            (None, None) => f.write_str("ended while nobody watched, exit code unknown"),
        }
    }
}

/// One replica of a service, as the store keeps it: written by the supervisor alone, before and after every step, so
/// that whoever reads it after a crash knows what may be running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// The service it belongs to.
    pub service: ServiceName,
    /// Which of the service's replicas it is, from 0.
    pub replica: u32,
    /// Its current or, where nothing runs, its last life. `None`: it has not lived yet.
    pub id: Option<InstanceId>,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Why it is there.
    pub reason: Reason,
    /// Since when it is there.
    pub since: Timestamp,
    /// The generation of the service's spec that its current or last life was started from.
    pub generation: u64,
    /// The runtime that its current or last life was started by.
    pub runtime: RuntimeName,
    /// The node on which its current or last life was started. `None`: in a place that every replica of coredinator
    /// reaches alike, or by a version that did not tell nodes apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// What the runtime needs to find it again; opaque to all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<serde_json::Value>,
    /// Its process id, where there is one.
    pub pid: Option<u32>,
    /// Where it is reached.
    pub host: String,
    /// The port at which it is reached; 0 while none is known.
    pub port: u16,
    /// When its current or last life started.
    pub started_at: Option<Timestamp>,
    /// How often it has been started again without being asked to, ever.
    pub restarts: u64,
    /// How many of those came in a row, without a good period in between.
    #[serde(default)]
    pub attempts: u32,
    /// When the restarts came that the sliding window of the budget still sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_times: Vec<Timestamp>,
    /// How its last life ended.
    pub last_exit: Option<Exit>,
    /// When it will be started next, while it is in `Backoff`.
    pub next_restart_at: Option<Timestamp>,
    /// Up to which of the user's commands ([`Intent`]) it has followed.
    #[serde(default)]
    pub followed: u64,
    /// The revision of the service's configuration document that its current or last life was given; 0: none.
    #[serde(default)]
    pub config_revision: u64,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_at: Option<Timestamp>,
}

impl InstanceRecord {
    /// The instance, as its runtime knows it; `None` if it has not lived yet.
    #[must_use]
    pub fn reference(&self) -> Option<InstanceRef> {
        Some(InstanceRef {
            id: self.id.clone()?,
            service: self.service.clone(),
            replica: self.replica,
            handle: self.handle.clone(),
        })
    }
}

/// What a user asked of a service beyond its spec, by commands. Written for users, read by the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Intent {
    /// Stopped by hand.
    #[serde(default)]
    pub stopped: bool,
    /// Scaled by hand: instead of the spec's `replicas`, until those change, or the spec no longer allows as many.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// The number of the last `start` or `restart` command. Instances that followed an older one start anew where they
    /// had ended.
    #[serde(default)]
    pub command: u64,
    /// The number of the last `restart` command. Running instances that followed an older one are replaced.
    #[serde(default)]
    pub restart: u64,
}

/// Where a declared service came from, which decides who may take it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Declared in the configuration file: gone when the file no longer names it.
    File,
    /// Declared by an update of the configuration: gone when one no longer names it.
    Config,
    /// Registered through the API or by a program: gone when it is deregistered.
    #[default]
    Api,
}

/// A declared service, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What was declared.
    pub spec: crate::ServiceSpec,
    /// Rises with every change of `spec`, from 1.
    pub generation: u64,
    /// The last generation that changed something an instance is started from: instances of an older one are replaced.
    pub runs_since: u64,
    /// Where it came from.
    pub origin: Origin,
    /// The node whose replica of coredinator looks after it, where that is not whoever leads: what the spec says, or else
    /// where it was declared. `None`: by a version that did not tell nodes apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// When it was first declared.
    pub created_at: Timestamp,
    /// It was deregistered; its instances are being stopped, after which it is gone.
    #[serde(default)]
    pub deleting: bool,
    /// Its configuration document on the base that all share, before what is laid over it for single replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Map<String, Value>>,
    /// Rises with every change of that document or of what is laid over it, from 1; 0 while there is none.
    #[serde(default)]
    pub config_revision: u64,
}

impl ServiceRecord {
    /// The document of one replica; `None` where the service has none.
    #[must_use]
    pub fn config_of(&self, replica: u32) -> Option<Map<String, Value>> {
        let mut document = self.config.clone()?;
        if let Some(over) = self.spec.config.overrides.get(&replica) {
            crate::config::merge(&mut document, over);
        }
        Some(document)
    }
}

/// How far a service's configuration document has come. Written by the supervisor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConfigRollout {
    /// The newest revision with which every instance was well; 0: none yet.
    pub stable: u64,
    /// The document of that revision, before what is laid over it for single replicas.
    #[serde(default)]
    pub document: Map<String, Value>,
    /// What is laid over it for single replicas.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<u32, Map<String, Value>>,
    /// The newest revision that failed and was taken back, until there is a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedConfig>,
}

impl ConfigRollout {
    /// The stable document of one replica.
    #[must_use]
    pub fn config_of(&self, replica: u32) -> Map<String, Value> {
        let mut document = self.document.clone();
        if let Some(over) = self.overrides.get(&replica) {
            crate::config::merge(&mut document, over);
        }
        document
    }
}

/// A revision of a service's configuration document that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedConfig {
    /// Which.
    pub revision: u64,
    /// Why, in a clause.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// An instance's own word that a revision of its configuration document is in force in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigAck {
    /// Which instance said so.
    pub instance: InstanceId,
    /// The revision.
    pub revision: u64,
    /// When it said so.
    pub at: Timestamp,
}

/// Something that happened, for people and programs that watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: rises by at least 1 with every event, never used again.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The service it is about.
    pub service: ServiceName,
    /// The replica it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<u32>,
    /// The life it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Whether somebody should look.
    pub severity: Severity,
    /// What happened; `code` is a `CamelCase` word such as `Started`, `BackOff`, `Unhealthy`.
    #[serde(flatten)]
    pub reason: Reason,
    /// The store's revision with which it became visible; 0 while it is being written.
    #[serde(default)]
    pub revision: Revision,
}

/// Whether an event is business as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Business as usual.
    #[default]
    Normal,
    /// Somebody should look.
    Warning,
}
