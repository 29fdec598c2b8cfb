//! What the tests of a store under a PostgreSQL server in trouble share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coredinator_core::{Batch, Key, Precondition, Revision, Store, StoreError};
use coredinator_registry::store::{PostgresOptions, PostgresStore};
use tokio::time::timeout;

/// An upper bound for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How long a call may take at the server.
pub(crate) const LIMIT: Duration = Duration::from_millis(700);

pub(crate) fn put(at: &str, value: impl Into<Vec<u8>>) -> Batch {
    Batch::new().put(Key::new(at).unwrap(), value.into(), Precondition::Any)
}

pub(crate) async fn open(url: &str) -> PostgresStore {
    let options = PostgresOptions::new(url).unwrap();
    let options = options.statement_timeout(LIMIT).connect_timeout(LIMIT).poll(Duration::from_millis(100));
    PostgresStore::open_with(options.open_wait(PATIENCE)).await.unwrap()
}

/// Until `holds`, or patience ends.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waiting.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Writes values of so many bytes until it is told to end, and answers what was acknowledged; each write is answered in bounded
/// time.
pub(crate) fn write_on(
    store: &PostgresStore,
    name: &'static str,
    end: &Arc<AtomicBool>,
    size: usize,
) -> tokio::task::JoinHandle<Vec<(Revision, String)>> {
    let (store, end) = (store.clone(), Arc::clone(end));
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            if end.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("{name}/{number}");
            let written = timeout(PATIENCE, store.write(put(&key, vec![b'x'; size]))).await;
            match written.expect("a write is answered") {
                Ok(revision) => acknowledged.push((revision, key)),
                Err(error) => {
                    assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        acknowledged
    })
}
