//! Whether a command is content.

use std::{io, process::Stdio};

use async_trait::async_trait;
use coredinator_core::{
    ExecRequest, FieldError, HealthProbe, Outcome, ProbeError, ProbeReport, ProbeSpec, ProbeTarget,
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{net::unix::pipe, process::Command};

use super::{ProbedRuntimes, wrong_kind};

/// Runs a command: exit 0 passes, 1 warns, anything else fails. The first 4 KiB of what it writes are the message.
///
/// Inside the instance, where its runtime runs commands there and the check does not ask for `beside`. Else beside
/// coredinator: `{host}` and `{port}` in its arguments are expanded then, its environment has `COREDINATOR_SERVICE` and, for
/// an instance, `COREDINATOR_INSTANCE_ID`, and its standard input is empty. It runs in a process group of its own, which is
/// killed as a whole when the command has ended, and when the check is given up.
#[derive(Debug, Clone, Default)]
pub struct CommandProbe {
    runtimes: ProbedRuntimes,
}

impl CommandProbe {
    /// One that runs commands inside the instances of these runtimes.
    #[must_use]
    pub fn new(runtimes: ProbedRuntimes) -> Self {
        Self { runtimes }
    }
}

#[async_trait]
impl HealthProbe for CommandProbe {
    fn kind(&self) -> String {
        "command".to_owned()
    }

    fn validate(&self, spec: &ProbeSpec) -> Vec<FieldError> {
        match spec {
            ProbeSpec::Command { command, .. } => match command.first() {
                Some(program) if !program.is_empty() => Vec::new(),
                _ => vec![FieldError::new("/command", "must name a program")],
            },
            other => vec![wrong_kind(other, "command")],
        }
    }

    async fn check(&self, target: &ProbeTarget) -> Result<ProbeReport, ProbeError> {
        let ProbeSpec::Command { command, beside } = &*target.spec else {
            return Err(ProbeError { message: wrong_kind(&target.spec, "command").detail });
        };
        if let Some((runtime, instance)) =
            self.runtimes.of(target).filter(|(runtime, _)| !beside && runtime.capabilities().exec)
        {
            let request = ExecRequest { command: command.clone(), max_output: ProbeReport::MAX_MESSAGE };
            let ended = runtime.exec(instance, request).await;
            // An instance that is gone is being seen to by the supervisor; nothing follows from that here.
            let ended = ended.map_err(|error| ProbeError { message: error.to_string() })?;
            return Ok(report(ended.code, &ended.output));
        }
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
        command.env("COREDINATOR_INSTANCE_ID", instance.id.as_str());
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
    Ok(report(status.code(), &output.0))
}

/// What a command's end says; `None`: a signal ended it.
fn report(code: Option<i32>, output: &[u8]) -> ProbeReport {
    let outcome = match code {
        Some(0) => Outcome::Pass,
        Some(1) => Outcome::Warn,
        _ => Outcome::Fail,
    };
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    match (text.is_empty(), code) {
        (false, _) => ProbeReport::new(outcome, text),
        (true, Some(code)) => ProbeReport::new(outcome, format!("exited with code {code}")),
        (true, None) => ProbeReport::new(outcome, "ended by a signal"),
    }
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
