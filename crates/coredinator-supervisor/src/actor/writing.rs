//! How what waits comes to the store, and what follows from its answer.

use std::time::Duration;

use coredinator_core::{InstanceRecord, Reason, Revision, ServiceName, StoreError};
use coredinator_registry::{Recording, Registry, ServiceView, Written, leadership::Grant};

use super::{Actor, Ended, Input, outbox::Writing};
use crate::{
    machine::{Desired, StartOutcome, Step},
    slot::Now,
};

/// How long a write that the store refused waits before it is tried again.
pub(super) const WRITE_AGAIN: Duration = Duration::from_millis(500);

/// One write, and what came of it.
#[derive(Debug)]
pub(crate) struct Attempt {
    written: Writing,
    /// The one before, as long as it is not known what came of that.
    doubt: Option<Writing>,
    /// How the records stand in the store.
    stored: Written,
    result: Result<Revision, StoreError>,
}

impl Actor {
    /// Stores what waits, unless a write is under way or has just been refused. One write at a time keeps their order.
    pub(super) fn write(&mut self, now: Now) {
        let outbox = &mut self.outbox;
        if outbox.writing || outbox.not_before.is_some_and(|time| time > now.mono) {
            return;
        }
        outbox.not_before = None;
        if outbox.is_empty() {
            return;
        }
        outbox.writing = true;
        let (written, doubt) = (std::mem::take(&mut outbox.waiting), outbox.doubt.take());
        let stored = self.stored.clone();
        let (registry, sender, name) = (self.context.registry.clone(), self.sender.clone(), self.name.clone());
        let grant = self.grant.clone();
        tokio::spawn(async move {
            let mut attempt = Attempt { written, doubt, stored, result: Ok(Revision::ZERO) };
            attempt.make(&registry, &name, &grant).await;
            // The actor outlives its writes unless the whole supervisor is being dropped.
            let _ = sender.send(Input::Written(Box::new(attempt)));
        });
    }

    pub(super) fn written(&mut self, attempt: Attempt, desired: &Desired, now: Now) {
        let Attempt { mut written, doubt, stored, result } = attempt;
        self.outbox.writing = false;
        self.stored = stored;
        let steps = std::mem::take(&mut written.steps);
        let refused = match result {
            Ok(revision) => {
                self.last = revision;
                written.note(revision, &mut self.stored);
                None
            }
            // Nothing of what was to be done is this actor's to do any more.
            Err(StoreError::Fenced { .. }) => return self.depose(),
            Err(error @ StoreError::Conflict { .. }) => {
                tracing::debug!(service = %self.name, %error, "somebody else has written of it; it is taken up anew");
                self.end = Some(Ended::Overtaken);
                return;
            }
            Err(error) => {
                tracing::warn!(service = %self.name, %error, "what happened could not be stored; trying again");
                self.outbox.not_before = now.mono.checked_add(WRITE_AGAIN);
                if doubt.is_some() || self.context.registry.place().is_sole() {
                    self.outbox.waiting.put_back(written);
                    self.outbox.doubt = doubt;
                } else {
                    self.outbox.doubt = Some(written);
                }
                Some(error)
            }
        };
        for step in steps {
            match (step, &refused) {
                // A start that is not written down could be doubled or orphaned by a crash, so it waits.
                (Step::Start { replica, id, .. }, Some(error)) => {
                    let reason = Reason::new("StoreUnavailable", format!("waits for the store: {error}"));
                    let random = self.rng.f64();
                    self.machine.started(replica, &id, StartOutcome::Unknown(reason), desired, now, random);
                }
                (Step::Start { replica, id, preferred_port }, None) => self.start(replica, id, preferred_port, desired),
                // It is given anew when the store takes that.
                (Step::Deliver { replica, id, .. }, Some(_)) => self.machine.config_checked(replica, &id),
                (Step::Deliver { replica, id, revision }, None) => self.deliver(replica, id, revision, desired),
                // What another replica may look after by now waits for the store's word that this is not so.
                (Step::Stop { instance, .. }, Some(error)) if self.is_contested() => {
                    let reason = Reason::new("StoreUnavailable", format!("waits for the store: {error}"));
                    self.machine.stop_failed(instance.replica, &instance.id, reason, now);
                }
                // Ending does not wait: an instance that has ended although the store says that it runs is found out.
                (Step::Stop { instance, how }, _) => self.stop(instance, how),
                // Told by the records.
                (Step::Forget { .. }, _) => {}
            }
        }
    }

