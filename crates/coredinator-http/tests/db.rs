//! The commands of `db`, on real files, a real PostgreSQL server and the real binary.

#![cfg(feature = "postgres")]

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use coredinator_test_postgres::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coredinator"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("COREDINATOR_") || name_text.starts_with("PG") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).env("COREDINATOR_LOG_FORMAT", "text").stdin(Stdio::null());
    command
}

fn db(dir: &Path, arguments: &[&str]) -> Output {
    let output = command(dir).arg("db").args(arguments).output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("not-a-secret"), "{arguments:?}: {told}");
    output
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

/// A coredinator that is running; killed when dropped.
struct Server {
    child: Child,
    log: std::path::PathBuf,
}

impl Server {
    async fn start(dir: &Path, arguments: &[&str]) -> Self {
        let log = dir.join("serve.log");
        let stderr = std::fs::File::create(&log).unwrap();
        let mut serve = command(dir);
        serve
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(stderr);
        let mut server = Self { child: serve.spawn().unwrap(), log };
        let waiting = tokio::time::timeout(Duration::from_secs(60), async {
            while server.address().is_none() {
                assert!(server.child.try_wait().unwrap().is_none(), "{}", server.said());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waiting.await.expect("it listens in time");
        server
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn address(&self) -> Option<String> {
        let said = self.said();
        let at = said.find("listening on http://")? + "listening on ".len();
        Some(said[at..].lines().next()?.trim().to_owned())
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running coredinator's directory, with an external service declared.
fn plant() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let services = json!({"coredinator": {"services": {"io": {"host": "127.0.0.1", "port": 9}}}});
    std::fs::write(dir.path().join("coredinator.yaml"), services.to_string()).unwrap();
    dir
}

fn exported(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = db(dir, &[&["export"], arguments].concat());
    ends(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_while_it_runs_and_restored_while_it_does_not() {
    let dir = plant();
    let at = dir.path();
    let data = ["--data-dir", "data"];
    ends(&db(at, &["backup", "b", "--data-dir", "nowhere"]), 3);
    let server = Server::start(at, &data).await;
    let told = ends(&db(at, &["backup", "whole", "--data-dir", "data"]), 0);
    assert!(told.contains("sha256"), "{told}");
    let services = exported(at, &["--data-dir", "data", "--prefix", "services/"]);
    assert_eq!((services.len(), &services[0]["key"]), (1, &json!("services/io")), "{services:?}");
    assert!(services[0]["value"]["spec"].is_object(), "{services:?}");
    // A server that runs is not restored over, not even with force.
    let told = ends(&db(at, &["restore", "whole", "--replace", "--data-dir", "data"]), 5);
    assert!(told.contains("in use by another coredinator"), "{told}");
    server.stop();
    let told = ends(&db(at, &["restore", "whole", "--data-dir", "data"]), 5);
    assert!(told.contains("--replace"), "{told}");
    ends(&db(at, &["restore", "whole", "--replace", "--data-dir", "data"]), 0);
    ends(&db(at, &["restore", "whole", "--data-dir", "other"]), 0);
    assert_eq!(exported(at, &["--data-dir", "other", "--prefix", "services/"]), services);
    // One bit, or one line less.
    let whole = std::fs::read(at.join("whole")).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(at.join("flipped"), flipped).unwrap();
    std::fs::write(at.join("cut"), &whole[..whole.len() - 20]).unwrap();
    std::fs::write(at.join("garbage"), "garbage").unwrap();
    for damaged in ["flipped", "cut", "garbage"] {
        ends(&db(at, &["restore", damaged, "--data-dir", "third"]), 2);
        assert!(!at.join("third").exists(), "nothing is touched");
    }
    ends(&db(at, &["restore", "nothing-of-that-name", "--data-dir", "third"]), 1);
    ends(&db(at, &["backup", "b", "--database-url", "mysql://u:not-a-secret@h/d"]), 2);
    ends(&db(at, &["backup", "b", "--database-url", "postgresql://u:not-a-secret@h/d?sslmod=x"]), 2);
    ends(&db(at, &["backup", "b", "--database-url", "postgresql://u:not-a-secret@127.0.0.1:1/d"]), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_file_to_postgresql_and_on_at_the_same_revision() {
    let Some(cluster) = Cluster::shared() else { return };
    let dir = plant();
    let at = dir.path();
    let url = cluster.database();
    let server = Server::start(at, &["--data-dir", "data"]).await;
    let told = ends(&db(at, &["migrate", "--data-dir", "data", "--to", &url]), 5);
    assert!(told.contains("in use"), "{told}");
    server.stop();
    let before = exported(at, &["--data-dir", "data"]);
    ends(&db(at, &["migrate", "--from", "sqlite:data/store.sqlite", "--to", &url]), 0);
    assert_eq!(exported(at, &["--database-url", &url]), before, "records and their revisions are the same");
    ends(&db(at, &["migrate", "--from", "sqlite:data/store.sqlite", "--to", &url]), 5);
    ends(&db(at, &["migrate", "--from", "sqlite:nowhere.sqlite", "--to", &url]), 3);
    ends(&db(at, &["migrate", "--from", &url, "--to", &url]), 2);

    let server = Server::start(at, &["--data-dir", "fresh", "--database-url", &url]).await;
    let address = server.address().unwrap();
    let ask = |arguments: &[&str]| {
        let output = command(at).args(["--address", &address, "-o", "json"]).args(arguments).output().unwrap();
        ends(&output, 0);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let status = ask(&["db", "status"]);
    let store = &status["store"];
    assert_eq!((&status["reachable"], &store["backend"]), (&json!(true), &json!("postgres")), "{status}");
    assert!(!status.to_string().contains("not-a-secret"), "{status}");
    assert!(store["connections"]["max"].as_u64() > Some(2) && store["size_bytes"].as_u64() > Some(0), "{status}");
    assert!(store["writes"]["calls"].as_u64() > Some(0), "{status}");
    assert!(!store["leases"].as_array().unwrap().is_empty(), "{status}");
    // What it holds is not replaced under it, from wherever.
    let told = ends(&db(at, &["migrate", "--from", "sqlite:data/store.sqlite", "--to", &url, "--replace"]), 5);
    assert!(told.contains("holds the lease"), "{told}");
    ends(&db(at, &["backup", "of-postgres", "--database-url", &url]), 0);
    let human = command(at).args(["--address", &address, "db", "status"]).output().unwrap();
    assert!(ends(&human, 0).contains("postgres"));

    // The tests' server does not wait for its disk: the verification says so, and nothing else.
    let verify = |more: &[&str]| {
        let output =
            command(at).args(["--address", &address, "-o", "json", "db", "verify"]).args(more).output().unwrap();
        let told = ends(&output, 1);
        assert!(!told.contains("not-a-secret"), "{told}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failed = found["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == "failed");
        failed.map(|check| check["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(verify(&[]), ["durability"]);
    assert_eq!(verify(&["--candidate", &cluster.database()]), ["durability"]);
    assert_eq!(verify(&["--here", "--candidate", &cluster.database()]), ["durability"]);
    assert_eq!(verify(&["--candidate", &url.replace("not-a-secret", "wrong")]), ["connectivity"]);
    server.stop();
    ends(&db(at, &["restore", "of-postgres", "--replace", "--database-url", &url, "--data-dir", "fresh"]), 0);
    let again = Server::start(at, &["--data-dir", "fresh", "--database-url", &url]).await;
    again.stop();
}
