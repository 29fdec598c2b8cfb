//! The driver of one service: feeds its machine, stores what the machine changed, and takes the steps it asks for.

mod outbox;
mod steps;
mod writing;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use coredinator_core::{
    ConfigRollout, InstanceId, InstanceRecord, Observation, Reason, Revision, ServiceName, Started, StoreError,
};
use coredinator_registry::{
    NewEvent, RegistryError, ServiceView, Written,
    leadership::{Duty, Grant, Post, Tenure},
};
use futures_util::FutureExt;
use outbox::Outbox;
pub(crate) use steps::chain;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use writing::{Attempt, WRITE_AGAIN};

use crate::{
    context::Context,
    gate,
    machine::{Desired, Machine, Mode, StartOutcome, Step},
    rollout::{self, ConfigNews, ConfigStep, Sight},
    slot::{Now, Slot},
};

/// What an actor is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something about it or what it depends on has changed.
    Look,
    /// Whether services are to run at all.
    Mode(Mode),
    /// Leave everything as it is, and end.
    Detach,
    Started {
        replica: u32,
        id: InstanceId,
        outcome: StartOutcome,
    },
    Observed {
        replica: u32,
        id: InstanceId,
        observation: Observation,
    },
    StopFailed {
        replica: u32,
        id: InstanceId,
        reason: Reason,
    },
    /// An instance was given a revision of its document, or could not be.
    ConfigGiven {
        replica: u32,
        id: InstanceId,
        revision: u64,
        result: Result<(), String>,
    },
    /// An instance was checked with its document.
    ConfigChecked {
        replica: u32,
        id: InstanceId,
    },
    /// A write ended.
    Written(Box<Attempt>),
}

/// Why an actor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There is nothing left to do.
    Done,
    /// It may not act any more; what lives is left as it is.
    Deposed,
    /// This replica looks after the service by another post now; what lives is left as it is.
    Reseated,
    /// Somebody else has written of its replicas: what it knew of them is old.
    Overtaken,
}

/// What others hold of an actor.
#[derive(Debug)]
pub(crate) struct ActorHandle {
    pub(crate) inbox: mpsc::UnboundedSender<Input>,
    /// The mode in which nothing of the service runs, or is about to, or waits to be stored; `None` while something does.
    pub(crate) quiet: watch::Receiver<Option<Mode>>,
    pub(crate) post: Post,
    pub(crate) task: AbortHandle,
}

impl ActorHandle {
    pub(crate) fn tell(&self, input: Input) {
        // An actor that has ended has nothing left to be told about.
        let _ = self.inbox.send(input);
    }
}

pub(crate) struct Actor {
    name: ServiceName,
    context: Arc<Context>,
    machine: Machine,
    inbox: mpsc::UnboundedReceiver<Input>,
    sender: mpsc::UnboundedSender<Input>,
    quiet: watch::Sender<Option<Mode>>,
    rng: fastrand::Rng,
    mode: Mode,
    post: Post,
    /// What it acts by. With it, it ends.
    grant: Grant,
    /// The service is looked after elsewhere by now. For good: should it come back, another actor begins with what is stored.
    leaving: bool,
    /// Why it is to end.
    end: Option<Ended>,
    /// The last snapshot seen: what is wanted goes on to be that when the registry no longer tells.
    view: Option<Arc<ServiceView>>,
    /// How far the service's document has come. Nobody else writes that.
    rollout: ConfigRollout,
    /// When to decide about it again if nothing else happens.
    config_due: Option<Instant>,
    outbox: Outbox,
    /// By which writes the records of its replicas, and how far the document has come, stand in the store.
    stored: Written,
    /// Its last write.
    last: Revision,
}

/// What an actor begins with: the replicas that the store knows, and those of them that run.
pub(crate) struct Beginning {
    pub(crate) records: Vec<InstanceRecord>,
    /// How far the service's document has come.
    pub(crate) rollout: ConfigRollout,
    /// By which writes these stand in the store.
    pub(crate) stored: Written,
    pub(crate) running: BTreeMap<u32, Started>,
    pub(crate) mode: Mode,
    pub(crate) duty: Duty,
    pub(crate) grant: Grant,
}

