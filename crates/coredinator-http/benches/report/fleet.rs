//! Processes: how soon they start, and how soon they are replaced.

use std::{collections::HashMap, process::Command, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    Outcome, pause, row,
    server::{Roll, Server, Setup, services},
    until, value,
};

const FLEET: usize = 100;
const SETTLE: Duration = Duration::from_millis(300);

fn command(roll: &Roll) -> String {
    // In the file a dollar is written twice.
    let script = roll.script("$COREDINATOR_SERVICE").replace('$', "$$");
    serde_json::json!(["/bin/sh", "-c", script]).to_string()
}

/// A fleet whose every instance has told that it runs.
struct Fleet {
    roll: Roll,
    pids: HashMap<String, Pid>,
    server: Server,
    /// From the start of coredinator, on an empty directory, until the last one told.
    up_after: Duration,
    _dir: TempDir,
}

fn fleet(keys: &str) -> Outcome<Fleet> {
    let dir = TempDir::new()?;
    let roll = Roll::new(dir.path())?;
    let services = services(FLEET, &command(&roll), keys);
    let server = Server::start(Setup { services: &services, ..Setup::default() })?;
    let (mut pids, mut last) = (HashMap::new(), server.begun);
    while pids.len() < FLEET {
        let (name, pid, at) = roll.next()?;
        pids.insert(name, pid);
        last = at;
    }
    let up_after = last - server.begun;
    until("a fleet", Duration::from_secs(20), || running(&server).map(|n| n == FLEET))?;
    Ok(Fleet { roll, pids, server, up_after, _dir: dir })
}

fn running(server: &Server) -> Outcome<usize> {
    let body = server.connect()?.get("/api/coredinator/services")?.body;
    Ok(String::from_utf8_lossy(&body).matches(r#""state":"running""#).count())
}

fn kill(pid: Pid) -> Outcome<Instant> {
    let at = Instant::now();
    kill_process(pid, Signal::KILL)?;
    Ok(at)
}

/// Crash to replacement: of the first crash, of crashes in a row, of all at once.
pub(crate) fn restarts() -> Outcome<()> {
    // What a parent that does nothing else takes, with the same program.
    let dir = TempDir::new()?;
    let roll = Roll::new(dir.path())?;
    let mut bare = Vec::new();
    let spawn = || Command::new("/bin/sh").args(["-c", &roll.script("bare")]).spawn();
    let mut child = spawn()?;
    let mut pid = roll.next()?.1;
    for _ in 0..200 {
        pause(Duration::from_millis(5));
        let at = kill(pid)?;
        child.wait()?;
        child = spawn()?;
        let (_, next, told) = roll.next()?;
        bare.push(told - at);
        pid = next;
    }
    kill(pid)?;
    child.wait()?;
    row("crash to replacement, a parent that does nothing else", &mut bare);

    // Everybody's first crash, in a random order: nothing but the default policy.
    let (mut times, mut known, mut from_nothing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let fleet = fleet("")?;
        from_nothing.push(fleet.up_after);
        pause(SETTLE);
        let mut names: Vec<&String> = fleet.pids.keys().collect();
        fastrand::shuffle(&mut names);
        let mut api = fleet.server.connect()?;
        for name in names {
            let path = format!("/api/coredinator/services/{name}");
            let at = kill(fleet.pids[name])?;
            let (told, pid, when) = fleet.roll.next()?;
            if told != *name {
                return Err(format!("{name} was killed, {told} came").into());
            }
            times.push(when - at);
            let pid = format!("\"pid\":{}", pid.as_raw_pid());
            until("the API's telling", Duration::from_secs(5), || {
                Ok(String::from_utf8_lossy(&api.get(&path)?.body).contains(&pid))
            })?;
            known.push(at.elapsed());
            pause(Duration::from_millis(5));
        }
        fleet.server.stop()?;
    }
    row("crash to replacement running, one of 100 services", &mut times);
    row("crash to the new process in the API (asked each ms)", &mut known);
    row("100 from nothing to running (with coredinator's start)", &mut from_nothing);

    let fleet = fleet("      backoff: {initial: 0}\n")?;
    pause(SETTLE);
    let name = fleet.pids.keys().next().cloned().ok_or("no fleet")?;
    let mut pid = fleet.pids[&name];
    let mut times = Vec::new();
    for _ in 0..200 {
        pause(Duration::from_millis(50));
        let at = kill(pid)?;
        let (_, next, told) = fleet.roll.next()?;
        times.push(told - at);
        pid = next;
    }
    row("killed again 50 ms after its start, backoff initial: 0", &mut times);

    let mut pids = fleet.pids.clone();
    pids.insert(name, pid);
    let mut times = Vec::new();
    for _ in 0..10 {
        pause(SETTLE);
        let at = Instant::now();
        for pid in pids.values() {
            kill_process(*pid, Signal::KILL)?;
        }
        let mut last = at;
        for _ in 0..FLEET {
            let (name, pid, told) = fleet.roll.next()?;
            pids.insert(name, pid);
            last = told;
        }
        times.push(last - at);
        until("all running", Duration::from_secs(20), || running(&fleet.server).map(|n| n == FLEET))?;
    }
    row("100 killed at once, all back", &mut times);

    let fleet = default_again(fleet)?;
    row("killed again 50 ms after its start, default back-off (1 s)", &mut [fleet]);
    Ok(())
}

/// A second crash in a row waits by design.
fn default_again(before: Fleet) -> Outcome<Duration> {
    before.server.stop()?;
    let fleet = fleet("")?;
    pause(SETTLE);
    let (_, pid) = fleet.pids.iter().next().ok_or("no fleet")?;
    kill(*pid)?;
    let (_, pid, _) = fleet.roll.next()?;
    pause(Duration::from_millis(50));
    let at = kill(pid)?;
    Ok(fleet.roll.next()?.2 - at)
}

/// From nothing to healthy, with HTTP health endpoints.
pub(crate) fn starts() -> Outcome<()> {
    let endpoint = serde_json::json!([std::env::current_exe()?, "endpoint", "{port}"]).to_string();
    let keys = "      host: 127.0.0.1\n      health_endpoint: /health\n      health_check: {interval: 1, start_period: 5, \
                start_interval: 0.1}\n";
    let services = services(FLEET, &endpoint, keys);
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let server = Server::start(Setup { services: &services, ..Setup::default() })?;
        let mut api = server.connect()?;
        let mut healthy = || -> Outcome<usize> {
            let body = api.get("/api/coredinator/services")?.body;
            Ok(String::from_utf8_lossy(&body).matches(r#""status":"healthy","reason""#).count())
        };
        until("the first", Duration::from_secs(30), || healthy().map(|n| n > 0))?;
        first.push(server.begun.elapsed());
        until("health", Duration::from_secs(30), || healthy().map(|n| n == FLEET))?;
        all.push(server.begun.elapsed());
        server.stop()?;
    }
    row("100 from nothing, the first healthy by its HTTP check", &mut first);
    row("100 from nothing, all healthy by their HTTP checks", &mut all);
    let mut empty = Vec::new();
    for _ in 0..10 {
        let server = Server::start(Setup::default())?;
        empty.push(server.ready_after);
        server.stop()?;
    }
    row("start to /readyz, new data directory", &mut empty);
    value("", "");
    Ok(())
}
