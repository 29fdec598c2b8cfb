//! The contract of what keeps the state of the world: one revisioned store.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{Epoch, Revision, Timestamp};

/// The key of a record: segments joined by `/`, such as `services/corerl`.
///
/// 1 to 512 bytes of visible ASCII without `%`, `_` or `\`, so that no back end needs to escape a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key is 1 to 512 bytes of visible ASCII without %, _ or \\, but this is {0:?}")]
pub struct InvalidKey(String);

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    /// A text that is not one.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let fits = (1..=512).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_graphic() && !b"%_\\".contains(&b)) {
            Ok(Self(text))
        } else {
            Err(InvalidKey(text))
        }
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Key {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        Self::new(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A stored value and the number of the write that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its value; whose meaning is the writer's business.
    pub value: Vec<u8>,
    /// The write that last changed it.
    pub revision: Revision,
}

/// Records as they all stood at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The records, in the order of their keys.
    pub records: Vec<Record>,
    /// The revision of the whole store at which they were read: a watch from here misses nothing.
    pub revision: Revision,
}

/// What must hold of a key for a batch to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    Any,
    /// There is no such record.
    Absent,
    /// The record is there, and was last changed by this write.
    At(Revision),
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The key it is about. A batch names each key once.
    pub key: Key,
    /// The value to put; `None` deletes. Deleting what is absent is no error and changes nothing.
    pub value: Option<Vec<u8>>,
    /// What must hold before.
    pub precondition: Precondition,
}

/// The lease under which a batch is written: refused by the store once somebody else holds the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The lease's name.
    pub lease: String,
    /// The epoch that the writer believes is the current one.
    pub epoch: Epoch,
}

/// Operations that happen all together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The operations; none is allowed and answers the current revision.
    pub operations: Vec<Operation>,
    /// The lease it is written under, if any.
    pub fence: Option<Fence>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same batch with a value put under `key`.
    #[must_use]
    pub fn put(mut self, key: Key, value: Vec<u8>, precondition: Precondition) -> Self {
        self.operations.push(Operation { key, value: Some(value), precondition });
        self
    }

    /// The same batch with `key` deleted.
    #[must_use]
    pub fn delete(mut self, key: Key, precondition: Precondition) -> Self {
        self.operations.push(Operation { key, value: None, precondition });
        self
    }

    /// The same batch, written under a lease.
    #[must_use]
    pub fn fenced(mut self, lease: impl Into<String>, epoch: Epoch) -> Self {
        self.fence = Some(Fence { lease: lease.into(), epoch });
        self
    }
}

/// All that one write changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The write.
    pub revision: Revision,
    /// What it put (`Some`) and deleted (`None`), of the keys that are watched; never empty.
    pub entries: Vec<(Key, Option<Vec<u8>>)>,
}

/// What to do with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOperation {
    /// Take it for `ttl` if it is free, has expired, or is held by the same holder already (which renews it).
    Acquire {
        /// How long it holds without being renewed.
        ttl: Duration,
    },
    /// Prolong it, if `epoch` is still the current one and it is still held.
    Renew {
        /// The epoch under which it was acquired.
        epoch: Epoch,
        /// How long it holds from now on.
        ttl: Duration,
    },
    /// Give it back, if `epoch` is still the current one.
    Release {
        /// The epoch under which it was acquired.
        epoch: Epoch,
    },
    /// Tell how it stands, and change nothing. A lease that nobody ever held is at epoch 0.
    Inspect,
    /// Take it from whoever holds it, if it still stands as it was seen. The caller answers for it that the holder has had
    /// its time, by a clock that nobody can set: the store's own is not asked.
    Take {
        /// The epoch that was seen.
        epoch: Epoch,
        /// The end that was seen; of no meaning with epoch 0.
        expires_at: Timestamp,
        /// The new epoch is above this, too.
        above: Epoch,
        /// How long it holds without being renewed.
        ttl: Duration,
    },
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub name: String,
    /// Who holds it; `None` when it is free.
    pub holder: Option<String>,
    /// Rises with every new holder.
    pub epoch: Epoch,
    /// When it ends unless it is renewed, by the store's clock.
    pub expires_at: Timestamp,
}

/// What a back end can do beyond what all must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreCapabilities {
    /// What was acknowledged is still there after the process is killed and the store opened again.
    pub durable: bool,
    /// Several processes may use it at once.
    pub shared: bool,
}