impl Actor {
    /// Starts it as one of `tasks`, which tell when it has ended.
    pub(crate) fn spawn(
        context: Arc<Context>,
        name: ServiceName,
        beginning: Beginning,
        tasks: &mut JoinSet<Ended>,
    ) -> ActorHandle {
        let (sender, inbox) = mpsc::unbounded_channel();
        let (quiet, is_quiet) = watch::channel(None);
        let now = context.now();
        let longest = context.registry.service(name.as_str()).map(|view| view.record.spec.backoff.delay(u32::MAX, 1.0));
        let longest = longest.unwrap_or_default();
        let slots = beginning.records.into_iter().map(|record| Slot::resumed(record, longest, now));
        let actor = Self {
            machine: Machine::new(name.clone(), slots),
            rng: fastrand::Rng::with_seed(context.next_seed()),
            inbox,
            sender: sender.clone(),
            quiet,
            mode: beginning.mode,
            post: beginning.duty.post,
            grant: beginning.grant,
            leaving: beginning.duty.leaving,
            end: None,
            view: None,
            rollout: beginning.rollout,
            config_due: None,
            outbox: Outbox::default(),
            stored: beginning.stored,
            last: Revision::ZERO,
            name,
            context,
        };
        let task = tasks.spawn(actor.run(beginning.running));
        ActorHandle { inbox: sender, quiet: is_quiet, post: beginning.duty.post, task }
    }

    async fn run(mut self, running: BTreeMap<u32, Started>) -> Ended {
        if self.look().is_none() {
            return self.end.unwrap_or(Ended::Done);
        }
        self.take_up(running);
        loop {
            let Some(desired) = self.look() else { return self.end.unwrap_or(Ended::Done) };
            let now = self.context.now();
            let delivery = self.roll_out(&desired, now);
            let (name, rng) = (&self.name, &mut self.rng);
            let mut steps =
                self.machine.reconcile(&desired, now, &mut |replica| InstanceId::coin(name, replica, rng.u64(..)));
            steps.extend(delivery);
            let (records, events) = self.machine.take_changes();
            self.outbox.waiting.add(records, events, steps);
            self.write(now);
            let quiet = self.machine.is_quiet() && self.outbox.is_empty();
            let quiet_in = quiet.then_some(self.mode);
            self.quiet.send_if_modified(|was| std::mem::replace(was, quiet_in) != quiet_in);
            if quiet && self.leaving {
                // Whoever looks here next sees that nothing is left.
                self.context.registry.seen(self.last).await;
                return Ended::Done;
            }
            if quiet && desired.record.deleting && self.mode == Mode::Run {
                match self.forget_service().await {
                    Ok(()) if self.view().is_none() => return Ended::Done,
                    Ok(()) => {}
                    Err(RegistryError::Store(StoreError::Fenced { .. })) => self.depose(),
                    Err(error) => {
                        tracing::warn!(service = %self.name, %error, "deregistering waits for the store");
                        self.outbox.not_before = now.mono.checked_add(WRITE_AGAIN);
                    }
                }
            }
            let due = self.machine.next_due(&desired).into_iter().chain(self.outbox.not_before);
            let due = due.chain(self.config_due).min();
            let input = match due {
                Some(due) => tokio::select! {
                    input = self.inbox.recv() => input,
                    () = tokio::time::sleep_until(due.into()) => Some(Input::Look),
                },
                None => self.inbox.recv().await,
            };
            let mut next = input;
            while let Some(input) = next {
                if matches!(input, Input::Detach) {
                    self.last_write().await;
                    return Ended::Done;
                }
                self.take(input);
                next = self.inbox.try_recv().ok();
            }
        }
    }

    /// Takes over the instances that run already, and settles those that the records say do but that are gone.
    fn take_up(&mut self, mut running: BTreeMap<u32, Started>) {
        let Some(desired) = self.look() else { return };
        let now = self.context.now();
        let live: Vec<u32> = self
            .machine
            .slots()
            .filter(|slot| slot.record.state.is_live() || running.contains_key(&slot.record.replica))
            .map(|slot| slot.record.replica)
            .collect();
        for replica in live {
            match running.remove(&replica) {
                Some(started) => {
                    let instance = started.instance.clone();
                    self.machine.adopted(started, now);
                    self.watch(replica, instance);
                }
                None => {
                    let random = self.rng.f64();
                    self.machine.lost(replica, &desired, now, random);
                }
            }
        }
    }

    fn view(&self) -> Option<Arc<ServiceView>> {
        self.context.registry.service(self.name.as_str()).ok()
    }

