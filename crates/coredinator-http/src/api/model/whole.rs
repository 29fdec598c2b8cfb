//! The whole: its health, who leads it, what the server is.

use std::collections::BTreeMap;

use coredinator_core::{NodeName, ServiceName, ServiceStatus, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::schema;

/// Everything in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverallStatus {
    /// Every service is healthy, or rests because it should (`stopped`, `completed`).
    Healthy,
    /// Some service is `degraded`, `starting` or `unknown`.
    Degraded,
    /// Some service is `unhealthy`, in `backoff` or `failed`, or coredinator itself is not ready.
    Unhealthy,
}

/// The health of the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SystemHealth {
    /// Everything in one word. The HTTP status tells of coredinator itself: 200 when it is ready, whatever its services.
    pub status: OverallStatus,
    /// Each service's health.
    #[schema(value_type = BTreeMap<String, HealthOfService>)]
    pub services: BTreeMap<ServiceName, HealthOfService>,
    /// How the machine is doing, sampled every few seconds.
    pub system_metrics: SystemMetrics,
    /// The version of coredinator.
    pub version: String,
    /// For how long coredinator has been running.
    pub uptime_seconds: u64,
    /// Whether coredinator itself is ready, and if not, why.
    pub ready: bool,
    /// How the file was read last while coredinator ran; `null`: not since it was started.
    pub reload: Option<Reload>,
    /// Who leads, and how fresh what this replica knows is.
    pub leadership: LeadershipInShort,
}

/// Whether a replica leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaRole {
    /// It does: it decides for agents, and looks after what no single node does.
    Leader,
    /// Another does, or none.
    Follower,
}

/// Who leads, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadershipInShort {
    /// Whether the replica that answers leads.
    pub role: ReplicaRole,
    /// The node of the replica that answers; `null`: it has no name.
    #[schema(value_type = Option<String>, example = "plant-a")]
    pub node: Option<NodeName>,
    /// The node of the replica that leads; `null`: none does, as far as is known.
    #[schema(value_type = Option<String>, example = "plant-a")]
    pub leader: Option<NodeName>,
    /// The leader's epoch, which rises with every new leader.
    pub epoch: u64,
    /// How long ago the store answered last, in seconds; `null`: nobody else uses it, so nothing is stale.
    pub stale_seconds: Option<f64>,
}

/// Who leads among the replicas that share a store, as one of them knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Leadership {
    /// Whether the replica that answers leads.
    pub role: ReplicaRole,
    /// The leader's epoch, which rises with every new leader.
    pub epoch: u64,
    /// The replica that leads; `null`: none does, as far as is known.
    pub leader: Option<Leader>,
    /// The node of the replica that answers; `null`: it has no name.
    #[schema(value_type = Option<String>, example = "plant-a")]
    pub node: Option<NodeName>,
    /// The epoch under which it acts for its node; 0: it does not, and `trouble` says why.
    pub node_epoch: u64,
    /// Whether the store is one that other replicas can use.
    pub shared: bool,
    /// How long ago the store answered last, in seconds; `null`: nobody else uses it, so nothing is stale.
    pub stale_seconds: Option<f64>,
    /// Why the replica that answers does not act for its node; `null`: it does.
    pub trouble: Option<String>,
    /// The times by which leases are kept.
    pub lease: LeaseTimes,
    /// All replicas, by node.
    pub replicas: Vec<Replica>,
}

/// The replica that leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Leader {
    /// Its node.
    #[schema(value_type = String, example = "plant-a")]
    pub node: NodeName,
    /// Where other replicas reach it.
    pub address: Option<String>,
}

/// The times by which leases are kept, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeaseTimes {
    /// How long a lease that is not renewed is left to its holder.
    pub lease_seconds: f64,
    /// How long a holder that cannot renew goes on to act.
    pub renew_deadline_seconds: f64,
    /// How often a lease is renewed, or looked at.
    pub retry_seconds: f64,
}

/// One of the replicas that share a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// Its node.
    #[schema(value_type = String, example = "plant-a")]
    pub node: NodeName,
    /// Where other replicas reach it.
    pub address: Option<String>,
    /// Its version.
    pub version: String,
    /// When it was started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it was heard of within a lease.
    pub alive: bool,
    /// How long it was not, if it is not alive.
    pub silent_seconds: Option<f64>,
}

/// How the file was read anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reload {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why it is not in force; `null`: it is.
    pub error: Option<String>,
}

/// A service's health in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthOfService {
    /// The service in one word.
    #[schema(value_type = schema::ServiceStatus)]
    pub status: ServiceStatus,
    /// When it was last checked; `null`: never, or it has no check.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_check: Option<Timestamp>,
    /// How long its slowest check took to answer, in milliseconds with the unit; `null`: no answer yet.
    #[schema(example = "45ms")]
    pub response_time: Option<String>,
}

/// How the machine is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SystemMetrics {
    /// The share of all processors in use.
    #[schema(example = "25%")]
    pub cpu_usage: String,
    /// The share of the memory in use.
    #[schema(example = "45%")]
    pub memory_usage: String,
    /// Agents that take part in coordination.
    pub active_agents: u32,
}

/// The health of coredinator alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy` or `degraded` when it is ready (as services are), `unhealthy` when it is not.
    pub status: OverallStatus,
}

/// What this server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Always `coredinator`.
    #[schema(example = "coredinator")]
    pub name: String,
    /// Its version.
    #[schema(example = "0.1.0")]
    pub version: String,
    /// When it was started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Where it listens; empty where it listens nowhere, as in tests.
    pub address: String,
}
