//! Files that are locked, damaged, foreign, of a newer schema; disks that are full.

#![cfg(feature = "sqlite")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use coredinator_core::{Batch, Key, Precondition, Revision, Store, StoreError};
use coredinator_registry::store::{SqliteOptions, SqliteStore};
use futures_util::{FutureExt, StreamExt};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tracing::instrument::WithSubscriber;

fn put(key: &str, value: impl Into<Vec<u8>>) -> Batch {
    Batch::new().put(Key::new(key).unwrap(), value.into(), Precondition::Any)
}

async fn other_process(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

/// A closed store with some records in it.
async fn filled(dir: &Path) -> PathBuf {
    let path = dir.join("store.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    for number in 0..200 {
        store.write(put(&format!("n/{number:03}"), vec![b'x'; 300])).await.unwrap();
    }
    store.close().await;
    path
}

/// Opening is refused as pointless to try again, with a message that names the file, and the file is as it was.
async fn assert_refused(path: &Path, because: &str) {
    let before = fs::read(path).unwrap();
    match SqliteStore::open(path).await {
        Err(error @ StoreError::Unusable(_)) => {
            let message = error.to_string();
            assert!(message.contains(path.to_str().unwrap()) && message.contains(because), "{message}");
            assert!(!error.is_retryable());
        }
        other => panic!("{because}: opening answered {other:?}"),
    }
    assert!(fs::read(path).unwrap() == before, "{because}: the file was changed");
}

#[tokio::test]
async fn a_write_waits_for_a_lock_and_then_happens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let store =
        SqliteStore::open_with(&path, SqliteOptions::default().lock_wait(Duration::from_secs(60))).await.unwrap();
    let mut other = other_process(&path).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let mut write = store.write(put("a", "1"));
    assert!((&mut write).now_or_never().is_none());
    assert_eq!(store.get(&Key::new("a").unwrap()).await.unwrap(), None, "reads go on meanwhile");
    execute(&mut other, "COMMIT").await;
    assert_eq!(write.await.unwrap(), Revision(1));
}

#[tokio::test]
async fn a_lock_that_lasts_too_long_is_told_and_leaves_the_store_working() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let options = SqliteOptions::default().lock_wait(Duration::from_millis(100));
    let store = SqliteStore::open_with(&path, options).await.unwrap();
    let mut other = other_process(&path).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let error = store.write(put("a", "1")).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()) && message.contains("locked by another process"), "{message}");
    execute(&mut other, "COMMIT").await;
    assert_eq!(store.write(put("a", "1")).await.unwrap(), Revision(1), "what was refused did not happen");
}

/// What waits behind a lock waits with what came before it, not after that: one after the other would take six times as long.
#[tokio::test]
async fn those_who_wait_for_a_lock_wait_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let limit = Duration::from_secs(2);
    let store = SqliteStore::open_with(&path, SqliteOptions::default().lock_wait(limit)).await.unwrap();
    let mut other = other_process(&path).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let began = tokio::time::Instant::now();
    // A check is no part of a group of writes: these come one after the other.
    let writes = (0..3).map(|n| {
        let store = &store;
        async move { (store.write(put(&format!("k/{n}"), "1")).await.err(), store.check().await.err()) }
    });
    for (write, check) in futures_util::future::join_all(writes).await {
        assert!(write.is_some_and(|error| error.is_retryable()) && check.is_some_and(|error| error.is_retryable()));
    }
    assert!(began.elapsed() < limit * 4, "{:?}", began.elapsed());
    // A lock of later is waited for anew.
    execute(&mut other, "COMMIT").await;
    store.write(put("a", "1")).await.unwrap();
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let mut write = store.write(put("a", "2"));
    assert!(tokio::time::timeout(limit / 4, &mut write).await.is_err(), "it waits");
    execute(&mut other, "COMMIT").await;
    write.await.unwrap();
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn opening_a_locked_file_waits_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    let mut other = other_process(&path).await;
    execute(
        &mut other,
        "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; UPDATE meta SET revision = revision; COMMIT",
    )
    .await;

    // As long as there is only one subscriber, a message that a thread without one comes past first counts as unwanted by all.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let said = Said::default();
    let writer = said.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let options = SqliteOptions::default().lock_wait(Duration::from_secs(1));
    let error = SqliteStore::open_with(&path, options).with_subscriber(log).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("WARN") && said.contains("locked") && said.contains(path.to_str().unwrap()), "{said}");

    let patient = SqliteOptions::default().lock_wait(Duration::from_secs(60));
    let mut opening = Box::pin(SqliteStore::open_with(&path, patient));
    assert!((&mut opening).now_or_never().is_none());
    other.close().await.unwrap();
    assert_eq!(opening.await.unwrap().list("").await.unwrap().records.len(), 200);
}

