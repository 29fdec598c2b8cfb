//! Containers: how soon they are replaced, and how soon many of them run; beside the engine's own restart policy, a loop of
//! `docker run` and `docker-compose up`, on the same engine in the same run.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    Outcome,
    engine::{Engine, IMAGE},
    pause, row,
    server::{Roll, Server, Setup},
    until, value,
};

const FLEET: usize = 50;
/// How many of them crash, each once: the engine's own pauses grow with every further crash.
const CRASHES: usize = 20;
const LONG: Duration = Duration::from_secs(300);

pub(crate) fn all() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Some(engine) = runtime.block_on(Engine::start()) else { return Ok(()) };
    by_coredinator(&engine)?;
    by_the_engine(&engine)?;
    by_compose(&engine)?;
    value("", "");
    Ok(())
}

/// Where its instances tell that they run: a folder that is in them, too.
fn roll() -> Outcome<(TempDir, Roll, String)> {
    let dir = TempDir::new()?;
    let roll = Roll::new(dir.path())?;
    let folder = dir.path().display().to_string();
    Ok((dir, roll, folder))
}

/// Waits until all have told that they run.
fn everybody(roll: &Roll, since: Instant) -> Outcome<Duration> {
    let mut names = std::collections::BTreeSet::new();
    let mut last = since;
    while names.len() < FLEET {
        let (name, _, at) = roll.next()?;
        names.insert(name);
        last = at;
    }
    Ok(last - since)
}

/// The first processes of what runs, by what `label` says.
fn leaders(engine: &Engine, label: &str) -> Outcome<HashMap<String, Pid>> {
    let ids = engine.asked(&["ps", "--quiet", "--filter", &format!("label={label}")]);
    let ids: Vec<&str> = ids.split_whitespace().collect();
    let format = format!("{{{{index .Config.Labels \"{label}\"}}}} {{{{.State.Pid}}}}");
    let told = engine.asked(&[&["inspect", "--format", &format], ids.as_slice()].concat());
    let read =
        |line: &str| Some((line.split_once(' ')?.0.to_owned(), Pid::from_raw(line.split_once(' ')?.1.parse().ok()?)?));
    told.lines().map(|line| read(line).ok_or_else(|| format!("{line:?} is no container").into())).collect()
}

/// Ends the first process of some containers, one after the other, and waits each time for the one that comes instead.
fn crashes(engine: &Engine, label: &str, roll: &Roll) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for (name, pid) in leaders(engine, label)?.into_iter().take(CRASHES) {
        let at = Instant::now();
        kill_process(pid, Signal::KILL)?;
        let (told, _, when) = roll.next()?;
        if told != name {
            return Err(format!("{name} was killed, {told} came").into());
        }
        times.push(when - at);
        pause(Duration::from_millis(200));
    }
    Ok(times)
}

fn by_coredinator(engine: &Engine) -> Outcome<()> {
    let (_dir, roll, folder) = roll()?;
    let script = roll.script("$COREDINATOR_SERVICE").replace('$', "$$");
    let command = serde_json::json!(["sh", "-c", script]);
    let mut services = String::from("\n");
    for n in 0..FLEET {
        let _ = writeln!(
            services,
            "    s{n}:\n      runtime: docker\n      image: {IMAGE}\n      network_mode: none\n      command: {command}\n      \
             mounts: [\"{folder}:{folder}\"]\n      restart_policy: always\n      stop_grace_period: 1"
        );
    }
    let host = engine.host();
    let server = Server::start(Setup { services: &services, docker: Some(&host), ..Setup::default() })?;
    row("50 containers from nothing to running", &mut [everybody(&roll, server.begun)?]);
    until("the fleet", LONG, || {
        let body = server.connect()?.get("/api/coredinator/services")?.body;
        Ok(String::from_utf8_lossy(&body).matches(r#""state":"running""#).count() == FLEET)
    })?;
    pause(Duration::from_secs(1));
    row("container crash to replacement running, one of 50", &mut crashes(engine, "coredinator.service", &roll)?);
    server.stop()?;
    Ok(())
}

/// `docker run`, one after the other, and what the engine's own policy does about crashes.
fn by_the_engine(engine: &Engine) -> Outcome<()> {
    let (_dir, roll, folder) = roll()?;
    let script = roll.script("$NAME");
    let since = Instant::now();
    for n in 0..FLEET {
        let (label, name) = (format!("--label=peer=s{n}"), format!("--env=NAME=s{n}"));
        let mount = format!("--volume={folder}:{folder}");
        let how = ["run", "--detach", "--init", "--network=none", "--restart=always"];
        engine.asked(&[&how[..], &[&label, &name, &mount, IMAGE, "sh", "-c", &script]].concat());
    }
    row("docker run, 50 times: from nothing to running", &mut [everybody(&roll, since)?]);
    // What the engine has let run for less than ten seconds it makes wait longer each time.
    pause(Duration::from_secs(11));
    row("docker --restart=always: crash to running, one of 50", &mut crashes(engine, "peer", &roll)?);
    clear(engine);
    Ok(())
}

fn by_compose(engine: &Engine) -> Outcome<()> {
    let there = Command::new("docker-compose").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("docker-compose is not installed");
        return Ok(());
    }
    let (dir, roll, folder) = roll()?;
    let script = roll.script("$NAME").replace('$', "$$");
    let mut file = String::from("services:\n");
    for n in 0..FLEET {
        let command = serde_json::json!(["sh", "-c", script]);
        let _ = writeln!(
            file,
            "  s{n}:\n    image: {IMAGE}\n    network_mode: none\n    init: true\n    environment: [NAME=s{n}]\n    \
             volumes: [\"{folder}:{folder}\"]\n    command: {command}"
        );
    }
    fs::write(dir.path().join("docker-compose.yml"), file)?;
    let since = Instant::now();
    let mut up = Command::new("docker-compose");
    up.args(["--project-name", "peer", "up", "--detach"]).current_dir(dir.path()).env("DOCKER_HOST", engine.host());
    let mut up = up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let told = everybody(&roll, since);
    up.wait()?;
    row("docker-compose up, 50 services: from nothing to running", &mut [told?]);
    clear(engine);
    Ok(())
}

fn clear(engine: &Engine) {
    let all = engine.asked(&["ps", "--all", "--quiet"]);
    let all: Vec<&str> = all.split_whitespace().collect();
    if !all.is_empty() {
        engine.docker(&[&["rm", "--force", "--volumes"], all.as_slice()].concat());
    }
}
