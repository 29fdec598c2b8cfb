//! Follows the store: the one task that turns its changes, and those of health, into snapshots for readers.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use coredinator_core::{
    Change, ChangeStream, CheckTiming, ConfigAck, ConfigRollout, Event, HealthCheck, HealthStatus, InstanceRecord,
    InstanceState, Intent, Key, ProbeSpec, ProbeTarget, Record, Revision, ServiceName, ServiceRecord, StoreError,
};
use futures_util::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    ConfigHead, Shared,
    events::NewEvent,
    journal::{Entry, Journal},
    keys::{self, Subject},
    record::Written,
    told::{self, Told},
    view::{InstanceView, ServiceView},
};
use crate::{
    health::{CheckCell, CheckKey, CheckKind, CheckSnapshot, CheckSpec, HealthMonitor, Transition},
    leadership::{Place, PlaceChanges},
};

/// What the store holds of one service, and the checks that follow from it.
#[derive(Default)]
struct Parts {
    record: Option<(Arc<ServiceRecord>, Revision)>,
    intent: Arc<Intent>,
    /// Of the intent's record, if there is one.
    intent_at: Option<Revision>,
    instances: BTreeMap<u32, Arc<InstanceRecord>>,
    /// By which writes its supervisor's records stand, whether or not they can be read.
    written: Arc<Written>,
    acks: Arc<BTreeMap<u32, ConfigAck>>,
    rollout: Arc<ConfigRollout>,
    checks: BTreeMap<CheckKey, (ProbeTarget, coredinator_core::CheckTiming, Arc<CheckCell>)>,
    /// What those say who check it.
    told: Told,
    /// The same, as cells, of what is not checked here.
    heard: BTreeMap<CheckKey, Arc<CheckCell>>,
}

