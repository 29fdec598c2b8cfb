//! The store back ends: [`MemoryStore`] for tests and ephemeral use, [`SqliteStore`] embedded and durable, [`PostgresStore`] for
//! several coredinators at once.
//!
//! All judge batches and leases with the same pure functions (`judge`) and tell watchers through the same `feed`, so they
//! differ only in where records live; those with a disk gather writes alike (`group`). All pass
//! `coredinator_core::conformance::store`. A [`Snapshot`] carries everything from one to another.

mod feed;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod group;
mod judge;
mod measured;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod retention;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod snapshot;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use measured::MeasuredStore;
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use snapshot::{Snapshot, SnapshotError};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};

/// How many of the newest revisions a back end keeps for watchers unless told otherwise.
pub const DEFAULT_RETAINED_REVISIONS: u64 = 10_000;

/// How many bytes of changes a file keeps for watchers unless told otherwise: values that are large and change often fill
/// no disk.
pub const DEFAULT_RETAINED_BYTES: u64 = 64 << 20;

/// The largest value that a back end takes, in bytes.
pub const MAX_VALUE_BYTES: usize = 4 << 20;

/// The largest sum of values in one batch that a back end takes, in bytes.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
