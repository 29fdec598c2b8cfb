//! A PostgreSQL server that is killed, restarted, paused, read-only or full, under a store that is in use.

#![cfg(feature = "postgres")]

mod postgres_kit;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coredinator_core::{Epoch, Key, LeaseOperation, Revision, Store, StoreError};
use coredinator_registry::store::{PostgresOptions, PostgresStore};
use coredinator_test_postgres::Cluster;
use futures_util::{FutureExt, StreamExt};
use postgres_kit::{PATIENCE, open, put, until, write_on};
use tokio::time::timeout;

/// Killed at random instants under two writers and a watcher on each of two stores: nothing that was acknowledged is lost,
/// and every watcher is told every revision once and in order, without being asked to list again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_killed_again_and_again_loses_nothing_and_watchers_miss_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let url = cluster.database();
    let stores = [open(&url).await, open(&url).await];
    let end = Arc::new(AtomicBool::new(false));
    let writers = [write_on(&stores[0], "a", &end, 10), write_on(&stores[1], "b", &end, 10)];
    let mut watches = Vec::new();
    for store in &stores {
        watches.push(store.watch("", Revision::ZERO).await.unwrap());
    }
    for round in 0..4 {
        let before = stores[0].list("").await.map_or(Revision::ZERO, |listing| listing.revision);
        tokio::time::sleep(Duration::from_millis(chance.u64(0..150))).await;
        match round % 4 {
            0 | 2 => cluster.kill(),
            1 => cluster.stop(),
            _ => cluster.pause(),
        }
        until("the stores know that the server is away", async || {
            stores.iter().all(|store| store.unreachable_for().is_some())
        })
        .await;
        let refused = timeout(PATIENCE, stores[0].get(&Key::new("a/0").unwrap())).await.expect("a read is answered");
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        if round % 4 == 3 {
            cluster.resume();
        } else {
            cluster.run().unwrap();
        }
        until("both write and follow again", async || {
            let newest = stores[0].list("").await.map_or(Revision::ZERO, |listing| listing.revision);
            newest > Revision(before.0 + 2) && stores.iter().all(|store| store.unreachable_for().is_none())
        })
        .await;
    }
    end.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let listing = stores[1].list("").await.unwrap();
    for (revision, key) in &acknowledged {
        let record = listing.records.iter().find(|record| record.key.as_str() == key);
        assert_eq!(record.map(|record| record.revision), Some(*revision), "{key} was acknowledged");
    }
    for watch in &mut watches {
        for expected in 1..=listing.revision.0 {
            let change = timeout(PATIENCE, watch.next()).await.expect("it is told in time").unwrap().unwrap();
            assert_eq!(change.revision, Revision(expected), "none is skipped or doubled");
        }
        assert!(watch.next().now_or_never().is_none(), "and nothing more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_paused_server_is_told_in_bounded_time_and_what_was_given_up_before_it_began_does_not_happen_later() {
    let Some(cluster) = Cluster::start() else { return };
    let store = open(&cluster.database()).await;
    store.write(put("a", "1")).await.unwrap();
    cluster.pause();
    let calls = (0..40).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = Key::new("a").unwrap();
            match number % 4 {
                0 => store.get(&key).await.err(),
                1 => store.list("").await.err(),
                2 => store.check().await.err(),
                _ => store.write(put(&format!("late/{number}"), "x")).await.err(),
            }
        })
    });
    for answer in timeout(PATIENCE, futures_util::future::join_all(calls)).await.expect("no call hangs") {
        let error = answer.unwrap().expect("a paused server answers nothing");
        assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
    cluster.resume();
    until("it takes writes again", async || store.write(put("a", "2")).await.is_ok()).await;
    let newest = store.list("").await.unwrap().revision;
    store.write(put("a", "3")).await.unwrap();
    assert_eq!(store.list("").await.unwrap().revision, newest.next(), "nothing is carried out belatedly any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_takes_no_writes_is_read_and_followed() {
    let Some(cluster) = Cluster::start() else { return };
    let url = cluster.database();
    let store = open(&url).await;
    store.write(put("a", "1")).await.unwrap();
    cluster.configure("default_transaction_read_only", "on");
    until("writes are refused", async || match store.write(put("a", "2")).await {
        Ok(_) => false,
        Err(error) => error.to_string().contains("read-only") && error.is_retryable(),
    })
    .await;
    assert!(store.get(&Key::new("a").unwrap()).await.unwrap().is_some());
    let another = open(&url).await;
    assert_eq!(another.list("a").await.unwrap().records.len(), 1, "it can be opened, too");
    assert_eq!(store.unreachable_for(), None, "what is shown is not stale");
    let verified = store.verify().await;
    let replication = verified.iter().find(|check| check.name == "replication").unwrap();
    assert!(replication.detail.contains("no writes"), "{verified:?}");
    cluster.configure("default_transaction_read_only", "off");
    until("writes are taken", async || store.write(put("a", "3")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_out_of_connections_is_told_and_gets_along_when_it_has_some() {
    let Some(cluster) = Cluster::start_with(&["max_connections=8", "superuser_reserved_connections=0"]) else { return };
    let url = cluster.database();
    let store = open(&url).await;
    store.write(put("a", "1")).await.unwrap();
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let mut taken = Vec::new();
    // Ours come and go; in the end all are theirs or in use.
    while let Ok(connection) = sqlx::ConnectOptions::connect(&options).await {
        taken.push(connection);
    }
    let error =
        PostgresStore::open_with(PostgresOptions::new(&url).unwrap().open_wait(Duration::ZERO)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("out of connections"), "{error}");
    // What it has it goes on using; more reads than connections wait for each other, or are told.
    let reads = (0..20).map(|_| store.list(""));
    for answer in futures_util::future::join_all(reads).await {
        assert!(answer.as_ref().is_ok_and(|listing| listing.records.len() == 1) || answer.unwrap_err().is_retryable());
    }
    store.write(put("a", "2")).await.unwrap();
    drop(taken);
    until("there are connections again", async || PostgresStore::open(&url).await.is_ok()).await;
    store.write(put("a", "3")).await.unwrap();
}

/// A server that takes over without the newest writes: what was told of those was never true.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watchers_list_again_where_acknowledged_writes_were_lost() {
    let Some(cluster) = Cluster::start() else { return };
    let url = cluster.database();
    let store = open(&url).await;
    for number in 0..10 {
        store.write(put(&format!("n/{number}"), "x")).await.unwrap();
    }
    let mut changes = store.watch("", Revision(10)).await.unwrap();
    cluster.sql(
        url.rsplit('/').next().unwrap(),
        "BEGIN; DELETE FROM coredinator.changes WHERE revision > 5; DELETE FROM coredinator.records WHERE revision > 5;
         UPDATE coredinator.meta SET revision = 5; COMMIT",
    );
    let told = timeout(PATIENCE, changes.next()).await.expect("it is told in time").unwrap();
    assert!(matches!(told, Err(StoreError::Compacted(_))), "{told:?}");
    let listing = store.list("").await.unwrap();
    assert_eq!((listing.revision, listing.records.len()), (Revision(5), 5));
    let mut changes = store.watch("", listing.revision).await.unwrap();
    let after = store.write(put("after", "x")).await.unwrap();
    assert_eq!(after, Revision(6));
    let told = timeout(PATIENCE, changes.next()).await.expect("it is told in time").unwrap().unwrap();
    assert_eq!(told.revision, after);
}

/// Whoever writes holds a lock; to look at a lease waits for nobody, and a server that takes no writes tells it, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_is_looked_at_while_somebody_writes_and_while_nobody_can() {
    use sqlx::Executor as _;
    let Some(cluster) = Cluster::start() else { return };
    let url = cluster.database();
    let store = open(&url).await;
    let inspect = |name: &'static str| store.lease(name, "onlooker", LeaseOperation::Inspect);
    assert_eq!(inspect("leader").await.unwrap().holder, None);
    let ttl = Duration::from_secs(600);
    let held = store.lease("leader", "one", LeaseOperation::Acquire { ttl }).await.unwrap();
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let mut writes = sqlx::ConnectOptions::connect(&options).await.unwrap();
    writes.execute("BEGIN; SELECT * FROM coredinator.meta FOR UPDATE").await.unwrap();
    assert_eq!(inspect("leader").await.unwrap(), held);
    let waits = store.write(put("a", "1")).await;
    assert!(waits.is_err_and(|error| error.is_retryable()), "a write waits for the lock, and not for ever");
    writes.execute("ROLLBACK").await.unwrap();
    cluster.configure("default_transaction_read_only", "on");
    until("writes are refused", async || store.write(put("a", "2")).await.is_err()).await;
    assert_eq!(inspect("leader").await.unwrap(), held);
    assert_eq!(inspect("never").await.unwrap().epoch, Epoch::ZERO);
}
