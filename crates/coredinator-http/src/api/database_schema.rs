//! What the paths about the database say and hear.

use coredinator_core::{
    Epoch, Lease, Revision, StoreCheck, StoreCheckOutcome, StoreConnections, StoreLatency, StoreStatus, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The store as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseStatus {
    /// Whether it was reached just now, by writing, reading and deleting a value.
    pub reachable: bool,
    /// Why it was not.
    pub error: Option<String>,
    /// How long it has not been followed, so that what is shown may be out of date; `null`: it is.
    pub stale_for_ms: Option<f64>,
    /// What it told of itself; `null` where it was not reached.
    pub store: Option<DatabaseStore>,
}

/// What a store tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseStore {
    /// `memory`, `sqlite`, `postgres`, or a plugin's.
    pub backend: String,
    /// Where it is, without secrets.
    pub location: String,
    /// The back end's own version.
    pub version: String,
    /// The version of the schema that it holds.
    pub schema_version: u32,
    /// The newest revision.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// The oldest revision from which a watch can still start.
    #[schema(value_type = u64)]
    pub compacted: Revision,
    /// When changes were last forgotten, where the back end keeps that.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub compacted_at: Option<Timestamp>,
    /// Bytes on disk.
    pub size_bytes: Option<u64>,
    /// How long writing, reading and deleting a value just took.
    pub round_trip_ms: f64,
    /// How long reads took.
    pub reads: Option<DatabaseLatency>,
    /// How long writes took.
    pub writes: Option<DatabaseLatency>,
    /// Its connections to a server, where there is one.
    pub connections: Option<DatabaseConnections>,
    /// Every lease there ever was: who holds which.
    pub leases: Vec<DatabaseLease>,
}

/// How long the newest calls of one kind took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseLatency {
    /// How many calls this tells of, 1024 at most; the rest means nothing where it is 0.
    pub calls: u32,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 95 of a hundred took no longer.
    pub p95_ms: f64,
    /// 99 of a hundred took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

/// Connections to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseConnections {
    /// How many there may be.
    pub max: u32,
    /// How many are in use.
    pub in_use: u32,
    /// How many wait to be used.
    pub idle: u32,
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseLease {
    /// Its name.
    pub name: String,
    /// Who holds it, or held it last and has not given it back.
    pub holder: Option<String>,
    /// Rises with every new holder.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// When it ends unless it is renewed, by the store's clock.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// Which database is to be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseCandidate {
    /// One that might be switched to: `postgresql://…`, or `sqlite:` and a file that exists. Without it, the one in use.
    #[schema(nullable = false)]
    pub database_url: Option<String>,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseVerification {
    /// Whether no check failed.
    pub ok: bool,
    /// Whether it was about a candidate, and not the database in use.
    pub candidate: bool,
    /// Part by part.
    pub checks: Vec<DatabaseCheck>,
}

/// One part of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseCheck {
    /// What was looked at: `connectivity`, `server_version`, `migrations`, `privileges`, `round_trip`, `clock_skew`,
    /// `durability`, `replication`.
    pub name: String,
    /// How that ended: `ok`, `failed`, `skipped`.
    #[schema(value_type = String, example = "ok")]
    pub outcome: StoreCheckOutcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<StoreStatus> for DatabaseStore {
    fn from(status: StoreStatus) -> Self {
        Self {
            backend: status.backend,
            location: status.location,
            version: status.version,
            schema_version: status.schema_version,
            revision: status.revision,
            compacted: status.compacted,
            compacted_at: status.compacted_at,
            size_bytes: status.size_bytes,
            round_trip_ms: status.round_trip_ms,
            reads: status.reads.map(Into::into),
            writes: status.writes.map(Into::into),
            connections: status.connections.map(Into::into),
            leases: status.leases.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<StoreLatency> for DatabaseLatency {
    fn from(StoreLatency { calls, p50_ms, p95_ms, p99_ms, max_ms }: StoreLatency) -> Self {
        Self { calls, p50_ms, p95_ms, p99_ms, max_ms }
    }
}

impl From<StoreConnections> for DatabaseConnections {
    fn from(StoreConnections { max, in_use, idle }: StoreConnections) -> Self {
        Self { max, in_use, idle }
    }
}

impl From<Lease> for DatabaseLease {
    fn from(Lease { name, holder, epoch, expires_at }: Lease) -> Self {
        Self { name, holder, epoch, expires_at }
    }
}

impl DatabaseVerification {
    /// Of the checks that were made.
    pub(crate) fn new(candidate: bool, checks: Vec<StoreCheck>) -> Self {
        let ok = checks.iter().all(|check| check.outcome != StoreCheckOutcome::Failed);
        let checks = checks.into_iter().map(|check| {
            let StoreCheck { name, outcome, detail, hint } = check;
            DatabaseCheck { name, outcome, detail, hint }
        });
        Self { ok, candidate, checks: checks.collect() }
    }
}
