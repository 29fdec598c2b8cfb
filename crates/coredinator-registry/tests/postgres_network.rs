//! What lies between a store and its PostgreSQL server: a line that is cut, swallows everything, breaks in the midst of a write, or
//! is slow; and a server whose disk is.

#![cfg(feature = "postgres")]

mod postgres_kit;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use coredinator_core::{ChangeStream, Key, Revision, Store, StoreError};
use coredinator_registry::store::PostgresStore;
use coredinator_test_postgres::Cluster;
use futures_util::{FutureExt, StreamExt};
use postgres_kit::{LIMIT, PATIENCE, open, put, until, write_on};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{Instant, timeout},
};

/// How a line is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Open,
    /// Connections end, and none is made.
    Cut,
    /// Nothing comes through in either direction, and nobody is told.
    BlackHole,
    /// What the server says comes late.
    Slow(Duration),
}

/// A line to the server.
struct Line {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    breaks: Arc<Breaks>,
}

/// What breaks a connection.
#[derive(Default)]
struct Breaks {
    /// It ends after so many bytes more from the store; 0: it does not.
    after: AtomicU64,
    /// So many commits are carried out by the server, and their answers are lost.
    commits: AtomicU64,
}

impl Line {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, is) = watch::channel(Mode::Open);
        let breaks = Arc::new(Breaks::default());
        let at = Arc::clone(&breaks);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (is, at) = (is.clone(), Arc::clone(&at));
                tokio::spawn(connect(near, port, is, at));
            }
        });
        Self { address, mode, breaks }
    }

    /// The URL of the database by this line.
    fn url(&self, url: &str) -> String {
        let (user, place) = url.rsplit_once('@').unwrap();
        let (_, database) = place.split_once('/').unwrap();
        format!("{user}@{}/{database}", self.address)
    }

    fn is(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// One connection, to its end.
async fn connect(near: TcpStream, port: u16, mut is: watch::Receiver<Mode>, breaks: Arc<Breaks>) {
    let swallowed = is.wait_for(|mode| *mode != Mode::BlackHole).await.map(|mode| *mode);
    if matches!(swallowed, Ok(Mode::Cut) | Err(_)) {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    // Who is cut off is reset, as by a machine that is gone and back.
    for end in [&near, &far] {
        end.set_zero_linger().unwrap();
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let cut = async {
        // An error says that the test has ended.
        let _ = is.clone().wait_for(|mode| *mode == Mode::Cut).await;
    };
    // Whether the next answer is lost.
    let losing = AtomicBool::new(false);
    tokio::select! {
        () = cut => {}
        () = carry(near_in, far_out, is.clone(), Some(&breaks), &losing) => {}
        () = carry(far_in, near_out, is.clone(), None, &losing) => {}
    }
}

/// Carries what comes, to the end; `breaks`: what comes from the store.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is: watch::Receiver<Mode>,
    breaks: Option<&Breaks>,
    losing: &AtomicBool,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mode = is.wait_for(|mode| *mode != Mode::BlackHole).await.map(|mode| *mode);
        let Ok(mode) = mode else { return };
        let mut chunk = &buffer[..read];
        let mut ends = false;
        match breaks {
            Some(breaks) => {
                let commits = |bytes: &[u8]| bytes.windows(6).any(|word| word == b"COMMIT");
                let lose = |left: u64| left.checked_sub(1);
                if commits(chunk) && breaks.commits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
                    losing.store(true, Ordering::SeqCst);
                }
                let left = breaks.after.load(Ordering::SeqCst);
                if left > 0 {
                    ends = left <= read as u64;
                    chunk = &chunk[..read.min(usize::try_from(left).unwrap_or(usize::MAX))];
                    breaks.after.store(left.saturating_sub(read as u64), Ordering::SeqCst);
                }
            }
            None if losing.load(Ordering::SeqCst) => return,
            None => {
                if let Mode::Slow(late) = mode {
                    tokio::time::sleep(late).await;
                }
            }
        }
        if to.write_all(chunk).await.is_err() || ends {
            return;
        }
    }
}