/// The connections of a store to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreConnections {
    /// How many there may be.
    pub max: u32,
    /// How many are in use.
    pub in_use: u32,
    /// How many wait to be used.
    pub idle: u32,
}

/// How long calls of one kind took, in milliseconds, of the newest ones.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StoreLatency {
    /// How many calls this tells of; the rest means nothing where it is 0.
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

/// How one part of a verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreCheckOutcome {
    /// It is as it should be.
    Ok,
    /// It is not.
    Failed,
    /// It could not be looked at, or means nothing for this back end.
    Skipped,
}

/// One part of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCheck {
    /// What was looked at, in `snake_case`.
    pub name: String,
    /// How it ended.
    pub outcome: StoreCheckOutcome,
    /// What was found, without secrets.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl StoreCheck {
    /// One that is as it should be.
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), outcome: StoreCheckOutcome::Ok, detail: detail.into(), hint: None }
    }

    /// One that is not, and what to do.
    pub fn failed(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        let outcome = StoreCheckOutcome::Failed;
        Self { name: name.to_owned(), outcome, detail: detail.into(), hint: Some(hint.into()) }
    }

    /// One that was not looked at, and why.
    pub fn skipped(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), outcome: StoreCheckOutcome::Skipped, detail: detail.into(), hint: None }
    }
}

/// The state of a store, for people and for `/database/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// The back end: `memory`, `sqlite`, `postgres`, or a plugin's.
    pub backend: String,
    /// Where it is, without secrets.
    pub location: String,
    /// The back end's own version.
    pub version: String,
    /// The version of the schema that it holds.
    pub schema_version: u32,
    /// The revision of the newest write.
    pub revision: Revision,
    /// The oldest revision from which a watch can still start.
    pub compacted: Revision,
    /// Bytes on disk; `None` where that is not known.
    pub size_bytes: Option<u64>,
    /// How long a write-read-delete round trip just took, in milliseconds.
    pub round_trip_ms: f64,
    /// When changes were last forgotten, as far as the back end keeps that.
    pub compacted_at: Option<Timestamp>,
    /// Its connections, where it has some.
    pub connections: Option<StoreConnections>,
    /// Every lease there ever was, as it stands, in the order of their names.
    pub leases: Vec<Lease>,
    /// How long reads took, where that is measured.
    pub reads: Option<StoreLatency>,
    /// How long writes took, where that is measured.
    pub writes: Option<StoreLatency>,
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A precondition did not hold; nothing was changed.
    #[error("{key} is at {}, which is not what was expected", .found.map_or_else(|| "no revision (absent)".to_owned(), |r| format!("revision {r}")))]
    Conflict {
        /// The first key whose precondition failed.
        key: Key,
        /// What it is really at; `None`: absent.
        found: Option<Revision>,
    },
    /// The batch was written under a lease that somebody else has since taken; nothing was changed.
    #[error("lease {lease:?} is at epoch {current}, so a write under epoch {given} is refused")]
    Fenced {
        /// The lease.
        lease: String,
        /// The epoch of the batch.
        given: Epoch,
        /// The epoch in force.
        current: Epoch,
    },
    /// Somebody else holds the lease.
    #[error("lease {:?} is held by {}", .0.name, .0.holder.as_deref().unwrap_or("nobody"))]
    LeaseHeld(
        /// The lease as it stands.
        Lease,
    ),
    /// A watch or its start is older than what the store still has: list again, and watch from there.
    #[error("changes up to revision {0} are no longer kept")]
    Compacted(
        /// The oldest revision from which a watch can start.
        Revision,
    ),
    /// The batch, key or value is not one that a store takes.
    #[error("{0}")]
    Invalid(
        /// What is wrong with it.
        String,
    ),
    /// It cannot be reached or cannot write at the moment (locked, disk full, connection lost); nothing is known to have
    /// been changed. Worth trying again.
    #[error("the store is unavailable: {message}")]
    Unavailable {
        /// What is the matter, naming the file or server.
        message: String,
        /// What the back end said.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It is damaged, or of a schema that this version does not know. Trying again will not help.
    #[error("{0}")]
    Unusable(
        /// What is the matter, naming the file or server, and what to do.
        String,
    ),
}

impl StoreError {
    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::LeaseHeld(_))
    }

    /// An [`Unavailable`](Self::Unavailable) with what the back end said.
    pub fn unavailable(message: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable { message: message.into(), source: Some(Box::new(source)) }
    }
}