pub(super) struct Follower {
    shared: Arc<Shared>,
    monitor: HealthMonitor,
    journal: Journal,
    services: BTreeMap<ServiceName, Parts>,
    /// A head that readers get once they see the services that came with it.
    head: Option<ConfigHead>,
    /// Up to where the store has been followed.
    revision: Revision,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, monitor: HealthMonitor, journal: Journal) -> Self {
        Self { shared, monitor, journal, services: BTreeMap::new(), head: None, revision: Revision::ZERO }
    }

    /// Reads everything, and answers the changes from there.
    pub(super) async fn load(&mut self) -> Result<ChangeStream, StoreError> {
        let listing = self.shared.store.list("").await?;
        let changes = self.shared.store.watch("", listing.revision).await?;
        let mut touched: BTreeSet<ServiceName> = self.services.keys().cloned().collect();
        for parts in self.services.values_mut() {
            // The checks stay: what is still wanted is found again.
            (parts.record, parts.intent, parts.intent_at) = (None, Arc::default(), None);
            (parts.acks, parts.rollout) = (Arc::default(), Arc::default());
            (parts.told, parts.instances, parts.written) = (Told::default(), BTreeMap::new(), Arc::default());
        }
        self.head = Some(ConfigHead::default());
        let mut events: Vec<&Record> = Vec::new();
        for record in &listing.records {
            if keys::parse(&record.key) == Some(Subject::Event) {
                events.push(record);
            } else {
                touched.extend(self.apply_entry(record.revision, &record.key, Some(&record.value)));
            }
        }
        events.sort_by_key(|record| record.revision);
        for of_one_write in events.chunk_by(|a, b| a.revision == b.revision) {
            let read = of_one_write.iter().filter_map(|r| Some((r.key.clone(), decode::<Event>(&r.key, &r.value)?)));
            self.push_events(of_one_write[0].revision, read.collect());
        }
        self.shared.events.listed();
        self.publish(touched, listing.revision);
        Ok(changes)
    }

    /// Follows until `closed`.
    pub(super) async fn run(
        mut self,
        mut changes: ChangeStream,
        mut transitions: mpsc::UnboundedReceiver<Transition>,
        mut places: PlaceChanges,
        closed: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                () = places.changed() => {
                    // Others check by now what was checked here, or the other way round.
                    survive(|| self.rebuild_all());
                }
                change = changes.next() => {
                    let followed = match change {
                        Some(Err(_)) | None if closed.is_cancelled() => return,
                        Some(Ok(change)) => survive(|| self.apply(change)),
                        Some(Err(error)) => {
                            tracing::warn!(%error, "reading the store anew");
                            false
                        }
                        None => false,
                    };
                    if !followed {
                        changes = self.reload(&closed).await;
                    }
                }
                Some(transition) = transitions.recv() => {
                    survive(|| self.apply_transition(transition));
                }
            }
        }
    }

    async fn reload(&mut self, closed: &CancellationToken) -> ChangeStream {
        let mut pause = Duration::from_millis(50);
        loop {
            match AssertUnwindSafe(self.load()).catch_unwind().await {
                Ok(Ok(changes)) => return changes,
                Ok(Err(error)) => {
                    tracing::warn!(%error, ?pause, "the store cannot be read; what is shown may be stale");
                }
                Err(_) => tracing::error!(?pause, "reading the store panicked, which is a defect; trying again"),
            }
            tokio::select! {
                () = closed.cancelled() => return futures_util::stream::pending().boxed(),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
            }
        }
    }

    fn apply(&mut self, change: Change) {
        let mut touched = BTreeSet::new();
        let mut events = Vec::new();
        for (key, value) in change.entries {
            if keys::parse(&key) == Some(Subject::Event) {
                let event = value.and_then(|value| decode::<Event>(&key, &value));
                events.extend(event.map(|event| (key, event)));
            } else {
                touched.extend(self.apply_entry(change.revision, &key, value.as_deref()));
            }
        }
        events.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.publish(touched, change.revision);
        self.push_events(change.revision, events);
    }

    /// Takes in one record (or its absence), and answers which service it is about.
    fn apply_entry(&mut self, revision: Revision, key: &Key, value: Option<&[u8]>) -> Option<ServiceName> {
        match keys::parse(key)? {
            Subject::Service(name) => {
                let read = value.and_then(|value| decode::<ServiceRecord>(key, value));
                self.parts(&name).record = read.map(|record| (Arc::new(record), revision));
                Some(name)
            }
            Subject::Intent(name) => {
                let read = value.and_then(|value| decode::<Intent>(key, value));
                let parts = self.parts(&name);
                (parts.intent, parts.intent_at) = (Arc::new(read.unwrap_or_default()), value.map(|_| revision));
                Some(name)
            }
            Subject::Instance(name, replica) => {
                let read = value.and_then(|value| decode::<InstanceRecord>(key, value));
                let parts = self.parts(&name);
                match read {
                    Some(record) => drop(parts.instances.insert(replica, Arc::new(record))),
                    None => drop(parts.instances.remove(&replica)),
                }
                let written = &mut Arc::make_mut(&mut parts.written).instances;
                match value {
                    Some(_) => drop(written.insert(replica, revision)),
                    None => drop(written.remove(&replica)),
                }
                Some(name)
            }
            Subject::Ack(name, replica) => {
                let read = value.and_then(|value| decode::<ConfigAck>(key, value));
                let acks = Arc::make_mut(&mut self.parts(&name).acks);
                match read {
                    Some(ack) => drop(acks.insert(replica, ack)),
                    None => drop(acks.remove(&replica)),
                }
                Some(name)
            }
            Subject::Rollout(name) => {
                let read = value.and_then(|value| decode::<ConfigRollout>(key, value));
                let parts = self.parts(&name);
                parts.rollout = Arc::new(read.unwrap_or_default());
                Arc::make_mut(&mut parts.written).rollout = value.map(|_| revision);
                Some(name)
            }
            Subject::ConfigHead => {
                let read = value.and_then(|value| decode::<ConfigHead>(key, value)).unwrap_or_default();
                self.head = Some(ConfigHead { stored: value.map(|_| revision), ..read });
                None
            }
            Subject::Health(name) => {
                let read = value.and_then(|value| decode::<Told>(key, value));
                self.parts(&name).told = read.unwrap_or_default();
                Some(name)
            }
            Subject::Event => None,
        }
    }

    fn parts(&mut self, name: &ServiceName) -> &mut Parts {
        self.services.entry(name.clone()).or_default()
    }

    fn push_events(&self, revision: Revision, events: Vec<(Key, Event)>) {
        if events.is_empty() {
            return;
        }
        for key in self.shared.events.push(revision, events) {
            self.journal.add(Entry::Forget(key));
        }
    }

    fn publish(&mut self, touched: BTreeSet<ServiceName>, revision: Revision) {
        for name in touched {
            self.rebuild(&name);
        }
        if let Some(head) = self.head.take() {
            self.shared.config.send_replace(Arc::new(head));
        }
        self.revision = self.revision.max(revision);
        let revision = self.revision;
        self.shared.followed.send_if_modified(|seen| std::mem::replace(seen, revision) < revision);
    }

    fn apply_transition(&mut self, transition: Transition) {
        let Transition { key, from, to, at, message } = transition;
        let known = self.services.get(&key.service).is_some_and(|parts| parts.checks.contains_key(&key));
        if !known {
            return;
        }
        let (code, what) = match (key.kind, to) {
            (CheckKind::Health, HealthStatus::Healthy) => ("Healthy", "health"),
            (CheckKind::Health, HealthStatus::Degraded) => ("Degraded", "health"),
            (CheckKind::Health, HealthStatus::Unhealthy) => ("Unhealthy", "health"),
            (CheckKind::Health, HealthStatus::Unknown) => ("Unknown", "health"),
            (CheckKind::Readiness, HealthStatus::Healthy | HealthStatus::Degraded) => ("Ready", "readiness"),
            (CheckKind::Readiness, HealthStatus::Unhealthy | HealthStatus::Unknown) => ("NotReady", "readiness"),
        };
        let mut event = NewEvent::normal(&key.service, code, format!("{what}: {from} -> {to}: {message}"));
        if let Some(replica) = key.replica {
            event = event.about(replica, key.instance.clone());
        }
        if to == HealthStatus::Unhealthy {
            event = event.warning();
        }
        let (key_of_event, event) = self.shared.stamp(event, at);
        self.journal.add(Entry::Put(key_of_event, event));
        self.tell(&key.service);
        self.rebuild(&key.service);
    }

    /// Lets other replicas know what the checks of a service say that are made here.
    fn tell(&self, service: &ServiceName) {
        let place = &self.shared.place;
        let Some(parts) = self.services.get(service).filter(|_| !place.is_sole()) else { return };
        let Some((record, _)) = &parts.record else { return };
        let instance = parts.instances.values().next().map(|instance| place.seat_of_instance(record, instance));
        let post = place.at(&instance.unwrap_or_else(|| place.seat(record)));
        let Some(grant) = post.and_then(|post| place.tenure(post).grant()) else { return };
        let told = Told::of(parts.checks.iter().map(|(key, (.., cell))| (key, cell.snapshot())));
        if let Ok(value) = serde_json::to_vec(&told) {
            self.journal.add(Entry::Tell(keys::health(service), value, grant));
        }
    }

    fn rebuild_all(&mut self) {
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        names.iter().for_each(|name| self.rebuild(name));
    }

    /// Makes the snapshot of one service anew, and tells those who listen.
    fn rebuild(&mut self, name: &ServiceName) {
        let Some(parts) = self.services.get_mut(name) else { return };
        parts.renew_checks(&self.monitor, &self.shared.place, self.shared.clock.now());
        let Some((record, revision)) = parts.record.clone() else {
            if *parts.written == Written::default() && parts.told == Told::default() {
                self.services.remove(name);
            }
            self.shared.replace(name, None);
            return;
        };
        let cell = |key: CheckKey| {
            let here = parts.checks.get(&key).map(|(.., cell)| cell);
            here.or_else(|| parts.heard.get(&key)).map(Arc::clone)
        };
        let instances = parts.instances.values().map(|instance| {
            let check = |kind| {
                cell(CheckKey {
                    service: name.clone(),
                    replica: Some(instance.replica),
                    instance: instance.id.clone(),
                    kind,
                })
            };
            InstanceView::new(Arc::clone(instance), check(CheckKind::Health), check(CheckKind::Readiness))
        });
        let mut view = ServiceView {
            record,
            revision,
            intent: Arc::clone(&parts.intent),
            intent_at: parts.intent_at,
            status: coredinator_core::ServiceStatus::default(),
            reason: coredinator_core::Reason::default(),
            since: self.shared.clock.now(),
            instances: instances.collect(),
            written: Arc::clone(&parts.written),
            check: cell(CheckKey { service: name.clone(), replica: None, instance: None, kind: CheckKind::Health }),
            acks: Arc::clone(&parts.acks),
            rollout: Arc::clone(&parts.rollout),
            // This task alone replaces snapshots, so the next number is known.
            index: *self.shared.index.borrow() + 1,
        };
        (view.status, view.reason) = view.derive();
        if let Some(before) = self.shared.service(name.as_str()).filter(|before| before.status == view.status) {
            view.since = before.since;
        }
        self.shared.replace(name, Some(Arc::new(view)));
    }
}

