//! What the handle and the tasks share, and who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{
    Epoch, SharedClock, StoreError,
    coordination::{Agent, DEFAULT_GROUP},
};
use futures_util::StreamExt;
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    CoordError, CoordinationConfig, CoordinatorOptions, HostView, LeadView, ServiceView, Strategies,
    agents::{Book, Moment},
    driver,
    events::{EventKind, EventLog},
    group::{Group, Step},
    persist::{Loaded, Persist},
    resolve::Chosen,
    transport::AgentTransport,
};

/// How long what a leader needs to read waits for a store that could not be read.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Engine {
    pub(crate) clock: SharedClock,
    pub(crate) strategies: Strategies,
    config: Mutex<Arc<CoordinationConfig>>,
    pub(crate) services: Arc<dyn ServiceView>,
    pub(crate) transport: Arc<dyn AgentTransport>,
    pub(crate) persist: Persist,
    groups: Mutex<Arc<BTreeMap<String, Arc<Group>>>>,
    host: Arc<dyn HostView>,
    pub(crate) events: Arc<EventLog>,
    /// Held while the list of agents or settings are changed.
    pub(crate) registering: tokio::sync::Mutex<()>,
    book: Mutex<Book>,
    view: Arc<dyn LeadView>,
    lead: Mutex<Lead>,
    /// Another may lead.
    doubt: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Lead {
    /// The epoch under which all has been taken over.
    epoch: Option<Epoch>,
    /// Why none has.
    trouble: String,
    /// The highest epoch under which the store has refused to write.
    refused: Epoch,
}

impl Engine {
    pub(crate) async fn start(options: CoordinatorOptions) -> Result<Arc<Self>, CoordError> {
        let CoordinatorOptions { store, clock, strategies, config, services, host, transport, lead: view } = options;
        let mut groups = BTreeMap::new();
        let mut commands = Vec::new();
        for (name, group) in &config.groups {
            let made =
                strategies.make("/conflict_resolution", &group.conflict_resolution).map_err(CoordError::Invalid)?;
            let chosen = Chosen::new(group.conflict_resolution.clone(), made)?;
            let (group, receiver) = Group::new(name, group, chosen, host.as_ref(), config.kept());
            let group = Arc::new(group);
            commands.push((Arc::clone(&group), receiver));
            groups.insert(name.clone(), group);
        }
        let lead = Lead { epoch: None, trouble: "it has just begun".to_owned(), refused: Epoch::ZERO };
        let engine = Arc::new(Self {
            events: Arc::new(EventLog::new(Arc::clone(&clock))),
            book: Mutex::new(Book::new(config.max_agents)),
            clock,
            strategies,
            config: Mutex::new(Arc::new(config)),
            services,
            transport,
            persist: Persist::new(store, view.lease()),
            groups: Mutex::new(Arc::new(groups)),
            host,
            registering: tokio::sync::Mutex::new(()),
            view,
            lead: Mutex::new(lead),
            doubt: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        // From here on nothing that changes is missed.
        let changes = engine.view.changes();
        engine.follow_lead().await;
        let keeper = Arc::clone(&engine);
        engine.tasks.spawn(async move { keeper.stop.clone().run_until_cancelled(keeper.keep_lead(changes)).await });
        for (group, receiver) in commands {
            engine.drive(group, receiver);
        }
        engine.tasks.close();
        Ok(engine)
    }

    /// Begins to run the cycles of a group.
    pub(crate) fn drive(self: &Arc<Self>, group: Arc<Group>, steps: tokio::sync::mpsc::Receiver<Step>) {
        let driver = driver::Driver::new(Arc::clone(self), group);
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(driver.run(steps)).await });
    }

