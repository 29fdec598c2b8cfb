//! What the handle and the tasks share, and who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{Epoch, LeaseOperation, SharedClock, StoreError, coordination::DEFAULT_GROUP};
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    CoordError, CoordinationConfig, CoordinatorOptions, ServiceView, Strategies,
    agents::{Book, Moment},
    driver,
    events::{EventKind, EventLog},
    group::Group,
    persist::{LEASE, Loaded, Persist},
    resolve::Chosen,
    transport::AgentTransport,
};

/// How long the lease holds without being renewed, how often it is renewed, and how often it is tried for.
const LEASE_TTL: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Engine {
    pub(crate) clock: SharedClock,
    pub(crate) strategies: Strategies,
    pub(crate) config: CoordinationConfig,
    pub(crate) services: Arc<dyn ServiceView>,
    pub(crate) transport: Arc<dyn AgentTransport>,
    pub(crate) persist: Persist,
    pub(crate) groups: BTreeMap<String, Arc<Group>>,
    pub(crate) events: Arc<EventLog>,
    /// Held while the list of agents or settings are changed.
    pub(crate) registering: tokio::sync::Mutex<()>,
    book: Mutex<Book>,
    holder: String,
    lead: Mutex<Lead>,
    /// The lease may have been lost.
    doubt: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Lead {
    epoch: Option<Epoch>,
    /// Why it does not lead.
    trouble: String,
    /// Until when the lease holds for certain.
    until: Instant,
}

impl Engine {
    pub(crate) async fn start(options: CoordinatorOptions) -> Result<Arc<Self>, CoordError> {
        let CoordinatorOptions { store, clock, strategies, config, services, host, transport, holder } = options;
        let mut groups = BTreeMap::new();
        let mut commands = Vec::new();
        for (name, group) in &config.groups {
            let made =
                strategies.make("/conflict_resolution", &group.conflict_resolution).map_err(CoordError::Invalid)?;
            let chosen = Chosen::new(group.conflict_resolution.clone(), made)?;
            let (group, receiver) =
                Group::new(name, group, chosen, host.as_ref(), (config.history, config.history_bytes));
            let group = Arc::new(group);
            commands.push((Arc::clone(&group), receiver));
            groups.insert(name.clone(), group);
        }
        let lead = Lead { epoch: None, trouble: "it has just begun".to_owned(), until: Instant::now() };
        let engine = Arc::new(Self {
            events: Arc::new(EventLog::new(Arc::clone(&clock))),
            book: Mutex::new(Book::new(config.max_agents)),
            clock,
            strategies,
            config,
            services,
            transport,
            persist: Persist::new(store),
            groups,
            registering: tokio::sync::Mutex::new(()),
            holder,
            lead: Mutex::new(lead),
            doubt: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        engine.take_lead().await;
        let keeper = Arc::clone(&engine);
        engine.tasks.spawn(async move { keeper.stop.clone().run_until_cancelled(keeper.keep_lead()).await });
        for (group, receiver) in commands {
            let (engine, stop) = (Arc::clone(&engine), engine.stop.clone());
            let driver = driver::Driver::new(Arc::clone(&engine), group);
            engine.tasks.spawn(async move { stop.run_until_cancelled(driver.run(receiver)).await });
        }
        engine.tasks.close();
        Ok(engine)
    }

    /// Runs something that ends by itself, or when the engine does.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(work).await });
    }

    pub(crate) fn now(&self) -> Moment {
        Moment { at: Instant::now(), stamp: self.clock.now() }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn group(&self, name: &str) -> Result<&Arc<Group>, CoordError> {
        self.groups.get(name).ok_or_else(|| CoordError::UnknownGroup {
            name: name.chars().take(128).collect(),
            known: self.groups.keys().cloned().collect(),
        })
    }

    fn lead(&self) -> MutexGuard<'_, Lead> {
        self.lead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch under which this coredinator leads.
    pub(crate) fn leading(&self) -> Result<Epoch, CoordError> {
        if self.stop.is_cancelled() {
            return Err(CoordError::Ended);
        }
        let lead = self.lead();
        match lead.epoch {
            Some(epoch) if Instant::now() < lead.until => Ok(epoch),
            Some(_) => Err(CoordError::NotLeading("the lease could not be renewed in time".to_owned())),
            None => Err(CoordError::NotLeading(lead.trouble.clone())),
        }
    }

    /// Passes on how a write ended, and takes note if it says that another leads.
    pub(crate) fn stored<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Fenced { .. }) = &written {
            self.lost(&error.to_string());
            self.doubt.notify_one();
        }
        written
    }

    fn lost(&self, why: &str) {
        let mut lead = self.lead();
        why.clone_into(&mut lead.trouble);
        if lead.epoch.take().is_some() {
            drop(lead);
            tracing::warn!(why, "this coredinator no longer leads the agents");
            self.events.tell(None, EventKind::NotLeading { detail: why.to_owned() });
        }
    }

    /// Tries to lead; whether it does.
    async fn take_lead(&self) -> bool {
        match self.acquire().await {
            Ok((epoch, loaded, since)) => {
                self.adopt(loaded, epoch);
                *self.lead() = Lead { epoch: Some(epoch), trouble: String::new(), until: since + LEASE_TTL };
                tracing::info!(%epoch, "this coredinator leads the agents");
                self.events.tell(None, EventKind::Leading { epoch: epoch.0 });
                true
            }
            Err(error) => {
                self.lost(&error.to_string());
                false
            }
        }
    }

    /// Takes the lease under an epoch that nothing was ever decided under, and reads what was.
    async fn acquire(&self) -> Result<(Epoch, Loaded, Instant), StoreError> {
        let store = self.persist.store();
        let take = LeaseOperation::Acquire { ttl: LEASE_TTL };
        let mut since = Instant::now();
        let mut lease = store.lease(LEASE, &self.holder, take).await?;
        let loaded = self.persist.load().await?;
        let used = loaded.groups.values().map(|head| head.epoch).max().unwrap_or(0);
        if lease.epoch.0 <= used {
            // An earlier life of this coredinator held it when it was killed. Given back and taken again, it has a new epoch.
            store.lease(LEASE, &self.holder, LeaseOperation::Release { epoch: lease.epoch }).await?;
            since = Instant::now();
            lease = store.lease(LEASE, &self.holder, take).await?;
        }
        Ok((lease.epoch, loaded, since))
    }

    /// Makes what the store holds one's own.
    fn adopt(&self, loaded: Loaded, epoch: Epoch) {
        let now = self.now();
        let stored: BTreeSet<_> = loaded.agents.iter().map(|agent| agent.agent_id.clone()).collect();
        let mut book = self.book();
        for view in book.views(None, now.at) {
            if !stored.contains(&view.agent.agent_id) {
                book.remove(view.agent.agent_id.as_str());
            }
        }
        for mut agent in loaded.agents {
            if !self.groups.contains_key(&agent.group) {
                tracing::warn!(agent = %agent.agent_id, group = agent.group, "an agent's group is gone: it is in the default group now");
                DEFAULT_GROUP.clone_into(&mut agent.group);
            }
            let (agent, _) = self.config.accept(agent);
            if book.agent(agent.agent_id.as_str()).is_ok_and(|known| **known == agent) {
                continue;
            }
            book.register(Arc::new(agent), now);
        }
        for (group, holdings) in loaded.holdings {
            holdings.into_iter().for_each(|holding| book.restore(&group, holding));
        }
        drop(book);
        for (name, group) in &self.groups {
            let head = loaded.groups.get(name).cloned().unwrap_or_default();
            let settings = loaded.settings.get(name).cloned().unwrap_or_default();
            group.adopt(epoch, head, loaded.parts.get(name).copied().unwrap_or(0));
            if let Some(choice) = group.restored_choice(&settings) {
                let made = self.strategies.make("", &choice).map_err(CoordError::Invalid);
                match made.and_then(|made| Chosen::new(choice, made)) {
                    Ok(chosen) => group.choose(chosen),
                    Err(error) => tracing::warn!(group = name, %error, "the strategy chosen earlier cannot be had"),
                }
            }
            group.apply(settings);
        }
    }

    async fn keep_lead(&self) {
        loop {
            let pause = if self.lead().epoch.is_some() { RENEW } else { RETRY };
            let _ = tokio::time::timeout(pause, self.doubt.notified()).await;
            let leads = self.lead().epoch;
            match leads {
                Some(epoch) => self.renew(epoch).await,
                None => {
                    let _turn = self.registering.lock().await;
                    self.take_lead().await;
                }
            }
        }
    }

    async fn renew(&self, epoch: Epoch) {
        let since = Instant::now();
        let operation = LeaseOperation::Renew { epoch, ttl: LEASE_TTL };
        match self.persist.store().lease(LEASE, &self.holder, operation).await {
            Ok(_) => self.lead().until = since + LEASE_TTL,
            // The lease may hold still; what is written is refused by the store if it does not.
            Err(error) if error.is_retryable() && since < self.lead().until => {
                tracing::warn!(%error, "the lease could not be renewed");
            }
            Err(error) => {
                self.lost(&error.to_string());
                self.doubt.notify_one();
            }
        }
    }

    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
        let epoch = self.lead().epoch.take();
        if let Some(epoch) = epoch {
            let given_back = self.persist.store().lease(LEASE, &self.holder, LeaseOperation::Release { epoch }).await;
            if let Err(error) = given_back {
                tracing::warn!(%error, "the lease could not be given back");
            }
        }
    }
}