/// Does it, and answers whether it came to its end: one record that cannot be dealt with must not end the task that all
/// readers depend on.
fn survive(step: impl FnOnce()) -> bool {
    let done = std::panic::catch_unwind(AssertUnwindSafe(step)).is_ok();
    if !done {
        tracing::error!("following the store panicked, which is a defect; going on");
    }
    done
}

impl Parts {
    /// Adds the checks that are wanted and takes away those that no longer are. What others check is what they say of it.
    fn renew_checks(&mut self, monitor: &HealthMonitor, place: &Place, now: coredinator_core::Timestamp) {
        let (here, elsewhere): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.wanted_checks(now).into_iter().partition(|(key, _)| self.is_checked_by(place, key));
        self.checks.retain(|key, _| {
            let keep = here.contains_key(key);
            if !keep {
                monitor.remove(key);
            }
            keep
        });
        for (key, spec) in here {
            let same = self
                .checks
                .get(&key)
                .is_some_and(|(target, timing, _)| *target == spec.target && *timing == spec.timing);
            if !same {
                let (target, timing) = (spec.target.clone(), spec.timing);
                let known = self.checks.contains_key(&key);
                // With other terms it begins anew; what another replica checked goes on.
                let recalled = if known { CheckSnapshot::default() } else { self.told.recall(&key) };
                let cell = monitor.add_recalled(key.clone(), spec, &recalled);
                self.checks.insert(key, (target, timing, cell));
            }
        }
        let Some((record, _)) = &self.record else {
            self.heard.clear();
            return;
        };
        let silence = place.silent(&place.seat(record));
        let hear = |key: CheckKey| {
            let said = match silence {
                Some(silence) => told::silent(&key.service, silence, now),
                None => self.told.recall(&key),
            };
            (key, Arc::new(CheckCell::recalled(&said)))
        };
        self.heard = elsewhere.into_keys().map(hear).collect();
    }

