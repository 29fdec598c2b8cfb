//! Replicas on one PostgreSQL server: how long nobody leads when the leader leaves, and when it is killed.

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use coredinator_test_postgres::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{Outcome, http::Connection, row, until, value};

/// How often the leader leaves, and is killed: each time of that costs a lease.
const LEAVES: usize = 30;
const KILLS: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);

struct Replica {
    node: &'static str,
    port: u16,
    child: Option<Child>,
}

impl Replica {
    fn start(&mut self, dir: &Path, url: &str) -> Outcome<()> {
        let log = File::options().create(true).append(true).open(dir.join(format!("{}.log", self.node)))?;
        let data = dir.join(self.node);
        let mut command = Command::new(env!("CARGO_BIN_EXE_coredinator"));
        command.arg("serve").arg("--data-dir").arg(data).current_dir(dir);
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--node", self.node, "--database-url", url]);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        until("start-up", LIMIT, || Ok(self.says("/readyz").is_some()))?;
        Ok(())
    }

    /// What it answers, if that is 200.
    fn says(&self, path: &str) -> Option<String> {
        let answer = Connection::open(self.port).and_then(|mut connection| connection.get(path)).ok()?;
        (answer.status == 200).then(|| String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn leads(&self) -> bool {
        self.says("/api/coredinator/leadership").is_some_and(|said| said.contains(r#""role":"leader""#))
    }

    fn end(&mut self, signal: Signal) -> Outcome<Instant> {
        let child = self.child.as_ref().ok_or("it does not run")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no pid")?;
        let at = Instant::now();
        kill_process(pid, signal)?;
        Ok(at)
    }

    fn reap(&mut self) -> Outcome<()> {
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // There is nobody left to tell of an error.
        let _ = self.end(Signal::KILL).map(|_| self.reap());
    }
}

/// From the signal to the leader until the other says that it leads, with the default times of leases.
pub(crate) fn all() -> Outcome<()> {
    let Some(cluster) = Cluster::start() else { return Err("there is no PostgreSQL".into()) };
    let (dir, url) = (TempDir::new()?, cluster.database());
    let free = || -> Outcome<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
    let mut replicas = [("a", free()?), ("b", free()?)].map(|(node, port)| Replica { node, port, child: None });
    for replica in &mut replicas {
        replica.start(dir.path(), &url)?;
    }
    for (what, signal, times) in [
        ("the leader leaves (SIGTERM): until another leads", Signal::TERM, LEAVES),
        ("the leader is killed (SIGKILL): until another leads", Signal::KILL, KILLS),
    ] {
        let mut took = Vec::new();
        for _ in 0..times {
            until("a leader", LIMIT, || Ok(replicas.iter().any(Replica::leads)))?;
            let leader = replicas.iter().position(Replica::leads).ok_or("nobody leads")?;
            let at = replicas[leader].end(signal)?;
            let [a, b] = &replicas;
            let other = if leader == 0 { b } else { a };
            until("another leader", LIMIT, || Ok(other.leads()))?;
            took.push(at.elapsed());
            replicas[leader].reap()?;
            replicas[leader].start(dir.path(), &url)?;
        }
        row(what, &mut took);
    }
    value("lease, renew deadline, retry (the defaults)", "15, 10, 2 s");
    Ok(())
}