/// Nothing that was acknowledged is lost, each at the revision that was told; what was not may have happened, once.
async fn all_there(store: &PostgresStore, acknowledged: &[(Revision, String)]) -> Revision {
    let listing = store.list("").await.unwrap();
    for (revision, key) in acknowledged {
        let record = listing.records.iter().find(|record| record.key.as_str() == key);
        assert_eq!(record.map(|record| record.revision), Some(*revision), "{key} was acknowledged");
    }
    let mut revisions: Vec<Revision> = listing.records.iter().map(|record| record.revision).collect();
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), listing.records.len(), "each write by itself");
    assert_eq!(listing.revision.0, listing.records.len() as u64, "none was written twice");
    listing.revision
}

async fn told_once(watch: &mut ChangeStream, newest: Revision) {
    for expected in 1..=newest.0 {
        let change = timeout(PATIENCE, watch.next()).await.expect("it is told in time").unwrap().unwrap();
        assert_eq!(change.revision, Revision(expected), "none is skipped or doubled");
    }
    assert!(watch.next().now_or_never().is_none(), "and nothing more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_line_that_is_cut_swallows_or_breaks_in_the_midst_of_a_write_loses_nothing_and_nobody_misses_anything() {
    let Some(cluster) = Cluster::shared() else { return };
    let seed = std::env::var("COREDINATOR_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("COREDINATOR_FAULT_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let url = cluster.database();
    let line = Line::to(cluster.port()).await;
    let (far, near) = (open(&line.url(&url)).await, open(&url).await);
    let mut watches = Vec::new();
    for store in [&far, &near] {
        watches.push(store.watch("", Revision::ZERO).await.unwrap());
    }
    let end = Arc::new(AtomicBool::new(false));
    let writers = [write_on(&far, "far", &end, 2000), write_on(&near, "near", &end, 2000)];
    for round in 0..9 {
        tokio::time::sleep(Duration::from_millis(chance.u64(0..150))).await;
        let before = near.list("far/").await.unwrap().records.len();
        match round % 3 {
            0 => {
                line.is(Mode::Cut);
                until("it is known that the server is away", async || far.unreachable_for().is_some()).await;
                let refused = far.get(&Key::new("far/0").unwrap()).await;
                assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
                line.is(Mode::Open);
            }
            1 => {
                line.is(Mode::BlackHole);
                let asked = Instant::now();
                let refused = far.write(put(&format!("late/{round}"), "x")).await;
                assert!(refused.is_err_and(|error| error.is_retryable()));
                // A connection that says nothing, one anew that says nothing, and the writer's own queue.
                assert!(asked.elapsed() < LIMIT * 20, "{:?}", asked.elapsed());
                until("it is known that the server is away", async || far.unreachable_for().is_some()).await;
                line.is(Mode::Open);
            }
            _ => {
                // Somewhere in a write: in the midst of its statement or its values, or when it has happened and nobody knows.
                for _ in 0..5 {
                    line.breaks.after.store(chance.u64(1..6000), Ordering::SeqCst);
                    until("it is broken", async || line.breaks.after.load(Ordering::SeqCst) == 0).await;
                    line.breaks.commits.store(1, Ordering::SeqCst);
                    until("an answer is lost", async || line.breaks.commits.load(Ordering::SeqCst) == 0).await;
                }
            }
        }
        until("it writes and follows again", async || {
            let now = near.list("far/").await.unwrap().records.len();
            now > before + 2 && far.unreachable_for().is_none()
        })
        .await;
        assert_eq!(near.unreachable_for(), None, "the other has nothing to do with it");
    }
    end.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    println!("{} writes were acknowledged", acknowledged.len());
    let newest = all_there(&near, &acknowledged).await;
    for watch in &mut watches {
        told_once(watch, newest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_line_delays_and_one_that_is_too_slow_is_told_and_nothing_happens_belatedly() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let line = Line::to(cluster.port()).await;
    let (far, near) = (open(&line.url(&url)).await, open(&url).await);
    let key = Key::new("a").unwrap();
    line.is(Mode::Slow(Duration::from_millis(40)));
    let mut acknowledged = Vec::new();
    for number in 0..5 {
        let key = format!("slow/{number}");
        let revision = far.write(put(&key, "x")).await.expect("slow is no fault");
        acknowledged.push((revision, key));
    }
    assert!(far.get(&key).await.is_ok());

    line.is(Mode::Slow(LIMIT * 5));
    let asked = Instant::now();
    let calls = (0..12).map(|number| {
        let store = far.clone();
        tokio::spawn(async move {
            match number % 3 {
                0 => store.get(&Key::new("a").unwrap()).await.err(),
                1 => store.list("").await.err(),
                _ => store.write(put(&format!("late/{number}"), "x")).await.err(),
            }
        })
    });
    for answer in timeout(PATIENCE, futures_util::future::join_all(calls)).await.expect("no call hangs") {
        let error = answer.unwrap().expect("too slow");
        assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
    }
    assert!(asked.elapsed() < LIMIT * 40, "{:?}", asked.elapsed());
    line.is(Mode::Open);
    until("it takes writes again", async || match far.write(put("after", "x")).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_retryable());
            false
        }
    })
    .await;
    until("what is shown is not stale", async || far.unreachable_for().is_none()).await;
    // Nothing of what was given up is still on its way.
    let newest = near.list("").await.unwrap().revision;
    far.write(put("after", "y")).await.unwrap();
    let listing = near.list("").await.unwrap();
    assert_eq!(listing.revision, newest.next());
    for (revision, key) in &acknowledged {
        let record = listing.records.iter().find(|record| record.key.as_str() == key);
        assert_eq!(record.map(|record| record.revision), Some(*revision), "{key} was acknowledged");
    }
}

/// Who waits for a disk does so in the server, in the midst of a transaction: the process that serves the writer stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_servers_disk_holds_up_who_writes_reads_go_on_and_writes_are_told() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let database = url.rsplit('/').next().unwrap().to_owned();
    let (store, other) = (open(&url).await, open(&url).await);
    let mut watch = other.watch("", Revision::ZERO).await.unwrap();
    let mut acknowledged = vec![(store.write(put("w/0", "x")).await.unwrap(), "w/0".to_owned())];
    for round in 1..=3 {
        // The process that serves the writer is the one that committed last.
        let writer = cluster.sql(
            "postgres",
            &format!("SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND query ILIKE 'COMMIT%' ORDER BY state_change DESC LIMIT 1"),
        );
        let writer = Pid::from_raw(writer.parse().unwrap_or_else(|_| panic!("{writer:?}"))).unwrap();
        kill_process(writer, Signal::STOP).unwrap();
        let refused = timeout(PATIENCE, store.write(put(&format!("late/{round}"), "x"))).await.expect("it is told");
        let error = refused.expect_err("the disk is slow");
        assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
        for reader in [&store, &other] {
            let read = timeout(PATIENCE, reader.get(&Key::new("w/0").unwrap())).await.expect("a read is answered");
            assert!(read.unwrap().is_some(), "reads go on");
        }
        kill_process(writer, Signal::CONT).unwrap();
        let mut attempt = 0;
        until("writes are taken", async || {
            attempt += 1;
            let key = format!("w/{round}/{attempt}");
            match store.write(put(&key, "x")).await {
                Ok(revision) => {
                    acknowledged.push((revision, key));
                    true
                }
                Err(error) => {
                    assert!(error.is_retryable());
                    false
                }
            }
        })
        .await;
    }
    let newest = all_there(&other, &acknowledged).await;
    told_once(&mut watch, newest).await;
}
