//! Several coredinators on one PostgreSQL server: what each sees of the others, old and new versions side by side, moving in
//! and out, and who is let in.

#![cfg(feature = "postgres")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coredinator_core::{
    Batch, Change, Epoch, Key, LeaseOperation, Precondition, Revision, Store, StoreCheckOutcome, StoreError,
};
use coredinator_registry::store::{MemoryStore, PostgresOptions, PostgresStore, Snapshot, SqliteStore};
use coredinator_test_postgres::Cluster;
use futures_util::StreamExt;
use tokio::time::timeout;

/// An upper bound for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(at: &str, value: impl Into<Vec<u8>>) -> Batch {
    Batch::new().put(key(at), value.into(), Precondition::Any)
}

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url).await.unwrap()
}

async fn next(changes: &mut coredinator_core::ChangeStream) -> Result<Change, StoreError> {
    timeout(PATIENCE, changes.next()).await.expect("something is told in time").expect("the watch goes on")
}

/// The database's name in a URL.
fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn revisions_become_visible_in_their_order_whoever_writes() {
    const WRITERS: u64 = 3;
    const EACH: u64 = 60;
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let stores = [open(&url).await, open(&url).await, open(&url).await];
    let watcher = open(&url).await;
    let mut changes = watcher.watch("", Revision::ZERO).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .flat_map(|writer| (0..2).map(move |part| (writer, part)))
        .map(|(writer, part)| {
            let store = stores[writer as usize].clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0..EACH / 2 {
                    let name = format!("w{writer}/{part}/{number}");
                    acknowledged.push((store.write(put(&name, name.clone())).await.unwrap(), name));
                    // Whoever reads after an acknowledgement reads what was acknowledged, on any connection.
                    let (revision, name) = acknowledged.last().unwrap();
                    let seen = stores_get(&store, name).await;
                    assert_eq!(seen, *revision);
                }
                acknowledged
            })
        })
        .collect();
    let mut seen = BTreeMap::new();
    let mut last = Revision::ZERO;
    while (seen.len() as u64) < WRITERS * EACH {
        let change = next(&mut changes).await.unwrap();
        assert_eq!(change.revision, last.next(), "none is skipped, doubled or late");
        last = change.revision;
        seen.insert(change.revision, change.entries);
    }
    for writer in writers {
        for (revision, name) in writer.await.unwrap() {
            assert_eq!(seen[&revision], [(key(&name), Some(name.into_bytes()))]);
        }
    }
}

async fn stores_get(store: &PostgresStore, name: &str) -> Revision {
    store.get(&key(name)).await.unwrap().unwrap().revision
}

