//! `kill -9` at random instants: what was acknowledged is there, whole, and revisions never go back.

#![cfg(feature = "sqlite")]

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Stdio,
    time::Duration,
};

use coredinator_core::{Batch, Key, LeaseOperation, Precondition, Revision, Store};
use coredinator_registry::store::{SqliteOptions, SqliteStore};
use futures_util::{StreamExt, future::select_all};
use tokio::{io::AsyncReadExt, process::Command};

const ROUNDS: usize = 30;
const WRITERS: usize = 4;

/// Set, in the process that is killed, to the file that it writes.
const CHILD: &str = "COREDINATOR_TEST_KILLED_WRITER";

fn options() -> SqliteOptions {
    // Few enough for the oldest to be forgotten while it is killed.
    SqliteOptions::default().retained_revisions(200)
}

fn key(side: &str, writer: usize) -> Key {
    Key::new(format!("{side}/{writer}")).unwrap()
}

/// Writes until it is killed, and prints what was acknowledged. A line without its end does not count.
async fn write_until_killed(path: &Path) {
    let store = SqliteStore::open_with(path, options()).await.unwrap();
    let acquire = LeaseOperation::Acquire { ttl: Duration::ZERO };
    println!("\nepoch {}", store.lease("leader", "child", acquire).await.unwrap().epoch);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let before = store.get(&key("left", writer)).await.unwrap();
                let mut number = before.map_or(0, |record| String::from_utf8(record.value).unwrap().parse().unwrap());
                loop {
                    number += 1;
                    let value = number.to_string().into_bytes();
                    let batch = Batch::new().put(key("left", writer), value.clone(), Precondition::Any).put(
                        key("right", writer),
                        value,
                        Precondition::Any,
                    );
                    let revision: Revision = store.write(batch).await.unwrap();
                    println!("\nack {writer} {number} {revision}");
                }
            })
        })
        .collect();
    // None of them ends by itself, unless it panics.
    select_all(writers).await.0.unwrap();
}

/// What the children were told was done.
#[derive(Default)]
struct Acknowledged {
    epoch: u64,
    revision: u64,
    /// By writer: the number, and its revision.
    numbers: HashMap<usize, (u64, u64)>,
}

impl Acknowledged {
    fn take(&mut self, output: &str) {
        let whole = output.rfind('\n').map_or("", |end| &output[..end]);
        for line in whole.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["epoch", epoch] => {
                    let epoch = epoch.parse().unwrap();
                    assert!(epoch > self.epoch, "epoch {epoch} after {}", self.epoch);
                    self.epoch = epoch;
                }
                ["ack", writer, number, revision] => {
                    let (number, revision) = (number.parse().unwrap(), revision.parse().unwrap());
                    let before = self.numbers.insert(writer.parse().unwrap(), (number, revision));
                    assert!(
                        before.is_none_or(|before| before.0 < number && before.1 < revision),
                        "{line} after {before:?}"
                    );
                    self.revision = self.revision.max(revision);
                }
                // The test harness says a few things too.
                _ => {}
            }
        }
    }

    async fn check(&self, path: &Path) {
        let store = SqliteStore::open_with(path, options()).await.unwrap();
        let listing = store.list("").await.unwrap();
        assert!(
            listing.revision.0 >= self.revision,
            "revision {} was acknowledged, {} is there",
            self.revision,
            listing.revision
        );
        let records: BTreeMap<_, _> = listing
            .records
            .iter()
            .map(|record| (record.key.clone(), (record.value.clone(), record.revision.0)))
            .collect();
        for writer in 0..WRITERS {
            let (left, right) = (records.get(&key("left", writer)), records.get(&key("right", writer)));
            assert_eq!(left, right, "writer {writer}: a batch happened in part");
            let Some((number, at)) = self.numbers.get(&writer) else { continue };
            let (value, revision) = left.expect("what was acknowledged is there");
            let value: u64 = String::from_utf8_lossy(value).parse().unwrap();
            assert!(
                value >= *number && revision >= at,
                "writer {writer}: {number} at {at} was acknowledged, {value} at {revision} is there"
            );
        }
        // The change table goes on to where the records are, without a gap.
        let from = store.check().await.unwrap().compacted;
        let mut changes = store.watch("", from).await.unwrap();
        let mut told = BTreeMap::new();
        for revision in from.0 + 1..=listing.revision.0 {
            let change = changes.next().await.unwrap().unwrap();
            assert_eq!(change.revision.0, revision);
            told.extend(change.entries.into_iter().map(|(key, value)| (key, (value.unwrap(), revision))));
        }
        for (key, last) in told {
            assert_eq!(records.get(&key), Some(&last), "{key}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    if let Some(path) = std::env::var_os(CHILD) {
        return write_until_killed(path.as_ref()).await;
    }
    let seed = std::env::var("COREDINATOR_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("COREDINATOR_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_kill_9", "--nocapture"])
            .env(CHILD, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut output = String::new();
        // A third are killed while they open the store; the others once they have written for a while.
        let mut chunk = [0; 4096];
        let wanted = if round % 3 == 0 { 0 } else { random.usize(1..40) };
        while output.matches("ack ").count() < wanted {
            let read = tokio::time::timeout(Duration::from_secs(60), stdout.read(&mut chunk)).await.unwrap().unwrap();
            assert!(read > 0, "the writer ended by itself: {output}");
            output.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        }
        tokio::time::sleep(Duration::from_micros(random.u64(0..30_000))).await;
        child.start_kill().unwrap();
        stdout.read_to_string(&mut output).await.unwrap();
        child.wait().await.unwrap();
        acknowledged.take(&output);
        acknowledged.check(&path).await;
    }
    assert!(acknowledged.revision > 0 && acknowledged.epoch > 1, "the writers came to write");
}