#[tokio::test]
async fn damaged_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    let sound = fs::read(&path).unwrap();
    assert!(sound.len() > 10 * 4096);

    let mut garbage_header = sound.clone();
    garbage_header[..100].fill(b'?');
    let mut garbage_page = sound.clone();
    garbage_page[4096 * 2..4096 * 3].fill(0xff);
    let mut garbage_schema = sound.clone();
    garbage_schema[100..4096].fill(0x5a);
    let half = &sound[..sound.len() / 2];
    let damaged: [&[u8]; 7] =
        [b"services: {}\n", b"SQLite format 3\0", &garbage_header, &garbage_page, &garbage_schema, half, &[0; 4096]];
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        assert_refused(&path, "damaged").await;
    }
    fs::write(&path, &sound).unwrap();
    assert_eq!(SqliteStore::open(&path).await.unwrap().list("").await.unwrap().records.len(), 200);
}

#[tokio::test]
async fn flipped_bytes_never_lead_to_a_panic() {
    let seed = std::env::var("COREDINATOR_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("COREDINATOR_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    let sound = fs::read(&path).unwrap();
    let refusal = |error: &StoreError| matches!(error, StoreError::Unusable(_) | StoreError::Unavailable { .. });
    for _ in 0..40 {
        let mut bytes = sound.clone();
        for _ in 0..random.usize(1..20) {
            bytes[random.usize(0..sound.len())] ^= random.u8(1..);
        }
        let path = dir.path().join(format!("{}.sqlite", random.u64(..)));
        fs::write(&path, &bytes).unwrap();
        match SqliteStore::open_with(&path, SqliteOptions::default().lock_wait(Duration::from_millis(50))).await {
            Err(error) => {
                assert!(refusal(&error), "{error:?}");
                assert!(fs::read(&path).unwrap() == bytes, "{error}: the file was changed");
            }
            // What a check of the structure cannot see, is in a value, a key or a number.
            Ok(store) => {
                for answer in [store.list("").await.map(drop), store.write(put("a", "1")).await.map(drop)] {
                    assert!(answer.as_ref().err().is_none_or(refusal), "{answer:?}");
                }
                store.close().await;
            }
        }
    }
}

#[tokio::test]
async fn a_newer_schema_and_a_foreign_database_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    let mut other = other_process(&path).await;
    execute(&mut other, "PRAGMA user_version = 99").await;
    other.close().await.unwrap();
    assert_refused(&path, "schema version 99").await;

    let foreign = dir.path().join("foreign.sqlite");
    let mut other = other_process(&foreign).await;
    execute(&mut other, "CREATE TABLE theirs (a)").await;
    other.close().await.unwrap();
    assert_refused(&foreign, "not one of coredinator").await;
}

#[tokio::test]
async fn an_empty_file_becomes_a_store_and_a_missing_directory_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    fs::write(&path, "").unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    store.write(put("a", "1")).await.unwrap();

    let error = SqliteStore::open(dir.path().join("missing/store.sqlite")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(!dir.path().join("missing").exists());
}

#[tokio::test]
async fn two_that_open_a_new_file_at_once_both_find_it_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let opening: Vec<_> = (0..4).map(|_| tokio::spawn(SqliteStore::open(path.clone()))).collect();
    for opening in opening {
        let store = opening.await.unwrap().unwrap();
        store.write(put("a", "1")).await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("store.sqlite")).await.unwrap();
    let clone = store.clone();
    store.close().await;
    store.close().await;
    for answer in [clone.write(put("a", "1")).await.map(drop), clone.list("").await.map(drop)] {
        assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn old_revisions_are_forgotten_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions::default().retained_revisions(50);
    let store = SqliteStore::open_with(dir.path().join("store.sqlite"), options).await.unwrap();
    for number in 0..600 {
        store.write(put("a", number.to_string())).await.unwrap();
    }
    let status = store.check().await.unwrap();
    let kept = status.revision.0 - status.compacted.0;
    assert!((50..=50 + 128).contains(&kept), "{kept} revisions are kept");
    assert!(
        matches!(store.watch("", Revision::ZERO).await.err(), Some(StoreError::Compacted(at)) if at == status.compacted)
    );
}

