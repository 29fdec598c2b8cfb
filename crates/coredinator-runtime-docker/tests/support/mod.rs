//! A Docker engine of one's own, in a temporary folder: its data, socket and containers are nobody else's, and it makes no
//! bridge and no firewall rule.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;

pub(crate) mod packages;

/// An upper bound on whatever is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The image: busybox, from scratch.
pub(crate) const IMAGE: &str = "coredinator-test:1";

/// A running engine; it ends, with all of its containers, when dropped.
pub(crate) struct Engine {
    dir: TempDir,
    daemon: Option<Child>,
    arguments: Vec<String>,
}

/// Says in one line what was left out, and why. Not by `eprintln!`, which is captured where a test passes.
pub(crate) fn left_out(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED, {what}: {why}");
}

impl Engine {
    /// Starts one whose containers outlive its daemon; `None`, and a line that says so, where that is not possible.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(|_| vec!["--live-restore".to_owned()]).await
    }

    /// The same with other arguments for the daemon, which may stand on files in the folder that is given.
    pub(crate) async fn start_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        match Self::try_start(arguments).await {
            Ok(engine) => Some(engine),
            Err(why) => {
                left_out("a test did not run against a real Docker engine", &why);
                None
            }
        }
    }

    async fn try_start(arguments: impl FnOnce(&Path) -> Vec<String>) -> Result<Self, String> {
        packages::need(&[
            ("dockerd", "docker.io"),
            ("docker", "docker.io"),
            ("busybox", "busybox-static"),
            ("tar", "tar"),
        ])?;
        let dir = TempDir::new().map_err(|error| error.to_string())?;
        let arguments = arguments(dir.path());
        let mut engine = Self { dir, daemon: None, arguments };
        engine.run().await?;
        engine.build_image().map_err(|error| format!("no image can be built (busybox-static is needed): {error}"))?;
        Ok(engine)
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) async fn run(&mut self) -> Result<(), String> {
        let log = File::create(self.path("log")).map_err(|error| error.to_string())?;
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(self.path("data")).arg("--exec-root").arg(self.path("exec"));
        command.arg("--pidfile").arg(self.path("pid")).arg("--host").arg(self.host());
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]).args(&self.arguments);
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.daemon = Some(daemon.map_err(|error| format!("dockerd: {error}"))?);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if self.docker(&["version"]).status.success() {
                return Ok(());
            }
            let ended = self.daemon.as_mut().is_some_and(|daemon| !matches!(daemon.try_wait(), Ok(None)));
            if ended || tokio::time::Instant::now() > deadline {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                return Err(format!("dockerd does not run here: {}", log.lines().last().unwrap_or_default()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the daemon; containers go on.
    pub(crate) fn halt(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        let _ = daemon.wait();
    }

    /// The engine's address.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    /// Runs Docker's own command line.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_with(&[], arguments)
    }

    /// The same with variables.
    pub(crate) fn docker_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.envs(variables.iter().copied());
        command.env_remove("DOCKER_HOST").arg("--host").arg(self.host()).args(arguments);
        command.stdin(Stdio::null()).output().expect("docker can be run")
    }

    /// What Docker's own command line prints, trimmed.
    pub(crate) fn asked(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A folder that goes with the engine.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn build_image(&self) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        let root = self.dir.path().join("root");
        fs::create_dir_all(root.join("bin")).map_err(failed)?;
        fs::copy(Path::new("/bin/busybox"), root.join("bin/busybox")).map_err(failed)?;
        for name in ["sh", "sleep", "seq", "echo", "cat", "touch", "httpd"] {
            symlink("busybox", root.join("bin").join(name)).map_err(failed)?;
        }
        let (root, tar) = (self.path("root"), self.path("root.tar"));
        let packed = Command::new("tar").args(["-C", &root, "-cf", &tar, "."]).status().map_err(failed)?;
        let imported = self.docker(&["import", &tar, IMAGE]);
        if !packed.success() || !imported.status.success() {
            return Err(String::from_utf8_lossy(&imported.stderr).into_owned());
        }
        let tried = self.docker(&["run", "--rm", "--init", "--network=none", IMAGE, "echo", "works"]);
        if tried.stdout != b"works\n" {
            return Err(String::from_utf8_lossy(&tried.stderr).into_owned());
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            let all = self.docker(&["ps", "--all", "--quiet"]);
            let all = String::from_utf8_lossy(&all.stdout).into_owned();
            let all: Vec<&str> = all.split_whitespace().collect();
            if !all.is_empty() {
                self.docker(&[&["rm", "--force"], all.as_slice()].concat());
            }
        }
        self.halt();
        // The daemon leaves mounts of its own, which would hold the folder.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|at| Path::new(at).starts_with(self.dir.path()));
        for at in ours {
            let _ = Command::new("umount").arg(at).status();
        }
    }
}
