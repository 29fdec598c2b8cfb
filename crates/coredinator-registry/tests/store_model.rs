//! Random batches against a model: a sorted map and a counter.

#![cfg(feature = "sqlite")]

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{Batch, Change, Key, Precondition, Revision, Store, StoreError};
use coredinator_registry::store::{MemoryStore, SqliteOptions, SqliteStore};
use futures_util::StreamExt;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Expect {
    Any,
    Absent,
    Current,
    Stale,
}

#[derive(Debug, Clone)]
enum Step {
    /// Per operation: which of a few keys, what to put (`None` deletes), and what must hold.
    Write(Vec<(u8, Option<Vec<u8>>, Expect)>),
    /// Forgets this many hundredths of the revisions so far.
    Compact(u64),
    /// Drops the store and opens it again, where it is durable.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expect = prop_oneof![
        6 => Just(Expect::Any),
        1 => Just(Expect::Absent),
        3 => Just(Expect::Current),
        1 => Just(Expect::Stale),
    ];
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let write = prop::collection::vec((0..8_u8, value, expect), 0..5).prop_map(Step::Write);
    let step = prop_oneof![20 => write, 1 => (0..120_u64).prop_map(Step::Compact), 1 => Just(Step::Reopen)];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Default, Clone)]
struct Model {
    revision: u64,
    compacted: u64,
    records: BTreeMap<Key, (Vec<u8>, u64)>,
    /// The records as they stood after each revision.
    history: Vec<BTreeMap<Key, Vec<u8>>>,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Done(u64),
    Conflict(Key, Option<u64>),
    Invalid,
}

impl Model {
    fn write(&mut self, batch: &Batch) -> Verdict {
        let mut keys: Vec<_> = batch.operations.iter().map(|operation| &operation.key).collect();
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Verdict::Invalid;
        }
        for operation in &batch.operations {
            let found = self.records.get(&operation.key).map(|(_, revision)| *revision);
            let holds = match operation.precondition {
                Precondition::Any => true,
                Precondition::Absent => found.is_none(),
                Precondition::At(revision) => found == Some(revision.0),
            };
            if !holds {
                return Verdict::Conflict(operation.key.clone(), found);
            }
        }
        let effect = batch.operations.iter().any(|o| o.value.is_some() || self.records.contains_key(&o.key));
        if effect {
            self.revision += 1;
            for operation in &batch.operations {
                match &operation.value {
                    Some(value) => {
                        self.records.insert(operation.key.clone(), (value.clone(), self.revision));
                    }
                    None => {
                        self.records.remove(&operation.key);
                    }
                }
            }
            self.remember();
        }
        Verdict::Done(self.revision)
    }

    fn remember(&mut self) {
        self.history.push(self.records.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect());
    }
}

async fn follow(store: Option<SqliteStore>, memory: MemoryStore, options: Reopening, steps: Vec<Step>) {
    let mut sqlite = store;
    let mut model = Model::default();
    model.remember();
    for step in steps {
        let store: Arc<dyn Store> = match &sqlite {
            Some(sqlite) => Arc::new(sqlite.clone()),
            None => Arc::new(memory.clone()),
        };
        match step {
            Step::Write(operations) => {
                let mut batch = Batch::new();
                for (number, value, expect) in operations {
                    let key = Key::new(format!("{}/{number}", ["a", "b"][usize::from(number % 2)])).unwrap();
                    let at = model.records.get(&key).map(|(_, revision)| *revision);
                    let precondition = match expect {
                        Expect::Any => Precondition::Any,
                        Expect::Absent => Precondition::Absent,
                        Expect::Current => at.map_or(Precondition::Absent, |at| Precondition::At(Revision(at))),
                        Expect::Stale => Precondition::At(Revision(at.unwrap_or(1).saturating_sub(1))),
                    };
                    batch = match value {
                        Some(value) => batch.put(key, value, precondition),
                        None => batch.delete(key, precondition),
                    };
                }
                let verdict = match store.write(batch.clone()).await {
                    Ok(revision) => Verdict::Done(revision.0),
                    Err(StoreError::Conflict { key, found }) => Verdict::Conflict(key, found.map(|at| at.0)),
                    Err(StoreError::Invalid(_)) => Verdict::Invalid,
                    Err(other) => panic!("{batch:?} failed with {other:?}"),
                };
                assert_eq!(verdict, model.write(&batch), "{batch:?}");
            }
            Step::Compact(hundredths) => {
                let up_to = model.revision * hundredths / 100;
                store.compact(Revision(up_to)).await.unwrap();
                model.compacted = model.compacted.max(up_to.min(model.revision));
            }
            Step::Reopen => {
                drop(store);
                if let Some(old) = sqlite.take() {
                    let path = old.path().to_owned();
                    drop(old);
                    sqlite = Some(SqliteStore::open_with(path, options.0.clone()).await.unwrap());
                }
                continue;
            }
        }
        agrees(&*store, &model).await;
    }
}

/// The options with which a durable store is opened again.
struct Reopening(SqliteOptions);

async fn agrees(store: &dyn Store, model: &Model) {
    for prefix in ["", "a/", "b/1"] {
        let listing = store.list(prefix).await.unwrap();
        let expected: Vec<_> = model.records.iter().filter(|(key, _)| key.as_str().starts_with(prefix)).collect();
        let found: Vec<_> =
            listing.records.iter().map(|record| (&record.key, record.value.clone(), record.revision.0)).collect();
        let expected: Vec<_> = expected.into_iter().map(|(key, (value, at))| (key, value.clone(), *at)).collect();
        assert_eq!((found, listing.revision.0), (expected, model.revision));
    }
    // What a watch tells, on top of how it was, is how it is; at every revision between.
    for prefix in ["", "b/"] {
        let mut changes = store.watch(prefix, Revision(model.compacted)).await.unwrap();
        let watched = |at: u64| {
            let all = model.history[usize::try_from(at).unwrap()].clone();
            all.into_iter().filter(|(key, _)| key.as_str().starts_with(prefix)).collect::<BTreeMap<_, _>>()
        };
        let touched = |at: &u64| watched(*at) != watched(*at - 1);
        let mut state = watched(model.compacted);
        let last = (model.compacted + 1..=model.revision).rev().find(touched).unwrap_or(0);
        let mut at = model.compacted;
        while at < last {
            let Change { revision, entries } = changes.next().await.unwrap().unwrap();
            assert!(revision.0 > at && !entries.is_empty());
            at = revision.0;
            for (key, value) in entries {
                match value {
                    Some(value) => drop(state.insert(key, value)),
                    None => drop(state.remove(&key)),
                }
            }
            assert_eq!(state, watched(at), "at revision {at}");
        }
        assert_eq!(state, watched(model.revision));
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_memory_store_does_as_the_model(steps in steps()) {
        block_on(follow(None, MemoryStore::new(), Reopening(SqliteOptions::default()), steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_sqlite_store_does_as_the_model(steps in steps(), buffer in 1..40_usize) {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteOptions::default().watch_buffer(buffer, 1 << 20);
        block_on(async {
            let store = SqliteStore::open_with(dir.path().join("store.sqlite"), options.clone()).await.unwrap();
            follow(Some(store), MemoryStore::new(), Reopening(options), steps).await;
        });
    }
}
