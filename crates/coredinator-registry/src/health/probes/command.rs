//! Whether a command is content.

use std::{io, process::Stdio};

use async_trait::async_trait;
use coredinator_core::{FieldError, HealthProbe, Outcome, ProbeError, ProbeReport, ProbeSpec, ProbeTarget};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{net::unix::pipe, process::Command};

use super::wrong_kind;

/// Runs a command beside coredinator: exit 0 passes, 1 warns, anything else fails.
///
/// `{host}` and `{port}` in its arguments are expanded; its environment has `COREDINATOR_SERVICE` and, for an instance,
/// `COREDINATOR_INSTANCE_ID`. Its standard input is empty; the first 4 KiB of what it writes are the message. It runs in
/// a process group of its own, which is killed as a whole when the command has ended, and when the check is given up.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandProbe;

#[async_trait]
impl HealthProbe for CommandProbe {
    fn kind(&self) -> String {
        "command".to_owned()
    }

    fn validate(&self, spec: &ProbeSpec) -> Vec<FieldError> {
        match spec {
            ProbeSpec::Command { command } => match command.first() {
                Some(program) if !program.is_empty() => Vec::new(),
                _ => vec![FieldError::new("/command", "must name a program")],
            },
            other => vec![wrong_kind(other, "command")],
        }
    }

    async fn check(&self, target: &ProbeTarget) -> Result<ProbeReport, ProbeError> {
        let ProbeSpec::Command { command } = &*target.spec else {
            return Err(ProbeError { message: wrong_kind(&target.spec, "command").detail });
        };
        run(command, target).await.map_err(|error| {
            let program = command.first().map_or("", String::as_str);
            ProbeError { message: format!("cannot run {program:?}: {error}") }
        })
    }
}

async fn run(command: &[String], target: &ProbeTarget) -> io::Result<ProbeReport> {
    let port = target.port.to_string();
    let mut words = command.iter().map(|word| word.replace("{host}", &target.host).replace("{port}", &port));
    let program = words.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(words)
        .env("COREDINATOR_SERVICE", target.service.as_str())
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(instance) = &target.instance {
        command.env("COREDINATOR_INSTANCE_ID", instance.as_str());
    }
    let mut child = command.spawn()?;
    // The command holds the pipe's writing end as long as it lives.
    drop(command);
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let mut output = Output::default();
    let status = tokio::select! {
        status = child.wait() => status?,
        error = output.drain(&reader) => return Err(error),
    };
    output.rest(&reader);
    let outcome = match status.code() {
        Some(0) => Outcome::Pass,
        Some(1) => Outcome::Warn,
        _ => Outcome::Fail,
    };
    let text = String::from_utf8_lossy(&output.0);
    let text = text.trim();
    Ok(match (text.is_empty(), status.code()) {
        (false, _) => ProbeReport::new(outcome, text),
        (true, Some(code)) => ProbeReport::new(outcome, format!("exited with code {code}")),
        (true, None) => ProbeReport::new(outcome, "ended by a signal"),
    })
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
#[derive(Default)]
struct Output(Vec<u8>);

impl Output {
    /// Reads as long as the command writes, so that it is never stuck on a full pipe; ends with an error alone.
    async fn drain(&mut self, reader: &pipe::Receiver) -> io::Error {
        loop {
            if let Err(error) = reader.readable().await {
                return error;
            }
            if !self.rest(reader) {
                // All writers are gone; the command itself may live on.
                return std::future::pending().await;
            }
        }
    }

    /// Takes what is there. Whether more may come.
    fn rest(&mut self, reader: &pipe::Receiver) -> bool {
        let mut chunk = [0; 4096];
        // A writer that never pauses must not keep us here.
        for _ in 0..16 {
            match reader.try_read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => {
                    let room = ProbeReport::MAX_MESSAGE.saturating_sub(self.0.len());
                    self.0.extend_from_slice(&chunk[..n.min(room)]);
                }
                Err(error) => return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        true
    }
}
