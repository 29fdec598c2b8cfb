//! The state machine of one service: from what is wanted and what is observed to the next steps. Pure.
//!
//! Level-triggered: [`Machine::reconcile`] compares the two and may be called at any time, any number of times. What
//! happened is told to it by [`started`](Machine::started), [`exited`](Machine::exited) and
//! [`stop_failed`](Machine::stop_failed); what changed in its records is taken out by [`take_changes`](Machine::take_changes)
//! and has to be stored before the steps that came with it are taken.

mod events;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coredinator_core::{
    HealthStatus, InstanceId, InstanceRecord, InstanceRef, InstanceState, Intent, NodeName, Reason, RestartPolicy,
    ServiceName, ServiceRecord, Started, StopRequest,
};
use coredinator_registry::NewEvent;

use crate::{
    gate::Gate,
    restart,
    slot::{Now, Slot, StopCause},
};

/// How long a step that the store or the runtime could not take waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Whether services are to run at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Mode {
    #[default]
    Run,
    /// coredinator goes down, and its services with it.
    ShutDown,
    /// The same, without grace.
    Kill,
}

/// What is wanted of a service, and what others say about it.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) record: Arc<ServiceRecord>,
    pub(crate) intent: Arc<Intent>,
    /// How many instances should run.
    pub(crate) wanted: u32,
    /// How many are declared: beyond these, records are taken away.
    pub(crate) declared: u32,
    pub(crate) gate: Gate,
    /// What health says of running instances: the verdict of the health check alone, and whether it is in discovery.
    pub(crate) health: BTreeMap<InstanceId, (Option<HealthStatus>, bool, String)>,
    pub(crate) mode: Mode,
    /// The node on which its instances are started; `None` where every replica of coredinator reaches them alike.
    pub(crate) node: Option<NodeName>,
    /// Another replica looks after it by now: what lives here is stopped, and records of what does not are that one's.
    pub(crate) leaving: bool,
}

impl Desired {
    fn wanted(&self) -> u32 {
        if self.mode == Mode::Run && !self.leaving { self.wanted } else { 0 }
    }
}

/// A step to be taken, after the changes that came with it have been stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Ask the runtime to start the replica, whose record has the id.
    Start { replica: u32, id: InstanceId, preferred_port: Option<u16> },
    /// Ask the runtime to end it.
    Stop { instance: InstanceRef, how: StopRequest },
    /// Give an instance its document, whose revision its record has.
    Deliver { replica: u32, id: InstanceId, revision: u64 },
    /// Take the record of a replica away.
    Forget { replica: u32 },
}

/// How a start ended.
#[derive(Debug)]
pub(crate) enum StartOutcome {
    Started(Started),
    /// The runtime says why it could not be.
    NotStarted(Reason),
    /// Nobody could try (the runtime or the store is away), or it is not known whether it happened.
    Unknown(Reason),
}

#[derive(Debug)]
pub(crate) struct Machine {
    service: ServiceName,
    slots: BTreeMap<u32, Slot>,
    changed: Vec<u32>,
    events: Vec<NewEvent>,
    /// The revision of the service's document with which instances start.
    config: u64,
    /// The replica that is to be replaced for the sake of that.
    renew: Option<u32>,
}

impl Machine {
    pub(crate) fn new(service: ServiceName, slots: impl IntoIterator<Item = Slot>) -> Self {
        let slots = slots.into_iter().map(|slot| (slot.record.replica, slot)).collect();
        Self { service, slots, changed: Vec::new(), events: Vec::new(), config: 0, renew: None }
    }

    /// Whether nothing of the service runs or is about to.
    pub(crate) fn is_quiet(&self) -> bool {
        self.slots.values().all(|slot| !slot.busy && !slot.record.state.is_live())
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values()
    }

    /// With which revision of the service's document instances start from now on, and which replica is to be replaced for its
    /// sake.
    pub(crate) fn set_config(&mut self, revision: u64, renew: Option<u32>) {
        (self.config, self.renew) = (revision, renew);
    }