/// A stream of changes, in the order of their revisions.
pub type ChangeStream = BoxStream<'static, Result<Change, StoreError>>;

/// A revisioned key-value store with atomic batches, a gap-free watch, and leases.
///
/// Everything that coredinator knows durably is in one of these; typed collections stand on top of it.
/// Implementors run [`conformance::store`](crate::conformance::store).
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What this back end can do beyond what all must.
    fn capabilities(&self) -> StoreCapabilities;

    /// Reads one record; `None` where there is none.
    ///
    /// To ensure correctness: what an acknowledged write put is seen by every read that starts afterwards.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// Reads all records whose key starts with `prefix` (the empty prefix: all), in the order of their keys.
    ///
    /// To ensure correctness:
    /// - the records and the revision are one snapshot: no write is seen in part;
    /// - the revision is that of the newest write in the whole store, not of the newest record listed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Carries out a batch and answers its revision.
    ///
    /// To ensure correctness:
    /// - all operations happen, or none does; they become visible together;
    /// - every precondition holds at the moment of the write, and the fence's epoch is the lease's current one;
    /// - the revision is greater than that of every write acknowledged before. A batch that changes nothing (no
    ///   operations, or only deletions of what is absent) answers the current revision and makes no change;
    /// - a batch that names a key twice is [`StoreError::Invalid`];
    /// - with [`StoreCapabilities::durable`], it has reached the disk before this returns. If the future is dropped, the
    ///   batch happens wholly or not at all.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Fenced`], [`StoreError::Invalid`], [`StoreError::Unavailable`].
    async fn write(&self, batch: Batch) -> Result<Revision, StoreError>;

    /// Watches all keys that start with `prefix`, for every change after revision `after`.
    ///
    /// To ensure correctness:
    /// - every write after `after` that touches a watched key is told exactly once, in the order of revisions, with all
    ///   of its watched keys together; none is skipped because it became visible late;
    /// - a watcher that is slow is never skipped: it gets everything later, or [`StoreError::Compacted`] as the stream's
    ///   last item if what it needs is gone;
    /// - the stream does not end while the store is open, except after an error.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if changes after `after` are no longer kept; [`StoreError::Unavailable`];
    /// [`StoreError::Invalid`] if `after` is in the future.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError>;

    /// Acquires, renews, releases, takes or inspects the lease `name` for `holder`.
    ///
    /// To ensure correctness:
    /// - at most one holder at a time, by the store's own clock, or (by [`Take`](LeaseOperation::Take)) by the taker's word;
    /// - the epoch rises with every acquisition by a new holder, and with one by the same holder after it expired or was
    ///   released; it never falls, across restarts of the store either;
    /// - releasing or renewing under an old epoch changes nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseHeld`] when somebody else holds it, or it does not stand (any more) as the taker saw it;
    /// [`StoreError::Fenced`] when the epoch given is not the
    /// current one or the lease has expired, [`StoreError::Unavailable`].
    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError>;

    /// Forgets changes up to and including revision `up_to`: watches from before it end in [`StoreError::Compacted`].
    /// Current records stay as they are. Compacting what is compacted, or the future, changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn compact(&self, up_to: Revision) -> Result<(), StoreError>;

    /// Checks that it can be written and read (by a round trip that leaves no record behind), and tells its state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unusable`].
    async fn check(&self) -> Result<StoreStatus, StoreError>;

    /// Looks at everything that has to be right for it to work, part by part. No part fails the call.
    async fn verify(&self) -> Vec<StoreCheck> {
        let status = match self.check().await {
            Ok(status) => status,
            Err(error) => {
                return vec![StoreCheck::failed("round_trip", error.to_string(), "see the log of coredinator")];
            }
        };
        let elsewhere = |name| StoreCheck::skipped(name, format!("of no meaning for {}", status.backend));
        vec![
            StoreCheck::ok("connectivity", format!("{} {} at {}", status.backend, status.version, status.location)),
            StoreCheck::ok("migrations", format!("schema version {}", status.schema_version)),
            StoreCheck::ok("round_trip", format!("written, read and deleted in {:.1} ms", status.round_trip_ms)),
            elsewhere("privileges"),
            elsewhere("clock_skew"),
            elsewhere("replication"),
        ]
    }

    /// How long ago it is that watches are known to have been up to date, if the store cannot be reached at the moment;
    /// `None` while it can. Answered from memory, at once. A store within this process needs none of its own.
    fn unreachable_for(&self) -> Option<Duration> {
        None
    }
}
