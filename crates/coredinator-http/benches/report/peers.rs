//! The same crash and the same program under other supervisors, where they are installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{Outcome, pause, row, server::Roll};

const FLEET: usize = 100;

/// Ends the peer by its own orderly signal, and then whatever told that it runs.
struct Peer {
    child: Child,
    signal: Signal,
    pids: Vec<Pid>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, self.signal);
        }
        for _ in 0..3000 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            pause(Duration::from_millis(1));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in &self.pids {
            let _ = kill_process(*pid, Signal::KILL);
        }
    }
}

fn quiet(command: &mut Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    std::mem::replace(command, Command::new("true"))
}

/// One directory a service, as runit and s6 want them.
fn directories(dir: &Path, roll: &Roll) -> Outcome<()> {
    for n in 0..FLEET {
        let service = dir.join(format!("s{n}"));
        fs::create_dir_all(&service)?;
        let run = service.join("run");
        fs::write(&run, format!("#!/bin/sh\n{}\n", roll.script(&format!("s{n}"))))?;
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn runit(dir: &Path, roll: &Roll) -> Outcome<(Command, Signal)> {
    directories(dir, roll)?;
    Ok((quiet(Command::new("runsvdir").arg(dir)), Signal::HUP))
}

fn s6(dir: &Path, roll: &Roll) -> Outcome<(Command, Signal)> {
    directories(dir, roll)?;
    Ok((quiet(Command::new("s6-svscan").arg("-c").arg("500").arg(dir)), Signal::TERM))
}

fn supervisord(dir: &Path, roll: &Roll) -> Outcome<(Command, Signal)> {
    let mut text = String::from("[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=pid\n");
    for n in 0..FLEET {
        let script = roll.script(&format!("s{n}")).replace('"', "\\\"");
        text.push_str(&format!(
            "[program:s{n}]\ncommand=/bin/sh -c \"{script}\"\nautorestart=true\nstartsecs=1\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
        ));
    }
    let file = dir.join("supervisord.conf");
    fs::write(&file, text)?;
    Ok((quiet(Command::new("supervisord").arg("-c").arg(&file).current_dir(dir)), Signal::TERM))
}

type Prepare = fn(&Path, &Roll) -> Outcome<(Command, Signal)>;

pub(crate) fn restarts() -> Outcome<()> {
    let peers: [(&str, &str, usize, Prepare); 3] = [
        ("runit", "runsvdir", 100, runit),
        ("s6", "s6-svscan", 20, s6),
        ("supervisord", "supervisord", 10, supervisord),
    ];
    for (name, program, rounds, prepare) in peers {
        let there = Command::new("which").arg(program).stdout(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            println!("{name} is not installed");
            continue;
        }
        if let Err(error) = measure(name, rounds, prepare) {
            println!("{name}: not measured: {error}");
        }
    }
    Ok(())
}

fn measure(name: &str, rounds: usize, prepare: Prepare) -> Outcome<()> {
    let dir = TempDir::new()?;
    let tree = dir.path().join("services");
    fs::create_dir(&tree)?;
    let roll = Roll::new(dir.path())?;
    let (mut command, signal) = prepare(&tree, &roll)?;
    let begun = Instant::now();
    let mut peer = Peer { child: command.spawn()?, signal, pids: Vec::new() };
    let mut last = begun;
    for _ in 0..FLEET {
        let (_, pid, at) = roll.next()?;
        peer.pids.push(pid);
        last = at;
    }
    row(&format!("{name}: 100 from nothing to running"), &mut [last - begun]);
    // The first second of an instance's life is special to all of them.
    pause(Duration::from_millis(2500));
    let mut times = Vec::new();
    for n in 0..rounds {
        let at = Instant::now();
        kill_process(peer.pids[n], Signal::KILL)?;
        let (_, pid, told) = roll.next()?;
        peer.pids[n] = pid;
        times.push(told - at);
        pause(Duration::from_millis(5));
    }
    row(&format!("{name}: crash to replacement running, one of 100"), &mut times);
    pause(Duration::from_millis(2500));
    let mut times = Vec::new();
    for _ in 0..3 {
        let at = Instant::now();
        for pid in &peer.pids {
            kill_process(*pid, Signal::KILL)?;
        }
        let mut pids = Vec::new();
        let mut last = at;
        for _ in 0..FLEET {
            let (_, pid, told) = roll.next()?;
            pids.push(pid);
            last = told;
        }
        peer.pids = pids;
        times.push(last - at);
        pause(Duration::from_millis(2500));
    }
    row(&format!("{name}: 100 killed at once, all back"), &mut times);
    Ok(())
}
