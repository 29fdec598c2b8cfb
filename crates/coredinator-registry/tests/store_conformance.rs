//! Both back ends pass the public suite.

#![cfg(feature = "sqlite")]

use coredinator_core::conformance::store::{self, Subject};
use coredinator_registry::store::{MemoryStore, SqliteOptions, SqliteStore};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_conforms() {
    store::run(|| async { Subject::new(MemoryStore::new()) }).await;
}

async fn sqlite(options: SqliteOptions) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    Subject::new(SqliteStore::open_with(&path, options.clone()).await.unwrap())
        .reopened_by(move || {
            let (path, options) = (path.clone(), options.clone());
            async move { SqliteStore::open_with(path, options).await.unwrap() }
        })
        .guarded(dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sqlite_store_conforms() {
    store::run(|| sqlite(SqliteOptions::default())).await;
}

/// With next to nothing in memory, watchers live from the change table.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sqlite_store_conforms_when_watchers_read_the_file() {
    store::run(|| sqlite(SqliteOptions::default().watch_buffer(1, 1))).await;
}

/// With few revisions kept, slow watchers are told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sqlite_store_conforms_when_it_forgets_early() {
    store::run(|| sqlite(SqliteOptions::default().retained_revisions(400).watch_buffer(16, 1 << 20))).await;
}

/// One thread must not make it wait for itself.
#[tokio::test]
async fn the_sqlite_store_conforms_on_a_single_thread() {
    store::run(|| sqlite(SqliteOptions::default())).await;
}
