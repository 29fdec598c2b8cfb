//! The PostgreSQL store passes the public suite, on a real server.

#![cfg(feature = "postgres")]

use std::time::Duration;

use coredinator_core::conformance::store::{self, Subject};
use coredinator_registry::store::{PostgresOptions, PostgresStore};
use coredinator_test_postgres::Cluster;

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the suite, each case in a schema of its own.
async fn conforms(change: impl Fn(PostgresOptions) -> PostgresOptions) {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let next = std::sync::atomic::AtomicU32::new(0);
    store::run(|| async {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // The suite is not about time: a machine that stands still for seconds is no fault of the store.
        let options = PostgresOptions::new(&format!("{url}?schema=case_{number}")).unwrap();
        let options = change(options.statement_timeout(PATIENCE));
        let again = options.clone();
        Subject::new(PostgresStore::open_with(options).await.unwrap()).reopened_by(move || {
            let options = again.clone();
            async move { PostgresStore::open_with(options).await.unwrap() }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_postgres_store_conforms() {
    conforms(|options| options).await;
}

/// With next to nothing in memory, watchers live from the change table.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_postgres_store_conforms_when_watchers_read_the_table() {
    conforms(|options| options.watch_buffer(1, 1)).await;
}

/// With few revisions kept, slow watchers are told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_postgres_store_conforms_when_it_forgets_early() {
    conforms(|options| options.retained_revisions(400).watch_buffer(16, 1 << 20)).await;
}

/// One thread must not make it wait for itself.
#[tokio::test]
async fn the_postgres_store_conforms_on_a_single_thread() {
    conforms(|options| options).await;
}