/// What was locked, and would have been skipped by anyone who numbers before committing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_writer_that_commits_late_is_not_overtaken() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let store = open(&url).await;
    let mut changes = store.watch("", Revision::ZERO).await.unwrap();
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let mut slow = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql(
        "BEGIN; SELECT revision FROM coredinator.meta FOR UPDATE;
         INSERT INTO coredinator.changes VALUES (1, 0, 'slow', 'x');
         INSERT INTO coredinator.records VALUES ('slow', 'x', 1);
         UPDATE coredinator.meta SET revision = 1",
    )
    .execute(&mut slow)
    .await
    .unwrap();
    let quick = store.write(put("quick", "y"));
    tokio::pin!(quick);
    // As long as the first is not visible, neither is the second.
    assert!(timeout(Duration::from_millis(300), &mut quick).await.is_err());
    assert_eq!(store.list("").await.unwrap().revision, Revision::ZERO);
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    assert_eq!(quick.await.unwrap(), Revision(2));
    // Nobody notified of the first: the table tells of it.
    assert_eq!(next(&mut changes).await.unwrap().entries[0].0, key("slow"));
    assert_eq!(next(&mut changes).await.unwrap().entries[0].0, key("quick"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_notification_a_change_is_told_nonetheless() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let store = open(&url).await;
    let mut changes = store.watch("", Revision::ZERO).await.unwrap();
    cluster.sql(
        name(&url),
        "BEGIN; INSERT INTO coredinator.changes VALUES (1, 0, 'silent', NULL);
         UPDATE coredinator.meta SET revision = 1; COMMIT",
    );
    assert_eq!(
        next(&mut changes).await.unwrap(),
        Change { revision: Revision(1), entries: vec![(key("silent"), None)] }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_stops_in_the_middle_of_a_write_holds_up_nobody_for_long() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let store = open(&format!("{url}?statement_timeout=1")).await;
    // As a coredinator does, whose process is stopped now.
    let options = format!("{url}?options=-c%20idle_in_transaction_session_timeout%3D500");
    let options: sqlx::postgres::PgConnectOptions = options.parse().unwrap();
    let mut stopped = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM coredinator.meta FOR UPDATE").execute(&mut stopped).await.unwrap();
    let written = timeout(PATIENCE, async {
        while let Err(error) = store.write(put("a", "1")).await {
            assert!(error.is_retryable(), "{error:?}");
        }
    });
    written.await.unwrap();
    assert!(sqlx::raw_sql("COMMIT").execute(&mut stopped).await.is_err(), "its session was ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_is_given_up_while_it_waits_for_the_lock_does_not_happen_later() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let store = open(&url).await;
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM coredinator.meta FOR UPDATE").execute(&mut other).await.unwrap();
    let writing = store.clone();
    let given_up = tokio::spawn(async move { writing.write(put("late", "x")).await });
    let waits = timeout(PATIENCE, async {
        const WAITING: &str =
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::raw_sql(WAITING).fetch_optional(&mut other).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waits.await.expect("it waits for the lock");
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let kept = tokio::spawn({
        let store = store.clone();
        async move { store.write(put("kept", "x")).await }
    });
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(kept.await.unwrap().unwrap(), Revision(1), "nothing came before it");
    assert!(store.get(&key("late")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watcher_far_behind_across_another_s_compaction_is_told_to_list_again() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let one = open(&url).await;
    let other = PostgresStore::open_with(PostgresOptions::new(&url).unwrap().watch_buffer(4, 1 << 20)).await.unwrap();
    let mut behind = other.watch("", Revision::ZERO).await.unwrap();
    let mut newest = Revision::ZERO;
    for number in 0..300 {
        newest = one.write(put(&format!("n/{number}"), "x")).await.unwrap();
    }
    one.compact(Revision(200)).await.unwrap();
    let mut told = 0;
    let compacted = loop {
        match next(&mut behind).await {
            Ok(change) => {
                told += 1;
                assert_eq!(change.revision, Revision(told), "what is still told is told in order");
            }
            Err(StoreError::Compacted(at)) => break at,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(compacted, Revision(200));
    let listing = other.list("").await.unwrap();
    assert_eq!((listing.records.len(), listing.revision), (300, newest));
    let mut on = other.watch("", listing.revision).await.unwrap();
    let after = one.write(put("after", "x")).await.unwrap();
    assert_eq!(next(&mut on).await.unwrap().revision, after);
    let status = other.check().await.unwrap();
    assert_eq!(status.compacted, Revision(200));
    assert!(status.compacted_at.is_some() && status.size_bytes.unwrap() > 0 && status.connections.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn history_is_kept_within_bounds_by_count_and_by_weight() {
    let Some(cluster) = Cluster::shared() else { return };
    let options = |url: &str| PostgresOptions::new(url).unwrap();
    let many = PostgresStore::open_with(options(&cluster.database()).retained_revisions(50)).await.unwrap();
    let heavy = PostgresStore::open_with(options(&cluster.database()).retained_bytes(20_000)).await.unwrap();
    for number in 0..300 {
        many.write(put(&format!("n/{number}"), "x")).await.unwrap();
    }
    for number in 0..60 {
        heavy.write(put(&format!("n/{number}"), vec![b'x'; 1000])).await.unwrap();
    }
    let status = many.check().await.unwrap();
    assert!((100..=250).contains(&status.compacted.0), "{status:?}");
    let status = heavy.check().await.unwrap();
    assert!((35..=45).contains(&status.compacted.0), "{status:?}");
    assert_eq!(heavy.list("").await.unwrap().records.len(), 60, "records stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_processes_one_holds_a_lease_and_a_fenced_write_of_the_other_is_refused() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let (one, other) = (open(&url).await, open(&url).await);
    let acquire = LeaseOperation::Acquire { ttl: Duration::from_secs(3600) };
    let attempts = (0..20).map(|number| {
        let store = if number % 2 == 0 { one.clone() } else { other.clone() };
        async move { store.lease("leader", &format!("holder {number}"), acquire).await }
    });
    let answers = futures_util::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    let lease = answers.into_iter().find_map(Result::ok).unwrap();
    assert_eq!(lease.epoch, Epoch(1));
    other.write(put("a", "1").fenced("leader", lease.epoch)).await.unwrap();
    let holder = lease.holder.clone().unwrap();
    one.lease("leader", &holder, LeaseOperation::Release { epoch: lease.epoch }).await.unwrap();
    let next = other.lease("leader", "next", acquire).await.unwrap();
    assert_eq!(next.epoch, Epoch(2));
    let refused = one.write(put("a", "2").fenced("leader", lease.epoch)).await;
    assert!(matches!(refused, Err(StoreError::Fenced { current: Epoch(2), .. })), "{refused:?}");
    assert_eq!(one.check().await.unwrap().leases, [next]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_that_open_an_empty_database_at_once_make_its_tables_once() {
    let Some(cluster) = Cluster::shared() else { return };
    // Several times: who looks while another has just committed depends on chance.
    for _ in 0..6 {
        let url = cluster.database();
        let opened = (0..8).map(|_| {
            let url = url.clone();
            tokio::spawn(async move { open(&url).await })
        });
        let opened = futures_util::future::join_all(opened).await.into_iter().map(Result::unwrap);
        let opened: Vec<_> = opened.collect();
        let writes = opened.iter().enumerate().map(|(number, store)| store.write(put(&format!("n/{number}"), "x")));
        let revisions: std::collections::BTreeSet<_> =
            futures_util::future::join_all(writes).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(revisions, (1..=8).map(Revision).collect());
        futures_util::future::join_all(opened.iter().map(PostgresStore::close)).await;
    }
}

/// The next version adds what this one can live with, and says so; the one after that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_newer_schema_is_lived_with_where_it_says_so_and_else_refused_and_left_alone() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let old = open(&url).await;
    old.write(put("a", "1")).await.unwrap();
    let upgrade = "ALTER TABLE coredinator.records ADD COLUMN note text;
        CREATE TABLE coredinator.notes (id integer);
        UPDATE coredinator.meta SET schema_version = schema_version + 1";
    cluster.sql(name(&url), upgrade);
    // Version N, which is running, and one that starts now, beside N + 1.
    let another = open(&url).await;
    assert_eq!(old.write(put("a", "2")).await.unwrap(), Revision(2));
    assert_eq!(another.write(put("b", "1")).await.unwrap(), Revision(3));
    assert_eq!(old.list("").await.unwrap().records.len(), 2);
    assert_eq!(old.check().await.unwrap().schema_version, 2);
    cluster.sql(name(&url), "UPDATE coredinator.meta SET schema_version = 7, compatible_from = 7");
    for refused in [old.write(put("a", "3")).await.err(), PostgresStore::open(&url).await.err()] {
        let error = refused.unwrap();
        assert!(matches!(error, StoreError::Unusable(_)) && !error.is_retryable(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("schema version 7") && text.contains("127.0.0.1"), "{text}");
        assert!(!text.contains("not-a-secret"), "{text}");
    }
    assert_eq!(cluster.sql(name(&url), "SELECT revision FROM coredinator.meta"), "3", "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tables_of_somebody_else_are_refused_and_left_as_they_are() {
    let Some(cluster) = Cluster::shared() else { return };
    for theirs in [
        "CREATE SCHEMA coredinator; CREATE TABLE coredinator.orders (id integer)",
        "CREATE SCHEMA coredinator; CREATE TABLE coredinator.meta (id integer, other text)",
    ] {
        let url = cluster.database();
        cluster.sql(name(&url), theirs);
        let error = PostgresStore::open(&url).await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable(_)), "{error:?}");
        assert!(error.to_string().contains("?schema="), "{error}");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'coredinator'";
        assert_eq!(cluster.sql(name(&url), tables), "1");
        // Beside them is room.
        open(&format!("{url}?schema=ours")).await.write(put("a", "1")).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_url_is_told_without_secrets() {
    for (url, because) in [
        ("", "starts with postgresql://"),
        ("sqlite://x", "starts with postgresql://"),
        ("postgresql://u:sesame@h:99999/d", "no PostgreSQL URL"),
        ("postgresql://u:sesame@h/d?sslmod=require", "did you mean sslmode?"),
        ("postgresql://u:sesame@h/d?sslmode=perhaps", "no PostgreSQL URL"),
        ("postgresql://u:sesame@h/d?schema=Robert'); DROP", "schema is"),
        ("postgresql://u:sesame@h/d?schema=pg_catalog", "schema is"),
        ("postgresql://u:sesame@h/d?max_connections=2", "max_connections is"),
        ("postgresql://u:sesame@h/d?statement_timeout=0", "statement_timeout is"),
        ("postgresql://u:sesame@h/d?connect_timeout=forever", "connect_timeout is"),
    ] {
        match PostgresOptions::new(url) {
            Err(StoreError::Invalid(text)) => {
                assert!(text.contains(because) && !text.contains("sesame"), "{url}: {text}");
            }
            other => panic!("{url}: {other:?}"),
        }
    }
    let options =
        PostgresOptions::new("postgres://u:sesame@h:1/d?schema=s&password=sesame&channel_binding=require").unwrap();
    assert_eq!(options.location(), "postgresql://u@h:1/d?schema=s");
    assert!(!format!("{options:?}").contains("sesame"), "{options:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_verification_finds_what_is_wrong_and_leaves_nothing_behind() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let verify = async |url: &str| PostgresStore::verify(PostgresOptions::new(url).unwrap()).await;
    let outcomes = |checks: &[coredinator_core::StoreCheck]| {
        checks.iter().map(|check| (check.name.clone(), check.outcome)).collect::<BTreeMap<_, _>>()
    };
    let on_empty = verify(&url).await;
    let found = outcomes(&on_empty);
    for part in
        ["connectivity", "server_version", "migrations", "privileges", "round_trip", "clock_skew", "replication"]
    {
        assert_eq!(found[part], StoreCheckOutcome::Ok, "{on_empty:?}");
    }
    // The tests' server does not wait for its disk, which is told.
    assert_eq!(found["durability"], StoreCheckOutcome::Failed, "{on_empty:?}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'coredinator'";
    assert_eq!(cluster.sql(name(&url), schemas), "0", "a database that is only looked at stays as it is");
    let store = open(&url).await;
    assert_eq!(outcomes(&store.verify().await), found);

    cluster.sql(name(&url), "CREATE ROLE weak LOGIN PASSWORD 'sesame'");
    let weak = url.replace("coredinator:not-a-secret", "weak:sesame");
    let found = verify(&weak).await;
    let privileges = found.iter().find(|check| check.name == "privileges").unwrap();
    assert_eq!(privileges.outcome, StoreCheckOutcome::Failed, "{found:?}");
    assert!(privileges.hint.is_some());
    for (wrong, because) in [
        (url.replace("not-a-secret", "sesame"), "refuses the login"),
        (url.replace(name(&url), "nowhere"), "no such database"),
        (format!("{url}?port=1"), "failed"),
        (format!("{url}?sslmode=require"), "secure connection"),
    ] {
        let found = verify(&wrong).await;
        assert_eq!(
            (found[0].name.as_str(), found[0].outcome),
            ("connectivity", StoreCheckOutcome::Failed),
            "{found:?}"
        );
        assert!(found[0].detail.contains(because) && found[0].hint.is_some(), "{because}: {:?}", found[0]);
        assert!(found[1..].iter().all(|check| check.outcome == StoreCheckOutcome::Skipped));
        assert!(!format!("{found:?}").contains("sesame"), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn moving_in_and_out_keeps_revisions_changes_and_epochs() {
    let Some(cluster) = Cluster::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let file = SqliteStore::open(&path).await.unwrap();
    for number in 0..30 {
        file.write(put(&format!("n/{}", number % 7), vec![number, 255, 0])).await.unwrap();
    }
    file.write(Batch::new().delete(key("n/3"), Precondition::Any)).await.unwrap();
    file.compact(Revision(10)).await.unwrap();
    let acquire = LeaseOperation::Acquire { ttl: Duration::from_millis(1) };
    let lease = file.lease("leader", "me", acquire).await.unwrap();
    // While it is open and written to.
    let snapshot = SqliteStore::snapshot(&path).await.unwrap().unwrap();
    assert_eq!((snapshot.revision, snapshot.compacted, snapshot.changes.len()), (Revision(31), Revision(10), 21));

    let url = cluster.database();
    let options = || PostgresOptions::new(&url).unwrap();
    assert_eq!(PostgresStore::snapshot(options()).await.unwrap(), None);
    assert!(PostgresStore::restore(options(), &snapshot, false).await.unwrap());
    assert_eq!(PostgresStore::snapshot(options()).await.unwrap().unwrap(), snapshot);
    let store = open(&url).await;
    // A watcher that had seen everything up to 20 goes on as if nothing had happened.
    let mut changes = store.watch("", Revision(20)).await.unwrap();
    let mut before = file.watch("", Revision(20)).await.unwrap();
    for _ in 20..31 {
        assert_eq!(next(&mut changes).await.unwrap(), next(&mut before).await.unwrap());
    }
    assert_eq!(store.write(put("new", "1")).await.unwrap(), Revision(32));
    assert_eq!(next(&mut changes).await.unwrap().revision, Revision(32));
    assert!(matches!(store.watch("", Revision(9)).await, Err(StoreError::Compacted(Revision(10)))));
    let long = LeaseOperation::Acquire { ttl: Duration::from_secs(60) };
    let again = timeout(PATIENCE, async {
        loop {
            if let Ok(lease) = store.lease("leader", "you", long).await {
                return lease;
            }
        }
    });
    assert_eq!(again.await.unwrap().epoch, lease.epoch.next(), "epochs go on");

    // What is there is not replaced by accident, and epochs do not fall on purpose either.
    assert!(!PostgresStore::restore(options(), &snapshot, false).await.unwrap());
    assert!(PostgresStore::restore(options(), &snapshot, true).await.unwrap());
    let replaced = PostgresStore::snapshot(options()).await.unwrap().unwrap();
    assert_eq!((&replaced.records, replaced.revision), (&snapshot.records, snapshot.revision));
    assert_eq!(replaced.leases[0].epoch, lease.epoch.next());

    // And back, by way of a file.
    let mut bytes = Vec::new();
    replaced.write_to(&mut bytes).unwrap();
    let read = Snapshot::read_from(bytes.as_slice()).unwrap();
    let second = dir.path().join("second.sqlite");
    assert!(SqliteStore::restore(&second, &read, false).await.unwrap());
    assert_eq!(SqliteStore::snapshot(&second).await.unwrap().unwrap(), replaced);
    assert!(!SqliteStore::restore(&second, &read, false).await.unwrap());
}

#[tokio::test]
async fn a_store_that_is_within_the_process_is_never_away() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    assert_eq!(store.unreachable_for(), None);
}
