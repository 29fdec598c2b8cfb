//! The store's disk is full, its file is locked by somebody, or it is damaged.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    processes,
    support::{Answer, Plant, sleeper, with},
};

/// A small file system, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["-t", "tmpfs", "-o", "size=3m", "tmpfs"];
        let mount = Command::new("mount").args(arguments).arg(dir.path()).stderr(Stdio::null()).status();
        mount.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    /// Takes all the room there is, but for a moment's worth.
    fn fill(&self) {
        let mut size = 4 << 20;
        while size >= 512 {
            let mut filler = fs::OpenOptions::new().append(true).create(true).open(self.filler()).unwrap();
            if std::io::Write::write_all(&mut filler, &vec![0; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmount = Command::new("umount").arg("-l").arg(self.0.path()).status();
        if !unmount.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.path().display());
        }
    }
}

/// A refusal as it is documented: which one, whether and when to try again.
pub(crate) fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status.as_u16(), 503, "{answer:?}");
    assert_eq!(answer.content_type, "application/problem+json");
    assert!(answer.retry_after.is_some(), "{answer:?}");
    assert_eq!((&answer.body["code"], &answer.body["retryable"]), (&json!("StoreUnavailable"), &json!(true)));
}

/// Registers until the store refuses, and answers the refusal and how many it took.
async fn register_until_refused(plant: &Plant) -> (Answer, usize) {
    for number in 0..2000 {
        let labels: serde_json::Map<String, Value> =
            (0..20).map(|label| (format!("label-{label}"), json!("x".repeat(60)))).collect();
        let external = json!({"name": format!("x{number}"), "host": "localhost", "port": 1, "labels": labels});
        let answer = plant.register(external).await.unwrap();
        if !answer.status.is_success() {
            return (answer, number);
        }
    }
    panic!("the store was never full");
}

