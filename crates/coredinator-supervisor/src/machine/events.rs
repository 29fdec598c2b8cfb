//! What the machine is told has happened.

use coredinator_core::{Exit, InstanceId, InstanceState, Observation, Reason, Started};
use coredinator_registry::NewEvent;

use super::{Desired, Machine, RETRY, StartOutcome};
use crate::{
    restart::{self, Ending, Verdict},
    slot::{Now, StopCause},
};

impl Machine {
    /// A start ended.
    pub(crate) fn started(
        &mut self,
        replica: u32,
        id: &InstanceId,
        outcome: StartOutcome,
        desired: &Desired,
        now: Now,
        random: f64,
    ) {
        let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id) && slot.busy) else { return };
        slot.busy = false;
        slot.same_id = false;
        match outcome {
            StartOutcome::Started(started) => {
                let message = said("started", &started);
                self.run(replica, started, "Started", message, now);
            }
            StartOutcome::NotStarted(reason) => self.end(replica, &Ending::NotStarted(reason), desired, now, random),
            StartOutcome::Unknown(reason) => {
                slot.same_id = true;
                slot.ungated = true;
                slot.enter(InstanceState::Backoff, reason, now);
                slot.due = now.mono.checked_add(RETRY);
                slot.record.next_restart_at = now.wall.checked_add(jiff::SignedDuration::from_secs(1)).ok();
                self.changed.push(replica);
            }
        }
    }

    /// An instance that was running before this process began has been found.
    pub(crate) fn adopted(&mut self, started: Started, now: Now) {
        let replica = started.instance.replica;
        let message = said("found running", &started);
        self.run(replica, started, "Adopted", message, now);
    }

    /// Notes where an instance runs or, if its runtime has only taken it on, what is known of it so far.
    fn run(&mut self, replica: u32, started: Started, code: &str, message: String, now: Now) {
        let Some(slot) = self.slots.get_mut(&replica) else { return };
        let running = started.running;
        if running {
            slot.enter(InstanceState::Running, Reason::new("Running", message.clone()), now);
        } else {
            slot.enter(InstanceState::Starting, Reason::new("TakenOn", "taken on by its runtime"), now);
        }
        let record = &mut slot.record;
        record.id = Some(started.instance.id);
        record.handle = started.instance.handle;
        record.pid = started.pid;
        record.host = started.host;
        record.port = started.port;
        record.started_at = Some(started.started_at);
        self.changed.push(replica);
        if running {
            let event = NewEvent::normal(&self.service, code, message);
            self.events.push(event.about(replica, slot.record.id.clone()));
        }
    }

    /// The runtime tells of an instance that is on its way.
    pub(crate) fn observed(&mut self, replica: u32, id: &InstanceId, observation: &Observation, now: Now) {
        let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id) && !slot.busy) else { return };
        let state = slot.record.state;
        match observation {
            Observation::Waiting(reason) if matches!(state, InstanceState::Starting | InstanceState::Running) => {
                // How far it has come is told by the reason; an event tells what it has come to.
                if state != InstanceState::Starting || slot.record.reason.code != reason.code {
                    let event = NewEvent::normal(&self.service, &reason.code, reason.message.clone());
                    self.events.push(event.about(replica, Some(id.clone())));
                }
                slot.enter(InstanceState::Starting, reason.clone(), now);
                self.changed.push(replica);
            }
            Observation::Running(started) if state == InstanceState::Starting => {
                let message = said("started", started);
                self.run(replica, started.clone(), "Started", message, now);
            }
            Observation::Restarted { started, times, last }
                if matches!(state, InstanceState::Starting | InstanceState::Running) =>
            {
                slot.record.restarts = slot.record.restarts.saturating_add(u64::from(*times));
                slot.record.last_exit = last.clone().or_else(|| slot.record.last_exit.take());
                let ended = last.as_ref().map_or_else(|| "ended".to_owned(), ToString::to_string);
                let message = format!("{ended}; started again in place by what runs it");
                self.run(replica, started.clone(), "RestartedInPlace", message, now);
            }
            Observation::Waiting(_)
            | Observation::Running(_)
            | Observation::Restarted { .. }
            | Observation::Exited(_)
            | Observation::NotStarted(_) => {}
        }
    }

    /// The runtime could not start an instance after all that it had taken on.
    pub(crate) fn not_started(
        &mut self,
        replica: u32,
        id: &InstanceId,
        reason: Reason,
        desired: &Desired,
        now: Now,
        random: f64,
    ) {
        let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id)) else { return };
        match slot.record.state {
            InstanceState::Starting if !slot.busy => {
                slot.record.pid = None;
                slot.record.handle = None;
                self.end(replica, &Ending::NotStarted(reason), desired, now, random);
            }
            // It was being stopped meanwhile, or counted as running: whatever it was, nothing of it is left.
            state if state.is_live() => {
                let exit = Exit { code: None, signal: None, oom_killed: false, why: None, at: now.wall };
                self.exited(replica, id, exit, desired, now, random);
            }
            _ => {}
        }
    }

    /// An instance ended: by itself, or as it was asked to.
    pub(crate) fn exited(
        &mut self,
        replica: u32,
        id: &InstanceId,
        exit: Exit,
        desired: &Desired,
        now: Now,
        random: f64,
    ) {
        let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id) && slot.record.state.is_live()) else {
            return;
        };
        let stopping = slot.record.state == InstanceState::Stopping;
        slot.busy = false;
        slot.record.pid = None;
        slot.record.handle = None;
        slot.record.last_exit = Some(exit.clone());
        // A stop that was asked for before this process began has lost its cause; the service was not wanted then.
        let cause = slot.cause.take().filter(|_| stopping);
        match cause {
            Some(StopCause::Unhealthy(reason)) => self.end(replica, &Ending::Unhealthy(reason), desired, now, random),
            Some(StopCause::Replaced(reason)) => {
                slot.ungated = true;
                slot.record.attempts = 0;
                slot.enter(InstanceState::Stopped, reason, now);
                self.changed.push(replica);
            }
            Some(StopCause::Unwanted(reason)) => {
                slot.enter(InstanceState::Stopped, reason.clone(), now);
                let event = NewEvent::normal(&self.service, "Stopped", format!("{exit}: {reason}"));
                self.events.push(event.about(replica, Some(id.clone())));
                self.changed.push(replica);
            }
            None if stopping => {
                slot.enter(InstanceState::Stopped, Reason::new("Stopped", "stopped"), now);
                self.changed.push(replica);
            }
            None => self.end(replica, &Ending::Exited(exit), desired, now, random),
        }
    }

    /// A replica does not run although it should: what its policy says about that.
    fn end(&mut self, replica: u32, ending: &Ending, desired: &Desired, now: Now, random: f64) {
        let Some(slot) = self.slots.get_mut(&replica) else { return };
        let spec = &desired.record.spec;
        let id = slot.record.id.clone();
        slot.good_since = None;
        self.changed.push(replica);
        let mut history = slot.history();
        let verdict = restart::decide(spec, ending, &mut history, now.wall, random);
        slot.set_history(history);
        let words = ending.words();
        let event = match verdict {
            Verdict::Completed => {
                slot.enter(InstanceState::Completed, Reason::new("Completed", words.clone()), now);
                NewEvent::normal(&self.service, "Completed", words)
            }
            Verdict::Failed(reason) => {
                slot.enter(InstanceState::Failed, reason.clone(), now);
                NewEvent::normal(&self.service, "Failed", reason.message).warning()
            }
            Verdict::Restart { delay } => {
                let when = if delay.is_zero() { "now".to_owned() } else { format!("in {:.1} s", delay.as_secs_f64()) };
                let message = format!("{words}; restart {} in a row {when}", slot.record.attempts);
                let code = match ending {
                    Ending::NotStarted(reason) => reason.code.as_str(),
                    Ending::Unhealthy(_) => "Unhealthy",
                    Ending::Exited(exit) if exit.oom_killed => "OOMKilled",
                    Ending::Exited(exit) => exit.why.as_ref().map_or("BackOff", |why| why.code.as_str()),
                };
                slot.enter(InstanceState::Backoff, Reason::new(code, message.clone()), now);
                slot.due = now.mono.checked_add(delay);
                let until = jiff::SignedDuration::try_from(delay).unwrap_or(jiff::SignedDuration::MAX);
                slot.record.next_restart_at = now.wall.checked_add(until).ok();
                slot.record.restarts += 1;
                NewEvent::normal(&self.service, code, message).warning()
            }
        };
        self.events.push(event.about(replica, id));
    }

    /// A stop could not be carried out.
    pub(crate) fn stop_failed(&mut self, replica: u32, id: &InstanceId, reason: Reason, now: Now) {
        let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id)) else { return };
        if slot.record.state == InstanceState::Stopping {
            slot.busy = false;
            slot.enter(InstanceState::Stopping, reason, now);
            slot.due = now.mono.checked_add(RETRY);
            self.changed.push(replica);
        }
    }

    /// Takes up what the store knew of a replica when this process began, and which the runtime no longer knows.
    pub(crate) fn lost(&mut self, replica: u32, desired: &Desired, now: Now, random: f64) {
        let Some(slot) = self.slots.get_mut(&replica) else { return };
        let Some(id) = slot.record.id.clone() else { return };
        if slot.record.state == InstanceState::Starting {
            // Written down, and never started as far as its runtime knows: the start is simply made, under the same id in
            // case it is on its way after all.
            (slot.ungated, slot.same_id) = (true, true);
            slot.enter(InstanceState::Pending, Reason::new("Pending", "its start was interrupted"), now);
            self.changed.push(replica);
        } else {
            let exit = Exit { code: None, signal: None, oom_killed: false, why: None, at: now.wall };
            self.exited(replica, &id, exit, desired, now, random);
        }
    }
}

/// What was done with an instance, and which process it is where it is one.
fn said(done: &str, started: &Started) -> String {
    started.pid.map_or_else(|| done.to_owned(), |pid| format!("{done} as process {pid}"))
}
