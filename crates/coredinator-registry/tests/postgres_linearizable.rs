//! What several clients of several stores saw, while the server was killed and paused, is what one after the other could have
//! seen: every recorded history of a key is linearizable.

#![cfg(feature = "postgres")]

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use coredinator_core::{Batch, Key, Precondition, Store, StoreError};
use coredinator_registry::store::{PostgresOptions, PostgresStore};
use coredinator_test_postgres::Cluster;

/// A value; no two writes put the same. 0: there is none.
type Value = u64;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    /// Saw this.
    Read(Value),
    /// Put this, whatever was there.
    Put(Value),
    /// Put the second where the first was; `true`: that was so.
    Swap(Value, Value, bool),
}

/// One call, from when to when by a clock of the whole test.
#[derive(Debug, Clone, Copy)]
struct Operation {
    call: Call,
    from: u64,
    /// `None`: no answer came, so it happened at any time after `from`, or never.
    to: Option<u64>,
}

/// What a register that holds `before` holds after the call; `None`: it would have answered something else.
fn apply(call: Call, known: bool, before: Value) -> Option<Value> {
    match call {
        Call::Read(seen) => (seen == before).then_some(before),
        Call::Put(value) => Some(value),
        Call::Swap(expected, value, swapped) => match (expected == before, known) {
            (true, false) => Some(value),
            (false, false) => Some(before),
            (fits, true) => (fits == swapped).then_some(if swapped { value } else { before }),
        },
    }
}

/// Whether the operations on one register can have happened one after the other, each between its call and its answer.
fn linearizable(history: &[Operation]) -> bool {
    assert!(history.len() <= 128, "a history is small enough to be searched");
    let answered =
        history.iter().enumerate().filter(|(_, op)| op.to.is_some()).fold(0_u128, |set, (i, _)| set | 1 << i);
    let mut seen = HashSet::new();
    let mut open = vec![(0_u128, 0)];
    while let Some((done, value)) = open.pop() {
        if done & answered == answered {
            return true;
        }
        if !seen.insert((done, value)) {
            continue;
        }
        let left = || history.iter().enumerate().filter(|(i, _)| done & (1 << i) == 0);
        // Nothing may come after something that was answered before it was called.
        let first_answer = left().filter_map(|(_, op)| op.to).min().unwrap_or(u64::MAX);
        for (i, op) in left().filter(|(_, op)| op.from < first_answer) {
            if let Some(after) = apply(op.call, op.to.is_some(), value) {
                open.push((done | 1 << i, after));
            }
        }
    }
    false
}

#[test]
fn the_checker_tells_good_histories_from_bad_ones() {
    let op = |call, from, to| Operation { call, from, to: Some(to) };
    let lost = |call, from| Operation { call, from, to: None };
    use Call::{Put, Read, Swap};
    for (history, good) in [
        (vec![], true),
        (vec![op(Put(1), 1, 2), op(Read(1), 3, 4)], true),
        (vec![op(Put(1), 1, 2), op(Read(0), 3, 4)], false),
        // While a write is under way either may be seen, but not the new and then the old.
        (vec![op(Put(1), 1, 8), op(Read(0), 2, 3), op(Read(1), 4, 5)], true),
        (vec![op(Put(1), 1, 8), op(Read(1), 2, 3), op(Read(0), 4, 5)], false),
        (vec![op(Put(1), 1, 2), op(Swap(1, 2, true), 3, 4), op(Swap(1, 3, true), 5, 6)], false),
        (vec![op(Put(1), 1, 2), op(Swap(1, 2, true), 3, 6), op(Swap(1, 3, false), 4, 5)], true),
        (vec![op(Put(1), 1, 2), op(Swap(1, 2, false), 3, 4)], false),
        // Without an answer it happened later, or never; but not before it was asked for, and not twice.
        (vec![op(Put(1), 1, 2), lost(Put(2), 3), op(Read(1), 4, 5), op(Read(2), 6, 7)], true),
        (vec![op(Put(1), 1, 2), lost(Put(2), 3), op(Read(1), 4, 5)], true),
        (vec![op(Put(1), 1, 2), op(Read(2), 3, 4), lost(Put(2), 5)], false),
        (vec![lost(Put(2), 1), op(Read(2), 2, 3), op(Put(3), 4, 5), op(Read(2), 6, 7)], false),
        // An acknowledged write that is gone.
        (vec![op(Put(1), 1, 2), op(Put(2), 3, 4), op(Read(1), 5, 6)], false),
    ] {
        assert_eq!(linearizable(&history), good, "{history:?}");
    }
}

