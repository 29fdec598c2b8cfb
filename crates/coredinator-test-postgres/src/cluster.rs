use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::{fs::chown, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    install,
    server::{Server, as_user},
};

/// Who logs in, and how.
const USER: &str = "coredinator";
const PASSWORD: &str = "not-a-secret";

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A PostgreSQL server of one's own, on a loopback port and a socket, with a superuser `coredinator`.
pub struct Cluster {
    dir: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    settings: Vec<String>,
    /// `None` while it is down.
    server: Mutex<Option<Server>>,
    /// Ends the server and removes the folder once this process is gone: its input ends then.
    watchdog: Option<Child>,
}

impl Cluster {
    /// Starts one; `None`, and a line on stderr that says so, where that is not possible.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The one that all tests of a process share, each with a [database](Self::database) of its own; it is gone soon after the
    /// process has ended. Not for those that stop or kill it.
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Cluster>> = LazyLock::new(Cluster::start);
        SHARED.as_ref()
    }

    /// One of one's own with settings of `postgresql.conf`, such as `fsync=on` (which is off unless asked for: a killed process loses
    /// nothing by it).
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        match Self::try_start(settings) {
            Ok(cluster) => Some(cluster),
            Err(why) => {
                // Not `eprintln!`, which is captured where a test passes.
                let _ = writeln!(std::io::stderr(), "SKIPPED, no test ran against a real PostgreSQL server: {why}");
                None
            }
        }
    }

    fn try_start(settings: &[&str]) -> Result<Self, String> {
        let programs = install::programs()?;
        let failed = |error: std::io::Error| error.to_string();
        let user = if rustix::process::geteuid().is_root() { Some(account()?) } else { None };
        let dir = tempfile::Builder::new().prefix("coredinator-pg-").tempdir().map_err(failed)?;
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).map_err(failed)?;
        }
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).map_err(failed)?;
        if let Some((uid, gid)) = user {
            chown(&password, Some(uid), Some(gid)).map_err(failed)?;
        }
        // A password that is sent as it is costs a test nothing; deriving a key from it, unoptimized, costs each connection
        // a tenth of a second, and many times that on a busy machine.
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", "--auth=password"]);
        initdb.arg("--username").arg(USER).arg("--pwfile").arg(&password).arg("-D").arg(dir.path().join("data"));
        as_user(&mut initdb, user);
        let made = initdb.current_dir(dir.path()).stdin(Stdio::null()).output().map_err(failed)?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(format!("initdb failed: {}", said.lines().last().unwrap_or_default()));
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(failed)?.port();
        let mut all = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", dir.path().display()),
            "fsync=off".to_owned(),
            "shared_buffers=32MB".to_owned(),
            "max_connections=100".to_owned(),
        ];
        all.extend(settings.iter().map(|&setting| setting.to_owned()));
        let mut cluster = Self { dir, programs, user, port, settings: all, server: Mutex::new(None), watchdog: None };
        cluster.watchdog = Some(cluster.watch().map_err(failed)?);
        cluster.run()?;
        Ok(cluster)
    }

    /// A process that outlives this one, however this one ends, by what it takes to clean up.
    fn watch(&self) -> std::io::Result<Child> {
        const CLEAN_UP: &str = r#"
            read -r _
            pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
            if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ]; then
                for p in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null) "$pid"; do kill -s CONT "$p"; done
                kill -s QUIT "$pid"
                while [ -e "/proc/$pid" ]; do sleep 0.1; done
            fi
            rm -rf "$1""#;
        let mut command = Command::new("sh");
        command.args(["-c", CLEAN_UP, "sh"]).arg(self.dir.path()).current_dir("/");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the server, which is down, and returns when it takes connections.
    ///
    /// # Errors
    /// What it said, if it ended or took too long.
    pub fn run(&self) -> Result<(), String> {
        let (data, log) = (self.dir.path().join("data"), self.dir.path().join("log"));
        let server = Server::start(&self.programs, &data, &log, &self.settings, self.user);
        let mut server = server.map_err(|error| format!("postgres: {error}"))?;
        let steps = PATIENCE.as_millis() / 20;
        for _ in 0..steps {
            if self.answers() {
                *self.server() = Some(server);
                return Ok(());
            }
            if server.has_ended() {
                break;
            }
            pause(Duration::from_millis(20));
        }
        server.end(Signal::QUIT);
        let said = fs::read_to_string(&log).unwrap_or_default();
        Err(format!("the server does not run: {}", said.lines().last().unwrap_or_default()))
    }

    /// Whether it takes connections, as the file says in which the postmaster writes that.
    fn answers(&self) -> bool {
        let file = fs::read_to_string(self.dir.path().join("data/postmaster.pid")).unwrap_or_default();
        let ready = file.lines().nth(7).is_some_and(|line| line.trim() == "ready");
        ready && UnixStream::connect(self.dir.path().join(format!(".s.PGSQL.{}", self.port))).is_ok()
    }

    /// A new database, as a URL of its superuser over TCP.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("test_{:016x}", fastrand::u64(..));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database, as the superuser, over TCP.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The same over the server's socket.
    #[must_use]
    pub fn socket_url(&self, database: &str) -> String {
        format!("postgresql://{USER}:{PASSWORD}@localhost:{}/{database}?host={}", self.port, self.dir.path().display())
    }

    /// The loopback port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds everything of it, `data` among it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a statement as the superuser, by `psql`, and answers what it prints.
    ///
    /// # Panics
    /// If it fails.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-c", statement]);
        // Whatever the server was made to be for others.
        psql.env("PGOPTIONS", "-c default_transaction_read_only=off");
        let output = psql.stdin(Stdio::null()).output().expect("psql can be run");
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Changes a setting of the running server, for sessions that are there, too.
    ///
    /// # Panics
    /// If it has none of that name and value.
    pub fn configure(&self, setting: &str, value: &str) {
        self.sql("postgres", &format!("ALTER SYSTEM SET {setting} = {value}"));
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Shuts it down in an orderly way, ending every session.
    pub fn stop(&self) {
        self.end(Signal::INT);
    }

    /// Kills the postmaster with SIGKILL: a crash. The next [`run`](Self::run) recovers.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    fn end(&self, signal: Signal) {
        if let Some(mut server) = self.server().take() {
            server.end(signal);
        }
    }

    /// Stops every process of the server where it is: connections stay, nothing answers.
    pub fn pause(&self) {
        if let Some(server) = &*self.server() {
            server.pause();
        }
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        if let Some(server) = &*self.server() {
            server.resume();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.resume();
        self.end(Signal::QUIT);
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("dir", &self.dir.path()).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The account that PostgreSQL's package made, or one that owns nothing.
fn account() -> Result<(u32, u32), String> {
    let accounts = fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).ok_or_else(|| "there is no account but root to run it as".to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests start servers where no runtime need be, and look at them in turns"
)]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
