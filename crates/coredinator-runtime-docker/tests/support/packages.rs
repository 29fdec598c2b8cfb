//! Programs that the tests need: found, or installed where that may be.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

/// Whether packages may be installed: as root of a system with apt, unless `COREDINATOR_TEST_INSTALL=no` says otherwise.
fn may_install() -> bool {
    env::var("COREDINATOR_TEST_INSTALL").as_deref() != Ok("no")
        && rustix::process::geteuid().is_root()
        && find("apt-get").is_some()
}

/// Where a program is, along `PATH` and where Debian keeps those of root.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Sees to it that these programs are there, each with the Debian package that brings it.
///
/// # Errors
/// What is missing, and how it can be had.
pub(crate) fn need(programs: &[(&str, &str)]) -> Result<(), String> {
    let missing = || programs.iter().filter(|(program, _)| find(program).is_none()).copied().collect::<Vec<_>>();
    if missing().is_empty() {
        return Ok(());
    }
    if may_install() {
        install(&missing());
    }
    match missing().as_slice() {
        [] => Ok(()),
        left => {
            let words: Vec<String> =
                left.iter().map(|(program, package)| format!("{program} (apt-get install {package})")).collect();
            Err(format!("not there: {}", words.join(", ")))
        }
    }
}

/// Installs packages, one process at a time. Whether it worked is seen by whether the programs are there.
fn install(missing: &[(&str, &str)]) {
    static HERE: Mutex<()> = Mutex::new(());
    let _here = HERE.lock();
    let lock = File::options().create(true).append(true).open(Path::new("/tmp/coredinator-test-install.lock"));
    let Ok(lock) = lock else { return };
    if lock.lock().is_err() {
        return;
    }
    let packages = missing.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package);
    let packages: Vec<&str> = packages.collect();
    if packages.is_empty() {
        return;
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    let install = [&["install", "--yes", "--no-install-recommends"], packages.as_slice()].concat();
    if !run(&install) && run(&["update"]) {
        run(&install);
    }
}
