//! The registry: who exists, where, and how healthy; served from memory, kept in a [`Store`].
//!
//! Writes go to the store; one task follows the store's changes (its own and others') and the health monitor's verdicts,
//! and makes of them one immutable [`ServiceView`] per service. Readers take these snapshots and never wait for the store.

mod config;
mod error;
mod events;
mod follow;
mod journal;
mod keys;
mod record;
mod status;
mod told;
mod view;
mod write;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use coredinator_core::{
    Batch, Event, FieldError, HealthCheck, InstanceId, InstanceState, Key, Outcome, ProbeReport, Revision, ServiceName,
    ServiceSpec, SharedClock, Store, StoreCheck, StoreError, StoreStatus, Timestamp, field,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use config::{
    ConfigDiff, ConfigDocument, ConfigEdit, ConfigHead, ConfigOutcome, ConfigPlan, ConfigRevision, ConfigSource,
    ConfigValidation, OnUnreachable, Placed, PlanAction, PlanEffect, Schemas, SectionPlan, ServicePlan, Was,
};
pub use error::RegistryError;
pub use events::{EventCursor, EventItem, NewEvent};
pub use record::{Recording, Written};
pub use view::{Endpoint, InstanceView, ServiceView};
pub use write::{Command, Declared};

use crate::{
    health::{CheckKey, CheckKind, HealthMonitor, MonitorOptions, ProbeRegistry},
    leadership::{Grant, Place},
};

/// How many locks there are for the services that are decided about one by one.
const DECIDING_ON: usize = 64;
/// How long a write that was stored waits to be seen.
const FOLLOWING: Duration = Duration::from_secs(5);

/// What a registry is made of.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What stamps it.
    pub clock: SharedClock,
    /// The kinds of health check there are.
    pub probes: ProbeRegistry,
    /// How many checks are made at the same time.
    pub check_concurrency: usize,
    /// Where the chance that spreads checks starts.
    pub seed: u64,
}

/// A handle to the registry. Cheap to clone; its tasks end when the last handle is dropped, or by [`Registry::close`].
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    monitor: HealthMonitor,
    probes: ProbeRegistry,
    validation: Option<Arc<ConfigValidation>>,
    closed: CancellationToken,
    _last: Arc<DropGuard>,
}

/// What the handle and its tasks share.
struct Shared {
    store: Arc<dyn Store>,
    place: Place,
    clock: SharedClock,
    services: RwLock<BTreeMap<ServiceName, Arc<ServiceView>>>,
    /// Rises with every change of any snapshot.
    index: watch::Sender<u64>,
    /// Up to which revision the store has been followed.
    followed: watch::Sender<Revision>,
    events: Arc<events::EventLog>,
    /// The configuration's newest revision.
    config: watch::Sender<Arc<ConfigHead>>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<ServiceName>>>,
    /// Each write of a user is decided on what is there. Who decides about more than one service holds it alone; those
    /// who decide about one each share it, and hold that one's lock of `deciding_on`, so that the store can gather them.
    deciding: tokio::sync::RwLock<()>,
    deciding_on: Vec<tokio::sync::Mutex<()>>,
    unique: AtomicU32,
}

impl Registry {
    /// Reads what the store holds, starts its tasks on the current tokio runtime, and answers the handle.
    ///
    /// # Errors
    /// The store's, if it cannot be read.
    pub async fn open(options: RegistryOptions) -> Result<Self, StoreError> {
        Self::open_at(options, Place::alone()).await
    }

    /// The same of one of several replicas: it checks the health of what is its own to look after, and hears of the rest by the
    /// store.
    ///
    /// # Errors
    /// The store's, if it cannot be read.
    pub async fn open_at(options: RegistryOptions, place: Place) -> Result<Self, StoreError> {
        let RegistryOptions { store, clock, probes, check_concurrency, seed } = options;
        let (monitor, transitions) = HealthMonitor::start(MonitorOptions {
            probes: probes.clone(),
            clock: Arc::clone(&clock),
            concurrency: check_concurrency,
            seed,
        });
        let shared = Arc::new(Shared {
            store: Arc::clone(&store),
            place,
            clock,
            services: RwLock::default(),
            index: watch::Sender::new(0),
            followed: watch::Sender::new(Revision::ZERO),
            events: Arc::new(events::EventLog::new()),
            config: watch::Sender::new(Arc::default()),
            listeners: Mutex::default(),
            deciding: tokio::sync::RwLock::default(),
            deciding_on: (0..DECIDING_ON).map(|_| tokio::sync::Mutex::default()).collect(),
            unique: AtomicU32::new(fastrand::u32(..)),
        });
        let mut follower = follow::Follower::new(Arc::clone(&shared), monitor.clone(), journal::Journal::start(store));
        // From here on no change of what is this replica's is missed.
        let places = shared.place.changes();
        let changes = follower.load().await?;
        let closed = CancellationToken::new();
        tokio::spawn(follower.run(changes, transitions, places, closed.clone()));
        let last = Arc::new(closed.clone().drop_guard());
        Ok(Self { shared, monitor, probes, validation: None, closed, _last: last })
    }

