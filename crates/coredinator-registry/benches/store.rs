//! Writes per second, with one client and with 32: in memory, and durable in SQLite.
//!
//! `cargo bench -p coredinator-registry --bench store`. SQLite writes to the directory `TMPDIR` names (default `/tmp`): what
//! is measured there is as much the disk's sync as the code.

use std::{hint::black_box, sync::Arc};

use coredinator_core::{Batch, Key, Precondition, Store};
use coredinator_registry::store::{MemoryStore, SqliteStore};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// About what an instance's record takes.
const VALUE_BYTES: usize = 512;

const KEYS: usize = 100;

fn batch(client: usize, round: usize) -> Batch {
    let key = Key::new(format!("instances/service-{client}/{}", round % KEYS)).expect("it is a key");
    Batch::new().put(key, vec![b'x'; VALUE_BYTES], Precondition::Any)
}

async fn writes(store: Arc<dyn Store>, clients: usize, rounds: usize) {
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..rounds {
                    black_box(store.write(batch(client, round)).await).expect("the write succeeds");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("the client succeeds");
    }
}

fn benchmark(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let dir = tempfile::tempdir().expect("a temporary directory is made");
    let sqlite = runtime.block_on(SqliteStore::open(dir.path().join("store.sqlite"))).expect("the store opens");
    let stores: [(&str, Arc<dyn Store>); 2] = [("memory", Arc::new(MemoryStore::new())), ("sqlite", Arc::new(sqlite))];
    for (name, store) in stores {
        let mut group = criterion.benchmark_group(format!("write/{name}"));
        for (clients, rounds) in [(1, 20), (32, 10)] {
            group.throughput(Throughput::Elements((clients * rounds) as u64));
            group.bench_function(format!("{clients} clients"), |bencher| {
                bencher.to_async(&runtime).iter(|| writes(Arc::clone(&store), clients, rounds));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