    fn tenure(&self) -> &Tenure {
        self.context.registry.place().tenure(self.post)
    }

    /// Somebody else may look after the service by now: leaves everything as it is.
    fn depose(&mut self) {
        self.tenure().doubt();
        self.end = Some(Ended::Deposed);
    }

    /// Whether the service is still to be looked after from here, by the same post.
    fn stays(&mut self) -> bool {
        if self.end.is_none() && !self.tenure().holds(&self.grant) {
            self.end = Some(Ended::Deposed);
        }
        if let Some(view) = self.view().filter(|_| self.end.is_none()) {
            match self.context.registry.place().duty(&view) {
                Some(duty) if duty.post != self.post => self.end = Some(Ended::Reseated),
                Some(duty) => self.leaving |= duty.leaving,
                None => self.leaving = true,
            }
        }
        self.end.is_none()
    }

    /// What is wanted now; `None` once the service is gone (or external), and nothing of it is left here or on its way to the
    /// store, or once it is no longer looked after by this actor.
    fn look(&mut self) -> Option<Desired> {
        if !self.stays() {
            return None;
        }
        let declared = self.view();
        let gone = declared.as_ref().is_none_or(|view| !view.record.spec.is_managed());
        if !gone {
            self.view = declared;
        } else if self.outbox.is_empty() && self.machine.slots().next().is_none() {
            return None;
        } else if self.view.is_none() {
            self.view = declared;
        }
        // Gone, and something of it is left: as if it were scaled to nothing, by the last spec that was seen.
        let view = self.view.clone()?;
        let health = view.instances.iter().filter_map(|instance| {
            let id = instance.record.id.clone()?;
            let status = instance.health.as_ref().map(|cell| cell.status());
            let words = instance.health.as_ref().map(|cell| cell.snapshot().message).unwrap_or_default();
            Some((id, (status, instance.ready, words)))
        });
        Some(Desired {
            gate: gate::judge(&view.record.spec, |name| self.context.registry.service(name.as_str()).ok()),
            health: health.collect(),
            record: Arc::clone(&view.record),
            intent: Arc::clone(&view.intent),
            wanted: if gone { 0 } else { view.wanted_replicas() },
            declared: if gone { 0 } else { view.declared_replicas() },
            mode: self.mode,
            node: view.record.spec.runtime.as_ref().and_then(|runtime| self.context.registry.place().node_of(runtime)),
            leaving: self.leaving,
        })
    }

    fn take(&mut self, input: Input) {
        let Some(desired) = self.look() else { return };
        let now = self.context.now();
        let random = self.rng.f64();
        match input {
            Input::Look | Input::Detach => {}
            Input::Mode(mode) => self.mode = self.mode.max(mode),
            Input::Started { replica, id, outcome } => {
                let instance = match &outcome {
                    StartOutcome::Started(started) => Some(started.instance.clone()),
                    StartOutcome::NotStarted(_) | StartOutcome::Unknown(_) => None,
                };
                self.machine.started(replica, &id, outcome, &desired, now, random);
                if let Some(instance) = instance {
                    self.watch(replica, instance);
                }
            }
            Input::Observed { replica, id, observation: Observation::Exited(exit) } => {
                self.machine.exited(replica, &id, exit, &desired, now, random);
            }
            Input::Observed { replica, id, observation: Observation::NotStarted(reason) } => {
                self.machine.not_started(replica, &id, reason, &desired, now, random);
            }
            Input::Observed { replica, id, observation } => self.machine.observed(replica, &id, &observation, now),
            Input::StopFailed { replica, id, reason } => self.machine.stop_failed(replica, &id, reason, now),
            Input::ConfigGiven { replica, id, revision, result } => {
                self.machine.config_given(replica, &id, revision, result, now);
            }
            Input::ConfigChecked { replica, id } => self.machine.config_checked(replica, &id),
            Input::Written(attempt) => self.written(*attempt, &desired, now),
        }
    }

    /// Whether another replica could reach the instances of this service.
    fn is_contested(&self) -> bool {
        self.post == Post::Leader && !self.context.registry.place().is_sole()
    }