/// What holds while the store takes nothing, and what is right again as soon as it does.
async fn a_store_without_room(plant: &Plant, make_room: impl FnOnce()) {
    let pids = plant.runs("a", 2).await;
    let (refusal, taken) = register_until_refused(plant).await;
    assert_unavailable(&refusal);
    assert_unavailable(&plant.scale("a", 3).await.unwrap());
    assert_unavailable(&plant.order("a", "stop").await.unwrap());
    assert_eq!(plant.services().await.len(), taken + 1, "what was taken is there, what was refused is not");
    assert_eq!(plant.runs("a", 2).await, pids, "running services are not touched");
    // One that dies now is not started again before that can be written down.
    let died = *pids.first().unwrap();
    processes::signal(died, Signal::KILL);
    plant.until("it is gone", async |_| !processes::is_alive(died)).await;
    assert_unavailable(&plant.scale("a", 4).await.unwrap());
    make_room();
    // Nobody asks for anything: it comes back by itself.
    let back = plant.runs("a", 2).await;
    assert_eq!(pids.intersection(&back).count(), 1, "{pids:?} {back:?}");
    plant.scale("a", 3).await.unwrap().ok();
    plant.runs("a", 3).await;
    for number in 0..taken {
        assert!(!plant.service(&format!("x{number}")).await.is_null(), "x{number} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_changes_touches_no_service_and_is_over_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let mut plant = Plant::new(&json!({"a": with(sleeper(), json!({"replicas": 2}))}));
    plant.keep_data_in(disk.0.path().join("data"));
    plant.start().await;
    plant.runs("a", 2).await;
    disk.fill();
    a_store_without_room(&plant, || fs::remove_file(disk.filler()).unwrap()).await;
    assert!(plant.terminate().await.success());
    plant.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_refuses_changes_touches_no_service_and_is_over_when_it_may() {
    let mut plant = Plant::new(&json!({"a": with(sleeper(), json!({"replicas": 2}))}));
    // Without this, the kernel ends whoever writes beyond the limit.
    plant.prelude = Some("trap '' XFSZ".to_owned());
    plant.start().await;
    plant.runs("a", 2).await;
    let pid = Pid::from_raw(i32::try_from(plant.pid()).unwrap());
    let size = fs::metadata(plant.data().join("store.sqlite-wal")).map_or(0, |metadata| metadata.len());
    let before = prlimit(pid, Resource::Fsize, Rlimit { current: Some(size + 20_000), maximum: None }).unwrap();
    a_store_without_room(&plant, || assert!(prlimit(pid, Resource::Fsize, before).is_ok())).await;
    assert!(plant.terminate().await.success());
    plant.assert_nothing_runs();
}

async fn somebody_else(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_somebody_has_the_store_locked_changes_wait_and_reads_do_not() {
    let plant = Plant::running(&json!({"a": sleeper()})).await;
    let pids = plant.runs("a", 1).await;
    let mut other = somebody_else(&plant.store()).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let scaling = plant.scale("a", 2);
    let meanwhile = async {
        plant.until("it says that it waits", async |plant| plant.said().contains("locked by another process")).await;
        for _ in 0..20 {
            assert_eq!(plant.services().await.len(), 1);
        }
        assert_eq!(plant.runs("a", 1).await, pids);
        execute(&mut other, "ROLLBACK").await;
    };
    let (scaled, ()) = tokio::join!(scaling, meanwhile);
    scaled.unwrap().ok();
    plant.runs("a", 2).await;
}

/// As on a disk that does not get on: what waits too long is told, is not done later, and nothing that was taken is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_too_long_refuses_changes_in_time_and_reads_go_on() {
    let mut plant = Plant::running(&json!({"a": sleeper()})).await;
    plant.runs("a", 1).await;
    plant.scale("a", 2).await.unwrap().ok();
    let pids = plant.runs("a", 2).await;
    let mut other = somebody_else(&plant.store()).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let reads = async {
        for _ in 0..20 {
            assert_eq!(plant.services().await.len(), 1);
            assert_eq!(plant.service("a").await["replicas"], 2);
        }
    };
    let (scaled, stopped, ()) = tokio::join!(plant.scale("a", 3), plant.order("a", "stop"), reads);
    assert_unavailable(&scaled.unwrap());
    assert_unavailable(&stopped.unwrap());
    assert_eq!(plant.runs("a", 2).await, pids, "running services are not touched");
    execute(&mut other, "ROLLBACK").await;
    plant.until("changes are taken", async |plant| plant.scale("a", 1).await.unwrap().status.is_success()).await;
    assert_eq!(plant.runs("a", 1).await.difference(&pids).count(), 0);
    plant.kill().await;
    plant.start().await;
    assert_eq!(plant.runs("a", 1).await.difference(&pids).count(), 0, "what was taken holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_locked_store_waits_says_so_and_goes_on_when_it_can() {
    let mut plant = Plant::running(&json!({"a": sleeper()})).await;
    let pids = plant.runs("a", 1).await;
    plant.kill().await;
    let mut other = somebody_else(&plant.store()).await;
    execute(&mut other, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT").await;
    plant.launch();
    plant.until("it says that it waits", async |plant| plant.said().contains("locked by another process")).await;
    assert!(plant.ended().is_none());
    assert_eq!(plant.processes().len(), 1);
    sqlx::Connection::close(other).await.unwrap();
    assert!(plant.listens().await, "{}", plant.said());
    assert_eq!(plant.runs("a", 1).await, pids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_refused_by_name_left_as_it_is_and_nothing_is_started() {
    let mut plant = Plant::running(&json!({"a": with(sleeper(), json!({"replicas": 3}))})).await;
    plant.runs("a", 3).await;
    assert!(plant.terminate().await.success());
    assert!(!plant.data().join("store.sqlite-wal").exists(), "an orderly end leaves one whole file");
    let sound = fs::read(plant.store()).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 4] = [
        ("its head overwritten", |bytes| bytes[..64].fill(0xaa)),
        ("its pages overwritten", |bytes| bytes[4096..].fill(0x5a)),
        ("cut short", |bytes| bytes.truncate(bytes.len() / 2)),
        ("another kind of file", |bytes| *bytes = b"services: {}\n".to_vec()),
    ];
    for (what, damage) in damage {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        fs::write(plant.store(), &bytes).unwrap();
        plant.launch();
        assert!(!plant.listens().await, "{what}: it started");
        assert_eq!(plant.end().await.code(), Some(1), "{what}");
        let said = plant.said();
        assert!(said.contains(plant.store().to_str().unwrap()) && said.contains("damaged"), "{what}: {said}");
        assert!(fs::read(plant.store()).unwrap() == bytes, "{what}: the file was changed");
        plant.assert_nothing_runs();
    }
    fs::write(plant.store(), &sound).unwrap();
    plant.start().await;
    plant.runs("a", 3).await;
}
