//! Writes per second with one client and with 32, how late a watcher hears of one, and how long a start takes with 10,000
//! services: in memory, and durable in SQLite and in PostgreSQL; the writes beside etcd, where that is installed.
//!
//! `cargo bench -p coredinator-registry --all-features --bench store`. Everything durable is written to the directory that
//! `TMPDIR` names (default `/tmp`), each write waiting for the disk: what is measured there is as much the disk's sync as the
//! code. etcd is asked over its JSON gateway, on connections that stay open.

mod etcd;

use std::{hint::black_box, sync::Arc, time::Duration};

use coredinator_core::{
    Batch, Clock, Key, Origin, Precondition, ServiceRecord, ServiceSpec, SpecDefaults, Store, SystemClock,
};
use coredinator_registry::{
    Registry, RegistryOptions,
    health::ProbeRegistry,
    store::{MemoryStore, PostgresStore, SqliteStore},
};
use coredinator_test_postgres::Cluster;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::StreamExt;
use tokio::{runtime::Runtime, time::Instant};

/// About what an instance's record takes.
const VALUE_BYTES: usize = 512;

const KEYS: usize = 100;
/// How many services a store holds at a start.
const SERVICES: usize = 10_000;

/// One that writes to a store of some kind.
trait Writer: Send + Sync + 'static {
    fn write(&self, client: usize, round: usize) -> impl Future<Output = ()> + Send;
}

fn key(client: usize, round: usize) -> String {
    format!("instances/service-{client}/{}", round % KEYS)
}

struct Ours(Arc<dyn Store>);

impl Writer for Ours {
    async fn write(&self, client: usize, round: usize) {
        let key = Key::new(key(client, round)).expect("it is a key");
        let batch = Batch::new().put(key, vec![b'x'; VALUE_BYTES], Precondition::Any);
        black_box(self.0.write(batch).await).expect("the write succeeds");
    }
}

impl Writer for etcd::Etcd {
    async fn write(&self, client: usize, round: usize) {
        self.put(client, &key(client, round), &[b'x'; VALUE_BYTES]).await;
    }
}

async fn writes<W: Writer>(writer: Arc<W>, clients: usize, rounds: usize) {
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let writer = Arc::clone(&writer);
            tokio::spawn(async move {
                for round in 0..rounds {
                    writer.write(client, round).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("the client succeeds");
    }
}

fn bench_writes<W: Writer>(criterion: &mut Criterion, runtime: &Runtime, name: &str, writer: &Arc<W>) {
    let mut group = criterion.benchmark_group(format!("write/{name}"));
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    for (clients, rounds) in [(1, 20), (32, 10)] {
        group.throughput(Throughput::Elements((clients * rounds) as u64));
        group.bench_function(format!("{clients} clients"), |bencher| {
            bencher.to_async(runtime).iter(|| writes(Arc::clone(writer), clients, rounds));
        });
    }
    group.finish();
}

/// From the call of a write to when a watcher, of this store or another on the same database, has it.
fn bench_watch(
    criterion: &mut Criterion,
    runtime: &Runtime,
    name: &str,
    writer: &Arc<dyn Store>,
    watched: &Arc<dyn Store>,
) {
    let mut group = criterion.benchmark_group("watch");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group.bench_function(name, |bencher| {
        bencher.to_async(runtime).iter_custom(|rounds| {
            let (writer, watched) = (Arc::clone(writer), Arc::clone(watched));
            async move {
                let from = watched.list("none/").await.expect("it is read").revision;
                let mut changes = watched.watch("watched/", from).await.expect("it is watched");
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let key = Key::new("watched/key").expect("it is a key");
                    let since = Instant::now();
                    let write = writer.write(Batch::new().put(key, vec![b'x'; VALUE_BYTES], Precondition::Any));
                    let (written, told) = tokio::join!(write, changes.next());
                    took += since.elapsed();
                    let told = told.expect("it goes on").expect("it is told");
                    assert_eq!(told.revision, written.expect("it is written"));
                }
                took
            }
        });
    });
    group.finish();
}

fn service(number: usize) -> Vec<u8> {
    let document = serde_json::json!({"name": format!("service-{number}"), "host": "localhost", "port": 1});
    let spec = ServiceSpec::parse("", None, document, &SpecDefaults::default()).expect("it is a service");
    let record = ServiceRecord {
        spec,
        generation: 1,
        runs_since: 1,
        origin: Origin::Api,
        created_at: SystemClock.now(),
        node: None,
        deleting: false,
        config: None,
        config_revision: 0,
    };
    serde_json::to_vec(&record).expect("it is JSON")
}

async fn fill(store: &dyn Store) {
    for from in (0..SERVICES).step_by(500) {
        let batch = (from..from + 500).fold(Batch::new(), |batch, number| {
            let key = Key::new(format!("services/service-{number}")).expect("it is a key");
            batch.put(key, service(number), Precondition::Any)
        });
        store.write(batch).await.expect("the write succeeds");
    }
}

fn bench_start(criterion: &mut Criterion, runtime: &Runtime, name: &str, store: &Arc<dyn Store>) {
    runtime.block_on(fill(store.as_ref()));
    let mut group = criterion.benchmark_group(format!("start with {SERVICES} services"));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.bench_function(name, |bencher| {
        bencher.to_async(runtime).iter(|| {
            let options = RegistryOptions {
                store: Arc::clone(store),
                clock: Arc::new(SystemClock),
                probes: ProbeRegistry::builtin(),
                check_concurrency: 1,
                seed: 1,
            };
            async move {
                let registry = Registry::open(options).await.expect("it opens");
                assert!(registry.services().len() >= SERVICES, "every service is there");
                registry.close();
            }
        });
    });
    group.finish();
}

fn benchmark(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let dir = tempfile::tempdir().expect("a temporary directory is made");
    let sqlite = runtime.block_on(SqliteStore::open(dir.path().join("store.sqlite"))).expect("the store opens");
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let sqlite: Arc<dyn Store> = Arc::new(sqlite);
    let mut stores = vec![("memory", Arc::clone(&memory), memory), ("sqlite", Arc::clone(&sqlite), sqlite)];
    let cluster = Cluster::start_with(&["fsync=on", "shared_buffers=128MB"]);
    if let Some(cluster) = &cluster {
        let url = cluster.database();
        let open =
            || -> Arc<dyn Store> { Arc::new(runtime.block_on(PostgresStore::open(&url)).expect("the store opens")) };
        stores.push(("postgres", open(), open()));
    }
    for (name, store, _) in &stores {
        bench_writes(criterion, &runtime, name, &Arc::new(Ours(Arc::clone(store))));
    }
    match runtime.block_on(etcd::Etcd::start(dir.path(), 32)) {
        Some(etcd) => bench_writes(criterion, &runtime, "etcd", &Arc::new(etcd)),
        None => eprintln!("etcd is left out: it is not installed (Debian: etcd-server)"),
    }
    for (name, store, other) in &stores {
        bench_watch(criterion, &runtime, name, store, other);
    }
    for (name, store, _) in &stores {
        bench_start(criterion, &runtime, name, store);
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
