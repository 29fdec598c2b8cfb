//! The store that forgets: for tests, and for running without a disk.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use coredinator_core::{
    Batch, ChangeStream, Key, Lease, LeaseOperation, Listing, Record, Revision, SharedClock, Store, StoreCapabilities,
    StoreError, StoreStatus, SystemClock,
};

use super::{
    DEFAULT_RETAINED_REVISIONS,
    feed::Feed,
    judge::{self, View},
};

/// A [`Store`] in memory. Clones share one state; it is gone, and watches end, when the last clone is.
///
/// It needs no runtime, no timers and no disk, so it works under tokio's paused time.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    feed: Arc<Feed>,
    clock: SharedClock,
}

#[derive(Default)]
struct State {
    revision: Revision,
    records: BTreeMap<Key, Record>,
    leases: HashMap<String, Lease>,
}

impl MemoryStore {
    /// An empty store that keeps [`DEFAULT_RETAINED_REVISIONS`] for watchers.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Arc::new(SystemClock), DEFAULT_RETAINED_REVISIONS)
    }

    /// An empty store whose leases end by `clock`, and which keeps the newest `retained_revisions` (at least 1) for
    /// watchers.
    #[must_use]
    pub fn with(clock: SharedClock, retained_revisions: u64) -> Self {
        let capacity = usize::try_from(retained_revisions).unwrap_or(usize::MAX);
        let feed = Feed::new(Revision::ZERO, Revision::ZERO, capacity, usize::MAX, None);
        Self { inner: Arc::new(Inner { state: Mutex::default(), feed: Arc::new(feed), clock }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("revision", &self.state().revision).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.feed.close();
    }
}

impl View for State {
    fn revision(&self) -> Revision {
        self.revision
    }
    fn at(&self, key: &Key) -> Option<Revision> {
        self.records.get(key).map(|record| record.revision)
    }
    fn lease(&self, name: &str) -> Option<&Lease> {
        self.leases.get(name)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::default()
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        Ok(self.state().records.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let state = self.state();
        // A prefix that is no key itself starts none either, except the empty one.
        let start = match Key::new(prefix) {
            Ok(key) => Bound::Included(key),
            Err(_) if prefix.is_empty() => Bound::Unbounded,
            Err(_) => return Ok(Listing { records: Vec::new(), revision: state.revision }),
        };
        let records = state
            .records
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(_, record)| record.clone())
            .collect();
        Ok(Listing { records, revision: state.revision })
    }

    async fn write(&self, batch: Batch) -> Result<Revision, StoreError> {
        judge::validate(&batch)?;
        let mut state = self.state();
        let Some(change) = judge::batch(&*state, batch)? else { return Ok(state.revision) };
        let revision = change.revision;
        state.revision = revision;
        for (key, value) in &change.entries {
            match value {
                Some(value) => {
                    let record = Record { key: key.clone(), value: value.clone(), revision };
                    state.records.insert(key.clone(), record);
                }
                None => {
                    state.records.remove(key);
                }
            }
        }
        // Under the lock, so that changes reach the feed in order.
        self.inner.feed.publish([change]);
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
        let newest = self.inner.feed.newest();
        Arc::clone(&self.inner.feed).watch(prefix, after, async { Ok(newest) }).await
    }

    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError> {
        let mut state = self.state();
        let lease = judge::lease(state.leases.get(name), name, holder, operation, self.inner.clock.now())?;
        state.leases.insert(name.to_owned(), lease.clone());
        Ok(lease)
    }

    async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        let state = self.state();
        self.inner.feed.compact(up_to.min(state.revision));
        Ok(())
    }

    async fn check(&self) -> Result<StoreStatus, StoreError> {
        let state = self.state();
        let mut leases: Vec<_> = state.leases.values().cloned().collect();
        leases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(StoreStatus {
            backend: "memory".to_owned(),
            location: "memory".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: 0,
            revision: state.revision,
            compacted: self.inner.feed.compacted(),
            size_bytes: None,
            round_trip_ms: 0.0,
            compacted_at: None,
            connections: None,
            leases,
            reads: None,
            writes: None,
        })
    }
}
