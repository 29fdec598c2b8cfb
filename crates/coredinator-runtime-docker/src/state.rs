//! What the engine says of a container, as coredinator understands it.

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status};
use coredinator_core::{Exit, InstanceRef, Observation, Reason, SharedClock, Started, Timestamp};
use serde_json::json;

use crate::labels::Tags;

/// A container of ours.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    /// The engine's own id.
    pub(crate) id: String,
    pub(crate) tags: Tags,
    pub(crate) state: State,
    /// The port at which it is reached; 0: none.
    port: u16,
    pid: Option<u32>,
    started_at: Option<Timestamp>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// Made, and never started.
    Created,
    /// Alive; `paused` by somebody, perhaps.
    Running { paused: bool },
    /// Ended, with what is known of it.
    Ended(Exit),
}

impl Container {
    /// Reads an inspection; `None` if the container is none of these owners'.
    pub(crate) fn read(inspected: &ContainerInspectResponse, owners: &[String], clock: &SharedClock) -> Option<Self> {
        let labels = inspected.config.as_ref()?.labels.as_ref()?;
        let tags = Tags::read(labels, owners)?;
        let state = inspected.state.clone().unwrap_or_default();
        Some(Self {
            id: inspected.id.clone()?,
            port: reached(inspected, tags.port),
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0),
            started_at: time(state.started_at.as_deref()),
            state: judge(&state, clock),
            tags,
        })
    }

    /// As a runtime answers it.
    pub(crate) fn to_started(&self) -> Started {
        Started {
            instance: InstanceRef {
                id: self.tags.id.clone(),
                service: self.tags.service.clone(),
                replica: self.tags.replica,
                handle: Some(json!({"container": self.id})),
            },
            pid: self.pid,
            host: self.tags.host.clone(),
            port: self.port,
            started_at: self.started_at.unwrap_or(Timestamp::UNIX_EPOCH),
            running: self.state != State::Created,
        }
    }
}

/// What to tell of an instance whose container was found like this, after `told`; `None`: nothing new.
pub(crate) fn next(told: Option<&Observation>, found: Option<&Container>, clock: &SharedClock) -> Option<Observation> {
    let now = match found.map(|container| &container.state) {
        None => {
            return Some(Observation::Exited(Exit {
                code: None,
                signal: None,
                oom_killed: false,
                why: None,
                at: clock.now(),
            }));
        }
        Some(State::Ended(exit)) => return Some(Observation::Exited(exit.clone())),
        Some(State::Created) => {
            Observation::Waiting(Reason::new("ContainerCreated", "the container is made and not started yet"))
        }
        Some(State::Running { .. }) => Observation::Running(found?.to_started()),
    };
    (told != Some(&now)).then_some(now)
}

fn judge(state: &ContainerState, clock: &SharedClock) -> State {
    match state.status {
        Some(Status::CREATED) => State::Created,
        Some(Status::RUNNING | Status::RESTARTING | Status::PAUSED | Status::STOPPING) => {
            State::Running { paused: state.paused == Some(true) }
        }
        _ => {
            let (code, signal) = ended(state.exit_code);
            let at = time(state.finished_at.as_deref()).unwrap_or_else(|| clock.now());
            State::Ended(Exit { code, signal, oom_killed: state.oom_killed == Some(true), why: None, at })
        }
    }
}

/// The engine tells a signal as 128 and its number, as shells do, and programs too that end by their own will after
/// one: those of SIGTERM and its like are left as they stand. What no program answers by is a signal.
fn ended(code: Option<i64>) -> (Option<i32>, Option<i32>) {
    let code = code.and_then(|code| i32::try_from(code).ok());
    match code {
        // SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV.
        Some(code @ (132..=137 | 139)) => (None, Some(code - 128)),
        code => (code, None),
    }
}

/// The port at which the program's `inside` is reached: what it is published at; itself on the machine's own network.
fn reached(inspected: &ContainerInspectResponse, inside: u16) -> u16 {
    let host = inspected.host_config.as_ref();
    let mode = host.and_then(|host| host.network_mode.as_deref()).unwrap_or_default();
    if inside == 0 || mode == "host" {
        return inside;
    }
    let key = format!("{inside}/tcp");
    // The first is what the engine really did; without it (the container does not run) what it was asked.
    let published = inspected.network_settings.as_ref().and_then(|network| network.ports.as_ref());
    let asked = host.and_then(|host| host.port_bindings.as_ref());
    let port = |ports: Option<&bollard::models::PortMap>| {
        ports?.get(&key)?.as_ref()?.iter().find_map(|binding| binding.host_port.as_ref()?.parse().ok())
    };
    port(published).or_else(|| port(asked)).unwrap_or(0)
}

/// Reads the engine's time; the year 1 stands for never.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok().filter(|&time: &Timestamp| time > Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