    /// Waits for the write under way, and stores what came since.
    pub(super) async fn last_write(&mut self) {
        let now = self.context.now();
        let deadline = tokio::time::Instant::from_std(now.mono) + Duration::from_secs(2);
        let write = async {
            loop {
                self.write(self.context.now());
                if self.outbox.is_empty() {
                    return;
                }
                match self.inbox.recv().await {
                    Some(input) => self.take(input),
                    None => return,
                }
                if self.end.is_some() {
                    return;
                }
            }
        };
        if tokio::time::timeout_at(deadline, write).await.is_err() {
            tracing::warn!(service = %self.name, "what happened last could not be stored; it will be found out");
        }
    }
}

impl Attempt {
    /// Makes it, once it is known what came of the one before.
    async fn make(&mut self, registry: &Registry, name: &ServiceName, grant: &Grant) {
        if let Some(doubt) = self.doubt.take() {
            // A store that breaks off leaves open whether it has written. What comes after it has confirmed the grant is seen.
            if let Err(error) = registry.confirm(grant).await {
                (self.doubt, self.result) = (Some(doubt), Err(error));
                return;
            }
            let view = registry.service(name.as_str()).ok();
            match view.as_deref().and_then(|view| doubt.landed(&self.stored, view)) {
                // Else one's own write would be taken for somebody else's.
                Some(revision) => doubt.note(revision, &mut self.stored),
                None => self.written.put_back(doubt),
            }
        }
        let written = &self.written;
        let known = (!registry.place().is_sole()).then(|| self.stored.clone());
        let (put, gone): (Vec<_>, Vec<_>) = written.records.iter().partition(|(_, record)| record.is_some());
        let put: Vec<InstanceRecord> = put.into_iter().filter_map(|(_, record)| record.clone()).collect();
        let gone: Vec<u32> = gone.into_iter().map(|(replica, _)| *replica).collect();
        let (rollout, events) = (written.rollout.clone(), written.events.clone());
        let recording = Recording { instances: put, gone, written: known, rollout, events };
        self.result = registry.record(name, recording, Some(grant)).await;
        if let Ok(revision) = &self.result
            && written.steps.iter().any(|step| matches!(step, Step::Deliver { .. }))
        {
            // An instance that is told may ask at once which revision it has.
            registry.seen(*revision).await;
        }
    }
}

impl Writing {
    /// Notes that the write `at` was this one.
    fn note(&self, at: Revision, stored: &mut Written) {
        for (&replica, record) in &self.records {
            match record {
                Some(_) => drop(stored.instances.insert(replica, at)),
                None => drop(stored.instances.remove(&replica)),
            }
        }
        if self.rollout.is_some() {
            stored.rollout = Some(at);
        }
    }

    /// By which write the store has come from how it stood before to what this one says; `None`: it has not, or somebody else
    /// has written since.
    fn landed(&self, before: &Written, view: &ServiceView) -> Option<Revision> {
        let stands = |(replica, record): (&u32, &Option<InstanceRecord>)| match record {
            Some(record) => view.instances.iter().any(|instance| *instance.record == *record),
            None => !view.written.instances.contains_key(replica),
        };
        let all =
            self.records.iter().all(stands) && self.rollout.as_ref().is_none_or(|rollout| *rollout == *view.rollout);
        if !all {
            return None;
        }
        let mut after = before.clone();
        let put = self.records.iter().filter(|(_, record)| record.is_some());
        let at = put.filter_map(|(replica, _)| view.written.instances.get(replica)).copied();
        let at = at.chain(view.written.rollout.filter(|_| self.rollout.is_some())).max().unwrap_or_default();
        self.note(at, &mut after);
        (after != *before && after == *view.written).then_some(at)
    }
}
