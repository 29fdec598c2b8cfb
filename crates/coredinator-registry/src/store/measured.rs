//! A store whose calls are timed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{
    Batch, ChangeStream, Key, Lease, LeaseOperation, Listing, Record, Revision, Store, StoreCapabilities, StoreCheck,
    StoreError, StoreLatency, StoreStatus,
};
use tokio::time::Instant;

/// How many of the newest calls are remembered, of each kind.
const REMEMBERED: usize = 1024;

/// Any [`Store`], its reads and writes timed: its [`check`](Store::check) tells how long the newest 1024 of each took that
/// were answered, whatever the answer.
pub struct MeasuredStore {
    store: Arc<dyn Store>,
    reads: Times,
    writes: Times,
}

impl MeasuredStore {
    /// Times the calls of `store` that are made through this.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, reads: Times::default(), writes: Times::default() }
    }
}

impl std::fmt::Debug for MeasuredStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeasuredStore").field("writes", &self.writes.latency()).finish_non_exhaustive()
    }
}

/// The newest times.
#[derive(Default)]
struct Times(Mutex<VecDeque<Duration>>);

impl Times {
    async fn of<T>(&self, call: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let answer = call.await;
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back(since.elapsed());
        answer
    }

    fn latency(&self) -> StoreLatency {
        let mut times: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        times.sort_unstable();
        latency(&times)
    }
}

/// What sorted times come to: each percentile is the shortest time that so many of them did not exceed.
fn latency(sorted: &[Duration]) -> StoreLatency {
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let calls = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
    StoreLatency { calls, p50_ms: at(50), p95_ms: at(95), p99_ms: at(99), max_ms: at(100) }
}

#[async_trait]
impl Store for MeasuredStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.store.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.reads.of(self.store.get(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.reads.of(self.store.list(prefix)).await
    }

    async fn write(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.writes.of(self.store.write(batch)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError> {
        self.store.lease(name, holder, operation).await
    }

    async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.store.compact(up_to).await
    }

    async fn check(&self) -> Result<StoreStatus, StoreError> {
        let status = self.store.check().await?;
        Ok(StoreStatus { reads: Some(self.reads.latency()), writes: Some(self.writes.latency()), ..status })
    }

    async fn verify(&self) -> Vec<StoreCheck> {
        self.store.verify().await
    }

    fn unreachable_for(&self) -> Option<Duration> {
        self.store.unreachable_for()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_rank() {
        let times = |count: u64| (1..=count).map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(latency(&[]), StoreLatency::default());
        let of = |count| {
            let latency = latency(&times(count));
            (latency.calls, latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
        };
        assert_eq!(of(1), (1, 1.0, 1.0, 1.0, 1.0));
        assert_eq!(of(2), (2, 1.0, 2.0, 2.0, 2.0));
        assert_eq!(of(100), (100, 50.0, 95.0, 99.0, 100.0));
    }
}
