//! Where the programs of PostgreSQL are; installs them where they are missing and that may be done.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The folder that holds `initdb` and `postgres`.
pub(crate) fn programs() -> Result<PathBuf, String> {
    if let Some(found) = find() {
        return Ok(found);
    }
    install()?;
    find().ok_or_else(|| "it was installed, but initdb is still not to be found".to_owned())
}

fn find() -> Option<PathBuf> {
    let complete = |dir: &Path| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    debian.sort();
    // The newest first.
    debian.into_iter().rev().chain(on_path.unwrap_or_default()).find(|dir| complete(dir))
}

fn install() -> Result<(), String> {
    let may = rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists();
    if !may {
        return Err("PostgreSQL is not installed (Debian: apt-get install postgresql)".to_owned());
    }
    // Several test programs may find it missing at the same time.
    let lock = File::create("/var/lock/coredinator-test-postgres").map_err(|error| error.to_string())?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
    if find().is_some() {
        return Ok(());
    }
    // No server of the system's own is to start.
    let settings = Path::new("/etc/postgresql-common/createcluster.conf");
    if !settings.exists() {
        let _ = fs::create_dir_all("/etc/postgresql-common");
        let _ = fs::write(settings, "create_main_cluster = false\n");
    }
    apt(&["update", "-q"])?;
    apt(&["install", "-q", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "postgresql"])
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=2"]).args(arguments);
    let run = command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).output();
    let output = run.map_err(|error| format!("apt-get: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("apt-get {} failed: {}", arguments[0], said.lines().last().unwrap_or_default()))
}