    /// Begins to give an instance its document: that is written down before, so that it can be asked which revision it has,
    /// and without the time, so that it is given again if nobody lives to see it happen.
    pub(crate) fn config_begun(&mut self, replica: u32, id: &InstanceId, revision: u64, now: Now) -> Option<Step> {
        let slot = self.slots.get_mut(&replica).filter(|slot| slot.is(id))?;
        slot.give(revision, now);
        slot.record.config_at = None;
        slot.config_busy = true;
        self.changed.push(replica);
        Some(Step::Deliver { replica, id: id.clone(), revision })
    }

    /// Begins to check an instance with its document.
    pub(crate) fn config_checking(&mut self, replica: u32, id: &InstanceId) {
        if let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id)) {
            slot.config_busy = true;
        }
    }

    /// An instance was given a revision of its document, or could not be.
    pub(crate) fn config_given(
        &mut self,
        replica: u32,
        id: &InstanceId,
        revision: u64,
        result: Result<(), String>,
        now: Now,
    ) {
        let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id)) else { return };
        slot.config_busy = false;
        match result {
            Ok(()) => {
                slot.give(revision, now);
                let message = format!("was given revision {revision} of its configuration");
                let event = NewEvent::normal(&self.service, "ConfigGiven", message);
                self.events.push(event.about(replica, Some(id.clone())));
                self.changed.push(replica);
            }
            Err(reason) => slot.config_failure = Some((revision, reason)),
        }
    }

    /// An instance was checked with its document.
    pub(crate) fn config_checked(&mut self, replica: u32, id: &InstanceId) {
        if let Some(slot) = self.slots.get_mut(&replica).filter(|slot| slot.is(id)) {
            slot.config_busy = false;
        }
    }

    /// These replicas are well with the revision that they have.
    pub(crate) fn config_well(&mut self, replicas: &[u32]) {
        for replica in replicas {
            if let Some(slot) = self.slots.get_mut(replica) {
                slot.config_well = slot.record.config_revision;
            }
        }
    }

    /// Tells an event with the next write.
    pub(crate) fn tell(&mut self, event: NewEvent) {
        self.events.push(event);
    }

    /// What changed since the last call: records to store, and events that tell of it.
    pub(crate) fn take_changes(&mut self) -> (Vec<InstanceRecord>, Vec<NewEvent>) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let records = changed.iter().filter_map(|replica| self.slots.get(replica)).map(|slot| slot.record.clone());
        (records.collect(), std::mem::take(&mut self.events))
    }

    /// When to reconcile again if nothing else happens.
    pub(crate) fn next_due(&self, desired: &Desired) -> Option<std::time::Instant> {
        let reset = desired.record.spec.backoff.reset_after;
        let of = |slot: &Slot| {
            let anew = slot.good_since.filter(|_| slot.record.attempts > 0).and_then(|since| since.checked_add(reset));
            slot.due.into_iter().chain(anew).min()
        };
        self.slots.values().filter_map(of).min()
    }

    /// Compares what is wanted with what is, and answers the next steps. `random` draws from [0, 1), `coin` coins ids.
    pub(crate) fn reconcile(
        &mut self,
        desired: &Desired,
        now: Now,
        coin: &mut dyn FnMut(u32) -> InstanceId,
    ) -> Vec<Step> {
        let wanted = desired.wanted();
        if let Some(runtime) = desired.record.spec.runtime.as_ref().filter(|_| wanted > 0) {
            for replica in 0..wanted {
                self.slots.entry(replica).or_insert_with(|| {
                    self.changed.push(replica);
                    Slot::new(&self.service, replica, runtime.clone(), now)
                });
            }
        }
        let replicas: Vec<u32> = self.slots.keys().copied().collect();
        let mut steps = Vec::new();
        for replica in replicas {
            steps.extend(self.reconcile_slot(replica, replica < wanted, desired, now, coin));
        }
        steps
    }

    fn reconcile_slot(
        &mut self,
        replica: u32,
        keep: bool,
        desired: &Desired,
        now: Now,
        coin: &mut dyn FnMut(u32) -> InstanceId,
    ) -> Option<Step> {
        let exclusive = self.may_replace(replica, desired);
        let slot = self.slots.get_mut(&replica)?;
        match slot.record.state {
            InstanceState::Starting | InstanceState::Stopping if slot.busy => {
                let hurry = desired.mode == Mode::Kill && slot.record.state == InstanceState::Stopping && !slot.hurried;
                slot.hurried |= hurry;
                slot.instance().filter(|_| hurry).map(|instance| Step::Stop { instance, how: StopRequest::KILL })
            }
            // A stop that failed is tried again; a start that was under way when all was lost has been adopted or undone.
            InstanceState::Stopping => self.stop_again(replica, desired, now),
            InstanceState::Starting | InstanceState::Running => {
                self.reconcile_running(replica, keep, exclusive, desired, now)
            }
            _ if desired.leaving => None,
            _ if keep => self.reconcile_idle(replica, desired, now, coin),
            _ if replica >= desired.declared || desired.record.deleting => {
                let forget = desired.mode == Mode::Run;
                forget.then(|| {
                    self.slots.remove(&replica);
                    Step::Forget { replica }
                })
            }
            InstanceState::Pending | InstanceState::Backoff if desired.mode == Mode::Run => {
                slot.enter(InstanceState::Stopped, Reason::new("StoppedByHand", "stopped by hand"), now);
                self.changed.push(replica);
                None
            }
            _ => None,
        }
    }

    /// A replica that is wanted and does not run.
    fn reconcile_idle(
        &mut self,
        replica: u32,
        desired: &Desired,
        now: Now,
        coin: &mut dyn FnMut(u32) -> InstanceId,
    ) -> Option<Step> {
        let slot = self.slots.get_mut(&replica)?;
        let record = &slot.record;
        // A command or another spec since its last start: whatever it came to before no longer counts.
        let anew = record.followed < desired.intent.command || record.generation < desired.record.runs_since;
        let ended = matches!(record.state, InstanceState::Completed | InstanceState::Failed);
        if ended && !anew {
            return None;
        }
        if !anew && slot.due.is_some_and(|due| due > now.mono) {
            return None;
        }
        let gated = !slot.ungated && (anew || record.state != InstanceState::Backoff);
        if let (true, Gate::Waiting(reason)) = (gated, &desired.gate) {
            if record.state != InstanceState::Pending || record.reason != *reason {
                let reason = reason.clone();
                slot.enter(InstanceState::Pending, reason, now);
                self.changed.push(replica);
            }
            return None;
        }
        if anew {
            slot.set_history(restart::History::default());
        }
        let id = match slot.record.id.clone().filter(|_| slot.same_id) {
            Some(id) => id,
            None => coin(replica),
        };
        let preferred_port = Some(slot.record.port).filter(|port| *port != 0);
        slot.enter(InstanceState::Starting, Reason::new("Starting", "being started"), now);
        slot.record.id = Some(id.clone());
        slot.record.handle = None;
        slot.record.pid = None;
        slot.record.generation = desired.record.generation;
        slot.record.followed = desired.intent.command;
        slot.give(self.config, now);
        slot.config_busy = false;
        slot.record.runtime = desired.record.spec.runtime.clone().unwrap_or_else(|| slot.record.runtime.clone());
        slot.record.node = desired.node.clone();
        (slot.busy, slot.ungated, slot.good_since) = (true, false, None);
        self.changed.push(replica);
        Some(Step::Start { replica, id, preferred_port })
    }

    /// A replica that runs.
    fn reconcile_running(
        &mut self,
        replica: u32,
        keep: bool,
        exclusive: bool,
        desired: &Desired,
        now: Now,
    ) -> Option<Step> {
        let slot = self.slots.get_mut(&replica)?;
        let spec = &desired.record.spec;
        let record = &slot.record;
        let health = record.id.as_ref().and_then(|id| desired.health.get(id));
        let ready = health.is_some_and(|(_, ready, _)| *ready);
        let cause = if !keep {
            let reason = match desired.mode {
                Mode::Run if desired.leaving => Reason::new("Moved", "it is looked after elsewhere now"),
                Mode::Run if desired.record.deleting => Reason::new("Deregistered", "deregistered"),
                Mode::Run if desired.intent.stopped => Reason::new("StoppedByHand", "stopped by hand"),
                Mode::Run => Reason::new("ScaledDown", format!("scaled to {}", desired.wanted)),
                Mode::ShutDown | Mode::Kill => Reason::new("ShuttingDown", "coredinator is shutting down"),
            };
            StopCause::Unwanted(reason)
        } else if record.followed < desired.intent.restart && exclusive {
            StopCause::Replaced(Reason::new("RestartedByHand", "restarted by hand"))
        } else if record.generation < desired.record.runs_since && exclusive {
            StopCause::Replaced(Reason::new(
                "SpecChanged",
                format!("generation {} replaces it", desired.record.generation),
            ))
        } else if self.renew == Some(replica) && exclusive {
            StopCause::Replaced(Reason::new("ConfigChanged", format!("revision {} of its document", self.config)))
        } else if let Some((Some(HealthStatus::Unhealthy), _, words)) = health
            && spec.restart_policy != RestartPolicy::No
            && exclusive
        {
            StopCause::Unhealthy(Reason::new("Unhealthy", format!("health check failed: {words}")))
        } else {
            // A `start` of what runs already is followed by that: it does not start anew what ends later.
            if record.followed < desired.intent.command && record.followed >= desired.intent.restart {
                slot.record.followed = desired.intent.command;
                self.changed.push(replica);
            }
            self.note_goodness(replica, ready, desired, now);
            return None;
        };
        self.stop(replica, cause, desired, now)
    }

    /// Whether this replica may be taken down although it is wanted: not while another one is on its way.
    pub(crate) fn may_replace(&self, replica: u32, desired: &Desired) -> bool {
        self.slots.values().all(|other| {
            let record = &other.record;
            let on_its_way = match record.state {
                InstanceState::Starting | InstanceState::Stopping => true,
                InstanceState::Running => record
                    .id
                    .as_ref()
                    .and_then(|id| desired.health.get(id))
                    .is_none_or(|(health, ready, _)| !ready && *health != Some(HealthStatus::Unhealthy)),
                _ => false,
            };
            record.replica == replica || record.replica >= desired.wanted() || !on_its_way
        })
    }

    /// Starts the count of restarts anew after a good period.
    fn note_goodness(&mut self, replica: u32, ready: bool, desired: &Desired, now: Now) {
        let Some(slot) = self.slots.get_mut(&replica) else { return };
        if !ready {
            slot.good_since = None;
            return;
        }
        let since = *slot.good_since.get_or_insert(now.mono);
        let long = now.mono.saturating_duration_since(since) >= desired.record.spec.backoff.reset_after;
        if long && slot.record.attempts > 0 {
            slot.record.attempts = 0;
            self.changed.push(replica);
        }
    }

    fn stop(&mut self, replica: u32, cause: StopCause, desired: &Desired, now: Now) -> Option<Step> {
        let slot = self.slots.get_mut(&replica)?;
        let instance = slot.instance()?;
        slot.enter(InstanceState::Stopping, cause.reason().clone(), now);
        let event = NewEvent::normal(&self.service, "Stopping", format!("stopping: {}", cause.reason()));
        self.events.push(event.about(replica, Some(instance.id.clone())));
        slot.hurried = desired.mode == Mode::Kill;
        (slot.busy, slot.cause) = (true, Some(cause));
        let how = if slot.hurried { StopRequest::KILL } else { StopRequest::from_spec(&desired.record.spec) };
        self.changed.push(replica);
        Some(Step::Stop { instance, how })
    }

    fn stop_again(&mut self, replica: u32, desired: &Desired, now: Now) -> Option<Step> {
        let slot = self.slots.get_mut(&replica)?;
        if desired.mode != Mode::Kill && slot.due.is_some_and(|due| due > now.mono) {
            return None;
        }
        let instance = slot.instance()?;
        slot.busy = true;
        let how =
            if desired.mode == Mode::Kill { StopRequest::KILL } else { StopRequest::from_spec(&desired.record.spec) };
        Some(Step::Stop { instance, how })
    }
}

#[cfg(test)]
mod tests;
