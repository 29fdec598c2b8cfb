//! A coredinator under measurement: the real binary, a data directory of its own, a port of its own.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{Outcome, http::Connection, until};

/// How it is started.
#[derive(Default, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// The `services` of its file, indented by four.
    pub(crate) services: &'a str,
    /// Whatever else its file says, indented by two.
    pub(crate) section: &'a str,
    /// The one CPU that it gets; both, if none is named.
    pub(crate) cpu: Option<&'a str>,
    /// The engine of its containers.
    pub(crate) docker: Option<&'a str>,
}

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    dir: TempDir,
    /// From the start of the process to the first 200 of `/readyz`.
    pub(crate) ready_after: Duration,
    pub(crate) begun: Instant,
}

impl Server {
    pub(crate) fn start(setup: Setup<'_>) -> Outcome<Self> {
        Self::start_in(TempDir::new()?, setup)
    }

    /// Starts on a data directory that may have been used before.
    pub(crate) fn start_in(dir: TempDir, setup: Setup<'_>) -> Outcome<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let services = if setup.services.is_empty() { " {}" } else { setup.services };
        let file = dir.path().join("coredinator.yaml");
        fs::write(&file, format!("coredinator:\n{}  services:{services}\n", setup.section))?;
        // Another build can be named, to compare with.
        let binary =
            std::env::var("BENCH_COREDINATOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_coredinator").to_owned());
        let mut command = pinned(binary, setup.cpu);
        command.arg("serve").arg("--config").arg(&file).arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        if setup.cpu.is_some() {
            command.env("TOKIO_WORKER_THREADS", "1");
        }
        if let Some(host) = setup.docker {
            command.env("DOCKER_HOST", host);
        }
        let log = File::options().create(true).append(true).open(dir.path().join("log"))?;
        let begun = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut server = Self { child, port, dir, ready_after: Duration::ZERO, begun };
        until("start-up", Duration::from_secs(60), || {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(server.dir.path().join("log"))?;
                return Err(format!("coredinator ended with {status}: {log}").into());
            }
            Ok(Connection::open(port).and_then(|mut c| c.get("/readyz")).is_ok_and(|answer| answer.status == 200))
        })?;
        server.ready_after = begun.elapsed();
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Outcome<Connection> {
        Connection::open(self.port)
    }

    /// Ends it with its services, and gives its directory back.
    pub(crate) fn stop(mut self) -> Outcome<TempDir> {
        self.end()?;
        Ok(std::mem::replace(&mut self.dir, TempDir::new()?))
    }

    fn end(&mut self) -> Outcome<()> {
        if self.child.try_wait()?.is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("no pid")?;
            kill_process(pid, Signal::TERM)?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Services are children of it: they end with it. There is nobody left to tell of an error.
        let _ = self.end();
    }
}

/// A command that runs on one CPU alone.
pub(crate) fn pinned(program: impl AsRef<std::ffi::OsStr>, cpu: Option<&str>) -> Command {
    match cpu {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cpu]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// `count` services that run `command`, with further keys.
pub(crate) fn services(count: usize, command: &str, keys: &str) -> String {
    let mut text = String::from("\n");
    for n in 0..count {
        let _ = writeln!(
            text,
            "    s{n}:\n      runtime: process\n      command: {command}\n      restart_policy: always\n      \
             stop_grace_period: 0.5\n{keys}"
        );
    }
    text
}

/// Where instances tell that they run: each writes one line with its service and its pid.
pub(crate) struct Roll {
    pub(crate) path: String,
    lines: std::sync::mpsc::Receiver<(String, Pid, Instant)>,
}

impl Roll {
    pub(crate) fn new(dir: &Path) -> Outcome<Self> {
        let path = dir.join("roll");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600))?;
        // Open for writing, too, so that it never ends.
        let file = File::options().read(true).write(true).open(&path)?;
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                let now = Instant::now();
                let told = line
                    .split_once(' ')
                    .and_then(|(name, pid)| Some((name.to_owned(), Pid::from_raw(pid.trim().parse().ok()?)?, now)));
                if told.is_some_and(|told| sender.send(told).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { path: path.to_string_lossy().into_owned(), lines })
    }

    /// The program that tells: a shell that writes its line and becomes `sleep`. `name` is expanded by the shell.
    pub(crate) fn script(&self, name: &str) -> String {
        format!("echo \"{name} $$\" >>{}; exec sleep 1000", self.path)
    }

    /// The next line.
    pub(crate) fn next(&self) -> Outcome<(String, Pid, Instant)> {
        Ok(self.lines.recv_timeout(Duration::from_secs(20)).map_err(|_| "nothing started within 20 s")?)
    }
}