/// What is recorded, per key, and the clock that orders it.
#[derive(Default)]
struct Record {
    clock: AtomicU64,
    values: AtomicU64,
    keys: [Mutex<Vec<Operation>>; KEYS],
}

const KEYS: usize = 6;

/// So many operations of a key are recorded that a search ends.
const EACH: usize = 100;

impl Record {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// One call of a client, chosen by chance.
    async fn step(&self, store: &PostgresStore, chance: &mut fastrand::Rng) {
        let number = chance.usize(0..KEYS);
        let key = Key::new(format!("register/{number}")).unwrap();
        let read = |record: Option<coredinator_core::Record>| {
            record.map_or((0, Precondition::Absent), |record| {
                let value = String::from_utf8(record.value).unwrap().parse().unwrap();
                (value, Precondition::At(record.revision))
            })
        };
        let from = self.now();
        let (seen, at) = match store.get(&key).await {
            Ok(record) => read(record),
            Err(error) => return assert!(error.is_retryable(), "{error:?}"),
        };
        self.add(number, Operation { call: Call::Read(seen), from, to: Some(self.now()) });
        if chance.u8(0..3) == 0 {
            return;
        }
        let value = self.values.fetch_add(1, Ordering::SeqCst) + 1;
        let swap = chance.bool();
        let precondition = if swap { at } else { Precondition::Any };
        let from = self.now();
        let answer = store.write(Batch::new().put(key, value.to_string().into(), precondition)).await;
        let to = self.now();
        let call = |swapped| if swap { Call::Swap(seen, value, swapped) } else { Call::Put(value) };
        let (call, to) = match answer {
            Ok(_) => (call(true), Some(to)),
            Err(StoreError::Conflict { .. }) => (call(false), Some(to)),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                (call(true), None)
            }
        };
        self.add(number, Operation { call, from, to });
    }

    fn add(&self, key: usize, operation: Operation) {
        self.keys[key].lock().unwrap().push(operation);
    }

    /// Waits until so many operations are recorded, or one key's are as many as can be.
    async fn until(&self, count: usize) {
        let recorded = || self.keys.iter().map(|key| key.lock().unwrap().len()).sum::<usize>();
        let waiting = tokio::time::timeout(Duration::from_secs(90), async {
            while recorded() < count && !self.full() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waiting.await.expect("clients get on between the faults");
    }

    fn full(&self) -> bool {
        self.keys.iter().any(|key| key.lock().unwrap().len() >= EACH)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_clients_saw_under_faults_is_linearizable() {
    let Some(cluster) = Cluster::start() else { return };
    let cluster = Arc::new(cluster);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let short = Duration::from_millis(700);
    let options = PostgresOptions::new(&cluster.database()).unwrap().statement_timeout(short).connect_timeout(short);
    let (record, end) = (Arc::new(Record::default()), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let store = PostgresStore::open_with(options.clone()).await.unwrap();
        for _ in 0..2 {
            let (store, record, end) = (store.clone(), Arc::clone(&record), Arc::clone(&end));
            let mut chance = chance.fork();
            clients.push(tokio::spawn(async move {
                while !end.load(Ordering::Relaxed) && !record.full() {
                    record.step(&store, &mut chance).await;
                    tokio::time::sleep(Duration::from_millis(chance.u64(0..20))).await;
                }
            }));
        }
    }
    for round in 1..=5 {
        record.until(40 * round).await;
        tokio::time::sleep(Duration::from_millis(chance.u64(0..50))).await;
        if chance.bool() {
            cluster.kill();
            tokio::time::sleep(Duration::from_millis(chance.u64(0..200))).await;
            cluster.run().unwrap();
        } else {
            cluster.pause();
            tokio::time::sleep(Duration::from_millis(chance.u64(0..900))).await;
            cluster.resume();
        }
    }
    record.until(240).await;
    end.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let mut lost = 0;
    let mut known = 0;
    for key in &record.keys {
        let history = key.lock().unwrap().clone();
        lost += history.iter().filter(|operation| operation.to.is_none()).count();
        known += history.len();
        assert!(linearizable(&history), "seed {seed}: {history:#?}");
    }
    println!("{known} operations, of which {lost} without an answer");
    assert!(known > 90, "something was recorded");
}