    /// Follows the store no longer, for good: before it is closed under it. What was read goes on being told.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Whether the store is followed no longer.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// All services, in the order of their names.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<ServiceView>> {
        self.shared.services.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// One service.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], with the nearest name.
    pub fn service(&self, name: &str) -> Result<Arc<ServiceView>, RegistryError> {
        self.shared.service(name).ok_or_else(|| {
            let services = self.services();
            let names: Vec<&str> = services.iter().map(|service| service.name().as_str()).collect();
            let nearest = field::nearest(name, &names).and_then(|near| ServiceName::new(near).ok());
            RegistryError::NotFound { name: name.to_owned(), nearest }
        })
    }

    /// Rises with every change of any service's snapshot; wait on it for changes.
    #[must_use]
    pub fn index(&self) -> watch::Receiver<u64> {
        self.shared.index.subscribe()
    }

    /// The names of services as their snapshots change, from now on. Level-triggered use: a name says "look again".
    #[must_use]
    pub fn changes(&self) -> mpsc::UnboundedReceiver<ServiceName> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Where requests to `name` can go now; empty if nowhere.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn endpoints(&self, name: &str) -> Result<Vec<Endpoint>, RegistryError> {
        self.service(name).map(|service| service.endpoints())
    }

    /// The newest `limit` events (of one service, if one is named), oldest first.
    #[must_use]
    pub fn recent_events(&self, limit: usize, service: Option<&ServiceName>) -> Vec<Arc<Event>> {
        self.shared.events.recent(limit, |event| service.is_none_or(|name| event.service == *name))
    }

    /// Events from after number `after` on; without one, from now on.
    #[must_use]
    pub fn events(&self, after: Option<u64>) -> EventCursor {
        self.shared.events.cursor(after)
    }

    /// Checks a spec's health checks against the probes that there are; pointers are relative to the spec.
    #[must_use]
    pub fn validate_checks(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        let sections = [("/health_check", &spec.health_check), ("/readiness_check", &spec.readiness_check)];
        let checks = sections.into_iter().filter_map(|(pointer, check)| check.as_ref().map(|check| (pointer, check)));
        checks.flat_map(|(at, check)| self.validate_check(check).into_iter().map(move |e| e.under(at))).collect()
    }

    /// Checks one health check; pointers are relative to it.
    #[must_use]
    pub fn validate_check(&self, check: &HealthCheck) -> Vec<FieldError> {
        self.probes.validate(check)
    }

    /// Takes a service's own word that it lives (`Outcome::Pass`) or not.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Conflict`] (`NoHeartbeat`) if the service declares no heartbeat, or
    /// `instance` is not (any more) one of its running ones.
    pub fn heartbeat(
        &self,
        name: &str,
        instance: Option<&InstanceId>,
        outcome: Outcome,
        message: &str,
    ) -> Result<(), RegistryError> {
        let view = self.service(name)?;
        let service = view.name().clone();
        let key = |replica, instance| CheckKey { service, replica, instance, kind: CheckKind::Health };
        let conflict = |message: String| Err(RegistryError::Conflict { code: "NoHeartbeat", message });
        let key = if view.record.spec.is_managed() {
            let running = view.instances.iter().filter(|i| i.record.state == InstanceState::Running);
            let mut candidates = running.filter(|i| instance.is_none() || i.record.id.as_ref() == instance);
            match (candidates.next(), candidates.next()) {
                (Some(one), None) => key(Some(one.record.replica), one.record.id.clone()),
                (Some(_), Some(_)) => {
                    return conflict(format!("{name} has several instances: say which by instance_id"));
                }
                (None, _) => return conflict(format!("{name} has no such running instance")),
            }
        } else {
            key(None, None)
        };
        if self.monitor.heartbeat(&key, &ProbeReport::new(outcome, message)) {
            return Ok(());
        }
        conflict(format!("{name} declares no heartbeat, or does not run (health_check: {{ttl: SECONDS}} declares one)"))
    }

