//! Commands inside of containers.
//!
//! The engine runs them and cannot end them. One that is given up is killed by its process where the engine's machine is this
//! one and permits it; where it is not, a few may hang at a time, and no more are begun then.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use coredinator_core::{ExecOutcome, ExecRequest, InstanceRef, RuntimeError};
use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time;
use tracing::debug;

use crate::{
    container::expand,
    engine::{code, failed, refused, said, status},
    shared::Shared,
    state::State,
};

/// How many commands of one container may hang at a time.
const HANGING: usize = 4;
/// After its output has ended, a command may take a moment to be noted as ended.
const NOTED: Duration = Duration::from_millis(10);

/// Commands that were given up and may still run, by container.
#[derive(Debug, Default)]
pub(crate) struct Hanging(Mutex<HashMap<String, Vec<String>>>);

impl Hanging {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, container: &str) -> Vec<String> {
        self.all().get(container).cloned().unwrap_or_default()
    }

    fn add(&self, container: &str, exec: &str) {
        self.all().entry(container.to_owned()).or_default().push(exec.to_owned());
    }

    fn remove(&self, container: &str, exec: &str) {
        let mut all = self.all();
        if let Some(execs) = all.get_mut(container) {
            execs.retain(|other| other != exec);
            if execs.is_empty() {
                all.remove(container);
            }
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    instance: &InstanceRef,
    request: ExecRequest,
) -> Result<ExecOutcome, RuntimeError> {
    let not_running = |why: &str| RuntimeError::not_started("NotRunning", format!("{} {why}", instance.id));
    let found = shared.engine.find(&instance.id).await?;
    let Some(container) = found.filter(|found| matches!(found.state, State::Running { .. })) else {
        return Err(not_running("does not run"));
    };
    if container.state == (State::Running { paused: true }) {
        return Err(not_running("is paused"));
    }
    settle(shared, &container.id).await?;
    let client = shared.engine.client().await?;
    let tags = &container.tags;
    let words = request.command.iter().map(|word| expand(word, tags.port, &tags.host, tags.replica));
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(words.collect()),
        ..ExecConfig::default()
    };
    let made = client.create_exec(&container.id, config).await.map_err(|error| match status(&error) {
        Some(404 | 409) => not_running(&format!("cannot run a command: {}", said(&error))),
        _ => refused(&error),
    })?;
    let mut given_up =
        GivenUp { shared: Arc::clone(shared), container: container.id.clone(), exec: Some(made.id.clone()) };
    let started = client.start_exec(&made.id, None::<StartExecOptions>).await.map_err(|error| refused(&error))?;
    let mut output = Vec::new();
    if let StartExecResults::Attached { output: mut stream, .. } = started {
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| failed("cannot read what a command writes", error))?.into_bytes();
            let room = request.max_output.saturating_sub(output.len());
            output.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }
    let exit = loop {
        let now =
            client.inspect_exec(&made.id).await.map_err(|error| failed("cannot ask for a command's end", error))?;
        if now.running != Some(true) {
            break now.exit_code.and_then(|code| i32::try_from(code).ok());
        }
        time::sleep(NOTED).await;
    };
    given_up.exec = None;
    // What could not even be begun is told as if it had been, with the engine's own words as its output.
    let words = String::from_utf8_lossy(&output);
    if matches!(exit, Some(126 | 127)) && words.contains("exec failed") {
        let message = words.trim().to_owned();
        return Err(RuntimeError::not_started(code(&message), message));
    }
    // As of instances: what no program answers by was a signal.
    Ok(ExecOutcome { code: exit.filter(|code| *code != 137), output })
}

/// Sees to it that not too many commands hang in a container.
async fn settle(shared: &Shared, container: &str) -> Result<(), RuntimeError> {
    let hanging = shared.hanging.of(container);
    if hanging.len() < HANGING {
        return Ok(());
    }
    let client = shared.engine.client().await?;
    let mut left = 0;
    for exec in hanging {
        match client.inspect_exec(&exec).await {
            Ok(found) if found.running == Some(true) => left += 1,
            Err(error) if status(&error).is_none() => return Err(failed("cannot ask for a command's end", error)),
            // It has ended, or is known no more.
            _ => shared.hanging.remove(container, &exec),
        }
    }
    if left < HANGING {
        return Ok(());
    }
    Err(RuntimeError::not_started("CommandsHang", format!("{left} earlier commands in it have not ended")))
}

/// A command that was begun; ends it, as far as it can be reached, when dropped.
struct GivenUp {
    shared: Arc<Shared>,
    container: String,
    /// `None`: it has ended.
    exec: Option<String>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        let Some(exec) = self.exec.take() else { return };
        let (shared, container) = (Arc::clone(&self.shared), std::mem::take(&mut self.container));
        shared.hanging.add(&container, &exec);
        // Outside of a runtime nothing is left that could ask the engine.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            match end(&shared, &container, &exec).await {
                Ok(true) => shared.hanging.remove(&container, &exec),
                Ok(false) => debug!(container, "a command that was given up goes on inside"),
                Err(error) => debug!(container, %error, "cannot end a command that was given up"),
            }
        });
    }
}

/// Kills a command and what it has started. Answers whether nothing of it is left.
async fn end(shared: &Shared, container: &str, exec: &str) -> Result<bool, RuntimeError> {
    let client = shared.engine.client().await?;
    let ask = || async { client.inspect_exec(exec).await.map_err(|error| failed("cannot ask for a command", error)) };
    let found = ask().await?;
    if found.running != Some(true) {
        return Ok(true);
    }
    let leader = found.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(leader) = leader.filter(|_| shared.engine.is_local()) {
        for pid in family(leader) {
            // Of the engine's machine there may be another with this number here; not one in this container.
            if is_in(pid, container) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    for _ in 0..100 {
        if ask().await?.running != Some(true) {
            return Ok(true);
        }
        time::sleep(NOTED).await;
    }
    Ok(false)
}

/// A process and its descendants, as far as they can be seen.
fn family(leader: Pid) -> Vec<Pid> {
    let mut all = vec![leader];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        let number = pid.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap_or_default();
        all.extend(children.split_ascii_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)));
        next += 1;
    }
    all
}

fn is_in(pid: Pid, container: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap_or_default();
    groups.contains(container)
}