    /// Decides about the service's document, and answers the step that is to be taken once it is written down.
    fn roll_out(&mut self, desired: &Desired, now: Now) -> Option<Step> {
        let record = &desired.record;
        let slots: Vec<&Slot> = self.machine.slots().collect();
        let view = self.view.clone();
        let sight = |id: &InstanceId| view.as_deref().map(|view| sight(view, id)).unwrap_or_default();
        let well = rollout::well(record, &self.rollout, &slots, now, &sight);
        self.machine.config_well(&well);
        let slots: Vec<&Slot> = self.machine.slots().collect();
        let may_replace = |replica| self.machine.may_replace(replica, desired);
        // While it goes down, nothing is given to anybody.
        let wanted = if desired.mode == Mode::Run && !record.deleting { desired.wanted } else { 0 };
        let decision = rollout::decide(record, &self.rollout, &slots, wanted, now, &sight, &may_replace);
        self.config_due = decision.due;
        match decision.news {
            Some(ConfigNews::Stable(revision)) => {
                let message = format!("revision {revision} of its configuration is in force in every instance");
                self.machine.tell(NewEvent::normal(&self.name, "ConfigInForce", message));
                self.rollout = ConfigRollout {
                    stable: revision,
                    document: record.config.clone().unwrap_or_default(),
                    overrides: record.spec.config.overrides.clone(),
                    rejected: None,
                };
                self.outbox.waiting.rollout = Some(self.rollout.clone());
            }
            Some(ConfigNews::Rejected(rejected)) => {
                let back = match self.rollout.stable {
                    0 => "there is none to go back to".to_owned(),
                    stable => format!("going back to revision {stable}"),
                };
                let message =
                    format!("revision {} of its configuration failed: {}; {back}", rejected.revision, rejected.reason);
                self.machine.tell(NewEvent::normal(&self.name, "ConfigRejected", message).warning());
                self.rollout.rejected = Some(rejected);
                self.outbox.waiting.rollout = Some(self.rollout.clone());
                // What follows from that is decided at once.
                let _ = self.sender.send(Input::Look);
            }
            None => {}
        }
        let renew = match &decision.step {
            Some(ConfigStep::Replace { replica }) => Some(*replica),
            _ => None,
        };
        self.machine.set_config(rollout::target(record, &self.rollout), renew);
        match decision.step {
            Some(ConfigStep::Deliver { replica, id, revision }) => {
                return self.machine.config_begun(replica, &id, revision, now);
            }
            Some(ConfigStep::Check { replica, id }) => {
                self.machine.config_checking(replica, &id);
                let (registry, name, sender) = (self.context.registry.clone(), self.name.clone(), self.sender.clone());
                tokio::spawn(async move {
                    registry.check_instance(&name, replica, &id).await;
                    let _ = sender.send(Input::ConfigChecked { replica, id });
                });
            }
            Some(ConfigStep::Replace { .. }) | None => {}
        }
        None
    }

    async fn forget_service(&self) -> Result<(), RegistryError> {
        self.context.registry.confirm(&self.grant).await?;
        let mut left = false;
        let runtime = self.view.as_ref().and_then(|view| self.context.runtimes.get(view.record.spec.runtime.as_ref()?));
        if let Some(runtime) = runtime {
            match AssertUnwindSafe(runtime.forget(&self.name)).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(service = %self.name, %error, "what its runtime keeps of it stays for now");
                    left = true;
                }
                Err(_) => tracing::error!(service = %self.name, "its runtime panicked; what it keeps of it stays"),
            }
        }
        self.context.forget_document(&self.name).await;
        self.context.registry.forget_service(&self.name, Some(&self.grant)).await?;
        if left {
            self.context.note_leftovers();
        }
        Ok(())
    }
}

/// What is known of an instance with its document.
fn sight(view: &ServiceView, id: &InstanceId) -> Sight {
    let Some(instance) = view.instances.iter().find(|instance| instance.record.id.as_ref() == Some(id)) else {
        return Sight::default();
    };
    let checks = || instance.health.iter().chain(&instance.readiness);
    let ack = view.acks.get(&instance.record.replica).filter(|ack| ack.instance == *id);
    Sight {
        health: instance.health.as_ref().map(|cell| cell.status()),
        ready: instance.ready,
        acknowledged: ack.map_or(0, |ack| ack.revision),
        checked_at: checks().map(|cell| cell.snapshot().last_check).min().flatten(),
        failing: checks().any(|cell| cell.snapshot().consecutive_failures > 0),
    }
}