#[tokio::test]
async fn large_values_that_change_often_do_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let options = || SqliteOptions::default().retained_bytes(1 << 20);
    let mut grown = Vec::new();
    // The second time, the weight of what is there already counts.
    for _ in 0..2 {
        let store = SqliteStore::open_with(&path, options()).await.unwrap();
        for number in 0..100_u8 {
            store.write(put("large", vec![number; 100_000])).await.unwrap();
        }
        let status = store.check().await.unwrap();
        let kept = status.revision.0 - status.compacted.0;
        assert!((10..=12).contains(&kept), "{kept} revisions of 100 kB are kept");
        let mut watch = store.watch("", status.compacted).await.unwrap();
        assert!(matches!(watch.next().await, Some(Ok(change)) if change.revision.0 == status.compacted.0 + 1));
        store.close().await;
        grown.push(std::fs::metadata(&path).unwrap().len());
    }
    assert!(grown.iter().all(|bytes| *bytes < 4 << 20), "the file has grown to {grown:?} bytes");
}

/// Writes until there is no room, then checks that nothing acknowledged is lost, and that reads go on.
async fn fill(store: &SqliteStore) -> usize {
    for number in 0..10_000 {
        let name = format!("fill/{number:05}");
        match store.write(put(&name, vec![b'x'; 20_000])).await {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
                assert!(error.to_string().contains(store.path().to_str().unwrap()), "{error}");
                assert_eq!(store.list("fill/").await.unwrap().records.len(), number);
                return number;
            }
        }
    }
    panic!("there was room for everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_without_room_does_not_take_others_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let store = SqliteStore::open_with(&path, SqliteOptions::default().max_pages(200)).await.unwrap();
    let writes: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            let size = if number % 4 == 0 { 2 << 20 } else { 10 };
            tokio::spawn(async move { store.write(put(&format!("n/{number:02}"), vec![b'x'; size])).await })
        })
        .collect();
    for (number, write) in writes.into_iter().enumerate() {
        match write.await.unwrap() {
            Ok(_) => assert_ne!(number % 4, 0),
            Err(error) => assert!(number % 4 == 0 && error.is_retryable(), "write {number}: {error:?}"),
        }
    }
    assert_eq!(store.list("n/").await.unwrap().records.len(), 15);

    let written = fill(&store).await;
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    store.write(put("after", "1")).await.unwrap();
    assert_eq!(store.list("fill/").await.unwrap().records.len(), written);
}

/// A small file system of its own, while this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(dir.path())
            .output();
        mount.is_ok_and(|mount| mount.status.success()).then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmount = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        if !unmount.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.path().display());
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![0; 1 << 20]).unwrap();
    let store = SqliteStore::open(disk.0.path().join("store.sqlite")).await.unwrap();
    let mut changes = store.watch("", Revision::ZERO).await.unwrap();
    let written = fill(&store).await;

    fs::remove_file(&filler).unwrap();
    store.check().await.unwrap();
    let revision = store.write(put("after", "1")).await.unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&revision) {
        told.push(changes.next().await.unwrap().unwrap().revision);
    }
    assert_eq!(told.len(), written + 1, "watchers were told what happened, and nothing else");
    store.close().await;
}

#[tokio::test]
async fn a_change_that_a_kill_left_unfinished_is_taken_back() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = filled(dir.path()).await;
    // As while a store is being created: a rollback journal, no write-ahead log yet. A tiny cache has the change reach the
    // file before it is committed.
    let mut other = other_process(&path).await;
    execute(&mut other, "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 2; PRAGMA cache_spill = 1").await;
    execute(
        &mut other,
        "BEGIN IMMEDIATE; CREATE TABLE half AS SELECT * FROM records; UPDATE records SET value = x'00'",
    )
    .await;
    for file in ["store.sqlite", "store.sqlite-journal"] {
        fs::copy(dir.path().join(file), crashed.path().join(file)).unwrap();
    }
    let store = SqliteStore::open(crashed.path().join("store.sqlite")).await.unwrap();
    let listing = store.list("n/").await.unwrap();
    assert_eq!(listing.records.len(), 200);
    assert!(listing.records.iter().all(|record| record.value == vec![b'x'; 300]));
}