    fn is_checked_by(&self, place: &Place, key: &CheckKey) -> bool {
        let Some((record, _)) = &self.record else { return false };
        let instance = key.replica.and_then(|replica| self.instances.get(&replica));
        place.checks(record, instance.map(Arc::as_ref))
    }

    fn wanted_checks(&self, now: coredinator_core::Timestamp) -> BTreeMap<CheckKey, CheckSpec> {
        let Some((record, _)) = &self.record else { return BTreeMap::new() };
        let spec = &record.spec;
        let check = |kind, of: &HealthCheck, instance: Option<&InstanceRecord>| {
            let key = CheckKey {
                service: spec.name.clone(),
                replica: instance.map(|i| i.replica),
                instance: instance.and_then(|i| i.id.clone()),
                kind,
            };
            let target = ProbeTarget {
                service: spec.name.clone(),
                instance: instance.and_then(InstanceRecord::reference),
                runtime: instance.map(|i| i.runtime.clone()),
                host: instance.map_or_else(|| spec.host.clone(), |i| i.host.clone()),
                port: instance.map_or(spec.port, |i| i.port),
                spec: Arc::new(of.probe.clone()),
            };
            // Nobody here started an external service, so nothing is owed to it for being young.
            let age = instance.map_or(Duration::MAX, |i| {
                let ran = i.started_at.map_or(jiff::SignedDuration::ZERO, |started| now.duration_since(started));
                Duration::try_from(ran).unwrap_or_default()
            });
            (key, CheckSpec { target, timing: of.timing, age })
        };
        if !spec.is_managed() {
            return spec
                .health_check
                .iter()
                .filter(|_| !record.deleting)
                .map(|of| check(CheckKind::Health, of, None))
                .collect();
        }
        let running = self.instances.values().filter(|instance| instance.state == InstanceState::Running);
        if spec.is_probed_elsewhere() {
            // Whoever checks ends what is not alive by itself, which is seen; what it says of readiness is believed.
            let of = spec.readiness_check.as_ref().or(spec.health_check.as_ref());
            let believed = of.map(|of| HealthCheck {
                probe: ProbeSpec::Native,
                timing: CheckTiming { retries: 1, success_threshold: 1, start_period: Duration::ZERO, ..of.timing },
            });
            let believed = believed.as_ref();
            return running
                .filter_map(|instance| Some(check(CheckKind::Readiness, believed?, Some(instance))))
                .collect();
        }
        running
            .flat_map(|instance| {
                let health = spec.health_check.iter().map(|of| check(CheckKind::Health, of, Some(instance)));
                health.chain(spec.readiness_check.iter().map(|of| check(CheckKind::Readiness, of, Some(instance))))
            })
            .collect()
    }
}

/// Reads a stored value. What this version cannot read is told and passed over: it is not this version's to destroy.
fn decode<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value)
        .inspect_err(|error| tracing::error!(%key, %error, "a stored record cannot be read and is passed over"))
        .ok()
}