    /// What is configured by now.
    pub(crate) fn config(&self) -> Arc<CoordinationConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_config(&self, config: CoordinationConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// The groups that there are by now.
    pub(crate) fn groups(&self) -> Arc<BTreeMap<String, Arc<Group>>> {
        Arc::clone(&self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_groups(&self, groups: BTreeMap<String, Arc<Group>>) {
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(groups);
    }

    pub(super) fn host(&self) -> &dyn HostView {
        self.host.as_ref()
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

    pub(crate) fn group(&self, name: &str) -> Result<Arc<Group>, CoordError> {
        let groups = self.groups();
        groups.get(name).cloned().ok_or_else(|| CoordError::UnknownGroup {
            name: name.chars().take(128).collect(),
            known: groups.keys().cloned().collect(),
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
        let epoch = self.view.leading().map_err(CoordError::NotLeading)?;
        let lead = self.lead();
        if lead.epoch == Some(epoch) { Ok(epoch) } else { Err(CoordError::NotLeading(lead.trouble.clone())) }
    }

    /// Passes on how a write ended, and takes note if it says that another leads.
    pub(crate) fn stored<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Fenced { given, .. }) = &written {
            let refused = self.lead().refused.max(*given);
            self.lead().refused = refused;
            self.lost(&error.to_string());
            self.view.doubt();
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

    /// Takes over, or lets go, as is said of who leads. `false`: it could not, and has to be tried again.
    async fn follow_lead(&self) -> bool {
        let epoch = match self.view.leading() {
            Ok(epoch) => epoch,
            Err(why) => {
                self.lost(&why);
                return true;
            }
        };
        let (has, refused) = {
            let lead = self.lead();
            (lead.epoch, lead.refused)
        };
        if has == Some(epoch) || epoch <= refused {
            return true;
        }
        let _turn = self.registering.lock().await;
        match self.persist.load().await {
            Ok(loaded) => {
                let used = loaded.groups.values().map(|head| head.epoch).max().unwrap_or(0);
                if epoch.0 <= used {
                    let why = format!("plans of epoch {used} are stored, which is not before its own, {epoch}");
                    tracing::error!(%epoch, used, "this coredinator leads under an epoch that was used before");
                    self.lost(&why);
                    return true;
                }
                self.adopt(&loaded, epoch);
                let mut lead = self.lead();
                (lead.epoch, lead.trouble) = (Some(epoch), String::new());
                drop(lead);
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

    /// Makes what the store holds one's own.
    fn adopt(&self, loaded: &Loaded, epoch: Epoch) {
        let (now, groups) = (self.now(), self.groups());
        let stored: BTreeSet<_> = loaded.agents.iter().map(|agent| agent.agent_id.clone()).collect();
        let mut book = self.book();
        for view in book.views(None, now.at) {
            if !stored.contains(&view.agent.agent_id) {
                book.remove(view.agent.agent_id.as_str());
            }
        }
        let Loaded { agents, holdings, .. } = loaded;
        self.enter(&mut book, agents, &groups, now);
        for (group, holdings) in holdings {
            holdings.iter().for_each(|holding| book.restore(group, holding.clone()));
        }
        drop(book);
        for group in groups.values() {
            self.adopt_group(group, loaded, epoch);
        }
    }

    /// Enters agents as they are stored, by the operator's word of now. One that is known just so goes on as it was.
    pub(super) fn enter(&self, book: &mut Book, stored: &[Agent], groups: &BTreeMap<String, Arc<Group>>, now: Moment) {
        let config = self.config();
        for agent in stored {
            let mut agent = agent.clone();
            if !groups.contains_key(&agent.group) {
                tracing::warn!(agent = %agent.agent_id, group = agent.group, "an agent's group is gone: it is in the default group now");
                DEFAULT_GROUP.clone_into(&mut agent.group);
            }
            let (agent, _) = config.accept(agent);
            if book.agent(agent.agent_id.as_str()).is_ok_and(|known| **known == agent) {
                continue;
            }
            book.register(Arc::new(agent), now);
        }
    }

    /// Has a group go on from where the store says that it was.
    pub(super) fn adopt_group(&self, group: &Group, loaded: &Loaded, epoch: Epoch) {
        let name = &*group.name;
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

    async fn keep_lead(&self, mut changes: futures_util::stream::BoxStream<'static, ()>) {
        loop {
            let again = if self.follow_lead().await { Duration::MAX } else { RETRY };
            tokio::select! {
                Some(()) = changes.next() => {}
                () = self.doubt.notified() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.lead().epoch = None;
    }
}