    /// Makes all checks of a service now, and answers when they have answered.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn check_now(&self, name: &str) -> Result<Arc<ServiceView>, RegistryError> {
        let view = self.service(name)?;
        let service = view.name();
        let of_instances = view.instances.iter().flat_map(|i| {
            [CheckKind::Health, CheckKind::Readiness].map(|kind| (Some(i.record.replica), i.record.id.clone(), kind))
        });
        let keys = of_instances.chain([(None, None, CheckKind::Health)]).map(|(replica, instance, kind)| CheckKey {
            service: service.clone(),
            replica,
            instance,
            kind,
        });
        futures_util::future::join_all(keys.map(|key| async move { self.monitor.check_now(&key).await })).await;
        // The snapshot of a verdict that changed may still be in the making; the cells know already.
        self.service(name).map(|view| Arc::new(view.refreshed()))
    }

    /// Makes the checks of one instance now, and returns when they have answered; at once where it has none.
    pub async fn check_instance(&self, service: &ServiceName, replica: u32, instance: &InstanceId) {
        let keys = [CheckKind::Health, CheckKind::Readiness].map(|kind| CheckKey {
            service: service.clone(),
            replica: Some(replica),
            instance: Some(instance.clone()),
            kind,
        });
        futures_util::future::join_all(keys.iter().map(|key| self.monitor.check_now(key))).await;
    }

    /// Checks that the store can be written and read, and tells its state.
    ///
    /// # Errors
    /// The store's.
    pub async fn check_store(&self) -> Result<StoreStatus, StoreError> {
        self.shared.store.check().await
    }

    /// Looks at everything that has to be right for the store to work, part by part.
    pub async fn verify_store(&self) -> Vec<StoreCheck> {
        self.shared.store.verify().await
    }

    /// How long the store has not been followed, if it cannot be reached: what is shown may be that old.
    #[must_use]
    pub fn stale_for(&self) -> Option<Duration> {
        self.shared.store.unreachable_for()
    }

    /// The monitor behind the checks, for its statistics.
    #[must_use]
    pub fn monitor(&self) -> &HealthMonitor {
        &self.monitor
    }

    /// Which services are this replica's to look after.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.shared.place
    }

    /// Up to which revision of the store readers see everything.
    #[must_use]
    pub fn followed(&self) -> Revision {
        *self.shared.followed.borrow()
    }

    /// Has the store confirm that `grant` is still in force, and answers when readers see everything that was written before.
    /// Nothing that was written under an older epoch is seen later than that.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when it is not; [`StoreError::Unavailable`] when that is not known.
    pub async fn confirm(&self, grant: &Grant) -> Result<(), StoreError> {
        let Some(fence) = grant.fence() else { return Ok(()) };
        let nothing = Batch { fence: Some(fence.clone()), ..Batch::new() };
        let revision = self.shared.store.write(nothing).await?;
        self.wait_for(revision).await
    }

    /// Answers when readers see everything that was written before, by whichever replica.
    ///
    /// # Errors
    /// The store's; [`StoreError::Unavailable`] if it does not tell in time.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        // The listing is of next to nothing; its revision is the store's.
        let revision = self.shared.store.list("meta/").await?.revision;
        self.wait_for(revision).await
    }

    /// What stamps.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    /// Waits until readers see everything up to `revision`, or it takes too long.
    pub async fn seen(&self, revision: Revision) {
        // Whoever cannot read sees what is old, and is told so elsewhere.
        let _ = self.wait_for(revision).await;
    }

    /// Waits until readers see everything up to `revision`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store does not tell of it within 5 s, as when it can no longer be read.
    async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        let mut followed = self.shared.followed.subscribe();
        let seen = tokio::time::timeout(FOLLOWING, followed.wait_for(|seen| *seen >= revision)).await;
        if matches!(seen, Ok(Ok(_))) {
            return Ok(());
        }
        let message = "it took the change but does not tell of it; what is shown may be stale".to_owned();
        Err(StoreError::Unavailable { message, source: None })
    }
}

impl Shared {
    /// The lock of those who decide about this one service.
    fn deciding_on(&self, name: &ServiceName) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let slot = hasher.finish() % self.deciding_on.len() as u64;
        &self.deciding_on[usize::try_from(slot).unwrap_or(0)]
    }

    fn service(&self, name: &str) -> Option<Arc<ServiceView>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn replace(&self, name: &ServiceName, view: Option<Arc<ServiceView>>) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        let changed = match view {
            Some(view) => {
                services.insert(name.clone(), view);
                true
            }
            None => services.remove(name).is_some(),
        };
        drop(services);
        if changed {
            self.index.send_modify(|index| *index += 1);
            self.listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|listener| listener.send(name.clone()).is_ok());
        }
    }

    /// Makes a new event ready to be written.
    fn stamp(&self, event: NewEvent, at: Timestamp) -> (Key, Event) {
        let NewEvent { service, replica, instance, severity, reason } = event;
        let key = keys::event(at, self.unique.fetch_add(1, Ordering::Relaxed));
        (key, Event { id: 0, at, service, replica, instance, severity, reason, revision: Revision::ZERO })
    }
}
