//! Commands inside an instance, which here means: with its directory and its variables; and what it was really asked.

use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, process::Stdio};

use coredinator_core::{ExecOutcome, ExecRequest, RuntimeError, redacted_variables};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::{net::unix::pipe, process::Command};

use crate::{command::expand, instance::Instance, procfs};

/// How often what a command writes is looked at before somebody else's turn comes.
const LOOKS: usize = 16;

/// Runs a command with the directory and the variables of a process. It is in a process group of its own, which is killed
/// as a whole when the command has ended, and when it is given up.
///
/// # Errors
/// [`RuntimeError::NotStarted`]: `CommandNotFound`, `NotExecutable`, `SpawnFailed`.
pub(crate) async fn run(
    instance: &Instance,
    surroundings: Surroundings,
    request: ExecRequest,
) -> Result<ExecOutcome, RuntimeError> {
    let (host, port) = (&instance.handle.host, instance.handle.port);
    let mut words = request.command.iter().map(|word| expand(word, port, host, instance.replica));
    let program = words.next().unwrap_or_default();
    let failed = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => "CommandNotFound",
            io::ErrorKind::PermissionDenied => "NotExecutable",
            _ => "SpawnFailed",
        };
        RuntimeError::not_started(code, format!("cannot run {program:?}: {error}"))
    };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut command = Command::new(&program);
    command
        .args(words)
        .env_clear()
        .envs(surroundings.variables())
        .current_dir(&surroundings.directory)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    // The command holds the pipe's writing end as long as it lives.
    drop(command);
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
    let mut output = Output { kept: Vec::new(), room: request.max_output };
    let status = tokio::select! {
        status = child.wait() => status,
        error = output.drain(&reader) => Err(error),
    };
    let status = status.map_err(failed)?;
    // Its end may be known here before what it wrote is: asked of the kernel itself, all of that is there.
    output.take(|chunk| Ok(rustix::io::read(&reader, chunk)?));
    Ok(ExecOutcome { code: status.code(), output: output.kept })
}

/// What a process was asked, as `/proc` shows it, read on a thread that may block; `None` if it is gone.
pub(crate) fn inspect(instance: &Instance) -> Option<Value> {
    let surroundings = Surroundings::of(instance)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let proc = |name: &str| format!("/proc/{}/{name}", instance.handle.pid);
    let command: Vec<String> = entries(&fs::read(proc("cmdline")).ok()?).map(text).collect();
    let variables: Vec<(String, String)> =
        surroundings.variables().map(|(key, value)| (text(key.as_bytes()), text(value.as_bytes()))).collect();
    Some(json!({
        "program": fs::read_link(proc("exe")).ok().map(|path| path.to_string_lossy().into_owned()),
        "command": command,
        "working_dir": surroundings.directory.to_string_lossy(),
        "environment": redacted_variables(variables.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
    }))
}

/// Where a process runs, and the variables that it was given.
pub(crate) struct Surroundings {
    directory: std::path::PathBuf,
    environ: Vec<u8>,
}

impl Surroundings {
    /// Reads them on a thread that may block; `None` if the process is gone.
    pub(crate) fn of(instance: &Instance) -> Option<Self> {
        let pid = instance.handle.pid;
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let environ = procfs::environ(Pid::from_raw(pid)?).ok()??;
        // While it is there, its number is nobody else's: what was read is its own.
        instance.is_alive().then_some(Self { directory, environ })
    }

    fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        entries(&self.environ).filter_map(|entry| {
            let at = entry.iter().position(|&byte| byte == b'=')?;
            Some((OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(&entry[at + 1..])))
        })
    }
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == 0).filter(|entry| !entry.is_empty())
}

/// Kills the command's whole process group when dropped.
///
/// While the command has not been waited for, its number cannot be anybody else's; afterwards, not as long as a process
/// of its group is left, and without one there is nothing to kill.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nothing left to kill is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The beginning of what a command writes.
struct Output {
    kept: Vec<u8>,
    room: usize,
}

impl Output {
    /// Reads as long as the command writes, so that it is never stuck on a full pipe; ends with an error alone.
    async fn drain(&mut self, reader: &pipe::Receiver) -> io::Error {
        loop {
            if let Err(error) = reader.readable().await {
                return error;
            }
            if !self.take(|chunk| reader.try_read(chunk)) {
                // All writers are gone; the command itself may live on.
                return std::future::pending().await;
            }
        }
    }

    /// Takes what is there, by a call that does not wait. Whether more may come.
    fn take(&mut self, read: impl Fn(&mut [u8]) -> io::Result<usize>) -> bool {
        let mut chunk = [0; 4096];
        // A writer that never pauses must not keep us here.
        for _ in 0..LOOKS {
            match read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => {
                    let room = self.room.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&chunk[..n.min(room)]);
                }
                Err(error) => return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        true
    }
}
