//! The engine's handle.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use coredinator_core::{
    SharedClock, Store,
    coordination::{Agent, Intention, Known, Limits, Problem, ProblemDocument},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use crate::{
    AgentState, AgentView, Amount, CoordError, CoordinationConfig, CycleRecord, CycleSummary, Events, GroupStats,
    HostView, LeadView, Resolved, ServiceView, Strategies,
    engine::Engine,
    events::EventKind,
    group::Group,
    inadmissible,
    resolve::{self, Chosen},
    transport::{AgentTransport, DecisionMessage},
};

/// What an engine is made of.
#[derive(Clone)]
pub struct CoordinatorOptions {
    /// Keeps what must outlive the process.
    pub store: Arc<dyn Store>,
    /// Stamps.
    pub clock: SharedClock,
    /// The strategies that can be chosen.
    pub strategies: Strategies,
    /// The groups, and the operator's word.
    pub config: CoordinationConfig,
    /// Tells whether what lives in a service can act.
    pub services: Arc<dyn ServiceView>,
    /// Tells how much the machine has.
    pub host: Arc<dyn HostView>,
    /// The way to agents that have an endpoint.
    pub transport: Arc<dyn AgentTransport>,
    /// Tells whether this coredinator leads.
    pub lead: Arc<dyn LeadView>,
}

impl fmt::Debug for CoordinatorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorOptions").field("config", &self.config).finish_non_exhaustive()
    }
}

/// An agent as it was accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registered {
    /// It, with the operator's word above its own wishes.
    #[serde(flatten)]
    pub agent: Arc<Agent>,
    /// Whether there was none of its name.
    #[serde(skip)]
    pub created: bool,
    /// What is not as it asked, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Where a group is when an agent has given a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The group.
    pub group: String,
    /// The next cycle that will be decided: the first for which what was said counts.
    pub cycle: u64,
    /// The epoch of this coredinator's decisions; 0: it does not lead.
    pub epoch: u64,
}

/// The engine as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoordinationStatus {
    /// Whether cycles take place by themselves.
    pub enabled: bool,
    /// Whether this coredinator leads the agents.
    pub leading: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The epoch of its decisions; 0: it does not lead.
    pub epoch: u64,
    /// How many agents there are that are not silent.
    pub active_agents: usize,
    /// The groups, by name.
    pub groups: Vec<GroupStatus>,
}

/// A group as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// The last cycle that began.
    pub cycle: u64,
    /// The strategy, as it is configured or was chosen.
    pub strategy: Value,
    /// From cycle to cycle, in seconds.
    pub sync_interval_seconds: f64,
    /// How many agents it has.
    pub agents: usize,
    /// How many of them are not silent.
    pub active: usize,
    /// How many of them are.
    pub silent: usize,
    /// What is shared, as it is now.
    pub resources: Vec<coredinator_core::coordination::Resource>,
    /// What has one value for all, as it is now.
    pub variables: Vec<coredinator_core::coordination::Variable>,
    /// Successes of all settled cycles; absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// The last cycle that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<CycleSummary>,
    /// What was counted since this process began.
    pub stats: GroupStats,
}

/// The engine. Clones are the same one; it lives until [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Coordinator {
    engine: Arc<Engine>,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").finish_non_exhaustive()
    }
}

impl Coordinator {
    /// Starts the engine on the current tokio runtime: where this coredinator leads, it reads what an earlier life or leader
    /// left, and begins.
    ///
    /// A store that is unavailable, or another that leads, is no error: the engine decides as soon as it can.
    ///
    /// # Errors
    /// A strategy that cannot be made of its options.
    pub async fn start(options: CoordinatorOptions) -> Result<Self, CoordError> {
        Engine::start(options).await.map(|engine| Self { engine })
    }

    /// The configuration by which it works now.
    #[must_use]
    pub fn config(&self) -> Arc<CoordinationConfig> {
        self.engine.config()
    }

    /// Works by another configuration, in each group from its next cycle on. What was chosen at run time stays as long as the
    /// configuration says what it said then. Agents of a group that is gone are in the group `default`; those about which the
    /// operator's word has changed begin anew with it, and say again what they want.
    ///
    /// # Errors
    /// [`CoordError::Invalid`], a strategy that cannot be made; [`CoordError::Store`], what agents asked for could not be read.
    /// Nothing has changed then.
    pub async fn reconfigure(&self, config: CoordinationConfig) -> Result<(), CoordError> {
        self.engine.reconfigure(config).await
    }

    /// Registers an agent, durably. One of the same name is replaced: its intention is forgotten, and what it was granted
    /// stays reserved, unless it comes to another group.
    ///
    /// # Errors
    /// [`CoordError::Invalid`], [`CoordError::UnknownGroup`], [`CoordError::Full`], [`CoordError::NotLeading`],
    /// [`CoordError::Store`]; then nothing has changed.
    pub async fn register(&self, agent: Agent) -> Result<Registered, CoordError> {
        let engine = &self.engine;
        let mut errors = agent.check("");
        errors.extend(inadmissible("", &agent));
        if !errors.is_empty() {
            return Err(CoordError::Invalid(errors));
        }
        let (resources, variables) = engine.group(&agent.group)?.subjects();
        let known = Known { resources: &resources, variables: &variables };
        // The operator's, where it brings none of its own.
        let fallback = engine.config().accept(agent.clone()).0.fallback;
        let errors = fallback.map(|fallback| fallback.check("/fallback", Some(known))).unwrap_or_default();
        if !errors.is_empty() {
            return Err(CoordError::Invalid(errors));
        }
        let epoch = engine.leading()?;
        // One change of the list at a time, so that the store and the book agree.
        let _turn = engine.registering.lock().await;
        engine.book().admits(&agent.agent_id)?;
        engine.stored(engine.persist.save_agent(epoch, &agent).await)?;
        let (accepted, notes) = engine.config().accept(agent);
        let agent = Arc::new(accepted);
        let before = engine.book().agent(agent.agent_id.as_str()).ok().map(|known| known.group.clone());
        let created = engine.book().register(Arc::clone(&agent), engine.now());
        for group in before.iter().chain([&agent.group]) {
            if let Ok(group) = engine.group(group) {
                group.gone(&agent.agent_id, *group.name != *agent.group);
            }
        }
        let told = EventKind::AgentRegistered { agent_id: agent.agent_id.clone(), replaced: !created };
        engine.events.tell(Some(&agent.group), told);
        Ok(Registered { agent, created, notes })
    }

    /// Takes an agent off the list, durably. What it holds is free at once.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`], [`CoordError::NotLeading`], [`CoordError::Store`].
    pub async fn deregister(&self, id: &str) -> Result<(), CoordError> {
        let engine = &self.engine;
        let epoch = engine.leading()?;
        let _turn = engine.registering.lock().await;
        let agent = Arc::clone(engine.book().agent(id)?);
        engine.stored(engine.persist.delete_agent(epoch, &agent.agent_id).await)?;
        engine.book().remove(id);
        let group = engine.group(&agent.group)?;
        group.gone(&agent.agent_id, true);
        if engine.book().count(Some(&agent.group)).0 == 0 {
            crate::stats::nobody(&agent.group);
        }
        // Whoever waits for a decision of it learns that there will be none.
        group.published.send_modify(|count| *count += 1);
        engine.events.tell(Some(&agent.group), EventKind::AgentLeft { agent_id: agent.agent_id.clone() });
        Ok(())
    }

    /// A sign of life.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`].
    pub fn heartbeat(&self, id: &str) -> Result<Accepted, CoordError> {
        let agent = self.engine.book().seen(id, self.engine.now())?;
        self.accepted(&agent.group)
    }

    fn accepted(&self, group: &str) -> Result<Accepted, CoordError> {
        let group = self.engine.group(group)?;
        let epoch = self.engine.leading().map_or(0, |epoch| epoch.0);
        Ok(Accepted { group: group.name.to_string(), cycle: group.open_cycle(), epoch })
    }

    /// The agents of a group (of all), by name.
    ///
    /// # Errors
    /// [`CoordError::UnknownGroup`].
    pub fn agents(&self, group: Option<&str>) -> Result<Vec<AgentView>, CoordError> {
        if let Some(group) = group {
            self.engine.group(group)?;
        }
        Ok(self.engine.book().views(group, Instant::now()))
    }

    /// One agent.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`].
    pub fn agent(&self, id: &str) -> Result<AgentView, CoordError> {
        self.engine.book().view(id, Instant::now())
    }

    /// What is wrong with what an agent may want to say it wants; nothing comes of asking.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`].
    pub fn check_intention(&self, intention: &Intention) -> Result<Vec<coredinator_core::FieldError>, CoordError> {
        let agent = Arc::clone(self.engine.book().agent(intention.agent_id.as_str())?);
        let (resources, variables) = self.engine.group(&agent.group)?.subjects();
        let known = Known { resources: &resources, variables: &variables };
        Ok(agent.check_intention(intention, known, &Limits::default()))
    }

    /// Takes what an agent wants from now on, and with it that it knows what it was last told. It stands for the next cycle
    /// and those after, until the agent says otherwise, its time to live ends, or `valid_until_cycle` has passed.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`]; [`CoordError::Stale`], [`CoordError::Past`], [`CoordError::Invalid`]: what it said before
    /// stands then.
    pub fn intend(&self, intention: Intention) -> Result<Accepted, CoordError> {
        let engine = &self.engine;
        let id = intention.agent_id.clone();
        let errors = self.check_intention(&intention)?;
        if !errors.is_empty() {
            return Err(CoordError::Invalid(errors));
        }
        let agent = Arc::clone(engine.book().agent(id.as_str())?);
        let group = engine.group(&agent.group)?;
        let told = {
            // With the book locked throughout, so that no cycle closes in between.
            let mut book = engine.book();
            let cycle = group.open_cycle();
            if let Some(last) = intention.valid_until_cycle.filter(|&last| last < cycle) {
                // As with one that is stale, there is somebody who says it.
                book.seen(id.as_str(), engine.now())?;
                return Err(CoordError::Past { last, cycle });
            }
            book.intend(Arc::new(intention), engine.now())?;
            book.told(id.as_str())?
        };
        if let Some(told) = told {
            self.knows(id.as_str(), told.cycle, told.epoch)?;
        }
        group.heard(&id);
        self.accepted(&agent.group)
    }

    /// What an agent was told in the last cycle, if that is not before `cycle`; else waits for it, at most so long. Reading it
    /// is a sign of life, and acknowledges it. `None`: nothing in time.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`], also when it is taken off the list meanwhile.
    pub async fn decision(
        &self,
        id: &str,
        cycle: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Arc<DecisionMessage>>, CoordError> {
        let mut decisions = self.decisions(id)?;
        let least = cycle.unwrap_or(0);
        let found = async {
            loop {
                match decisions.ready()? {
                    Some(told) if told.cycle >= least => return Ok(Some(told)),
                    _ if decisions.published.changed().await.is_err() => return Ok(None),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(wait, found).await.unwrap_or(Ok(None))
    }

    /// What an agent is told, from the last on.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`].
    pub fn decisions(&self, id: &str) -> Result<Decisions, CoordError> {
        let agent = self.engine.book().seen(id, self.engine.now())?;
        let published = self.engine.group(&agent.group)?.published.subscribe();
        Ok(Decisions { coordinator: self.clone(), agent, published, last: None })
    }

    /// An agent knows what it was told. That it is not the last it was told is no error.
    ///
    /// # Errors
    /// [`CoordError::UnknownAgent`]; [`CoordError::NoSuchDecision`]: it was never told that.
    pub fn acknowledge(&self, id: &str, cycle: u64, epoch: u64) -> Result<(), CoordError> {
        let engine = &self.engine;
        let (agent, told) = {
            let book = engine.book();
            (Arc::clone(book.agent(id)?), book.told(id)?)
        };
        let last = told.map(|told| (told.cycle, told.epoch));
        if last != Some((cycle, epoch)) && !engine.group(&agent.group)?.may_have_told(id, last, cycle, epoch) {
            return Err(CoordError::NoSuchDecision { agent: id.to_owned(), cycle, epoch, last });
        }
        self.knows(id, cycle, epoch)
    }

    /// An agent knows a decision that it was given.
    fn knows(&self, id: &str, cycle: u64, epoch: u64) -> Result<(), CoordError> {
        let engine = &self.engine;
        let mut book = engine.book();
        if book.acknowledge(id, cycle, epoch, engine.now())? {
            let agent = Arc::clone(book.agent(id)?);
            drop(book);
            engine.group(&agent.group)?.acknowledged(&agent.agent_id, cycle, epoch);
        }
        Ok(())
    }

    /// The engine and its groups as they stand.
    #[must_use]
    pub fn status(&self) -> CoordinationStatus {
        let engine = &self.engine;
        let leading = engine.leading();
        CoordinationStatus {
            enabled: engine.config().enabled,
            leading: leading.is_ok(),
            epoch: leading.as_ref().map_or(0, |epoch| epoch.0),
            trouble: leading.err().map(|error| error.to_string()),
            active_agents: self.active_agents(),
            groups: engine.groups().values().map(|group| self.group_status(group)).collect(),
        }
    }

    fn group_status(&self, group: &Group) -> GroupStatus {
        let (agents, active) = self.engine.book().count(Some(&group.name));
        let stats = group.stats().snapshot();
        let (resources, variables) = group.subjects();
        #[expect(clippy::cast_precision_loss, reason = "there are fewer cycles than a double counts")]
        let success_rate = (stats.settled > 0).then(|| stats.successes as f64 / stats.settled as f64);
        GroupStatus {
            group: group.name.to_string(),
            cycle: group.cycle(),
            strategy: group.chosen().choice.clone(),
            sync_interval_seconds: group.config().sync_interval.as_secs_f64(),
            agents,
            active,
            silent: agents - active,
            resources,
            variables,
            success_rate,
            last: group.records().newest().map(|record| record.summary()),
            stats,
        }
    }

    /// The last cycles of a group, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`CoordError::UnknownGroup`].
    pub fn cycles(&self, group: &str, limit: usize) -> Result<Vec<CycleSummary>, CoordError> {
        let records = self.engine.group(group)?.records().last(limit);
        Ok(records.iter().map(|record| record.summary()).collect())
    }

    /// A cycle of a group, as long as it is kept.
    ///
    /// # Errors
    /// [`CoordError::UnknownGroup`].
    pub fn cycle(&self, group: &str, cycle: u64) -> Result<Option<Arc<CycleRecord>>, CoordError> {
        Ok(self.engine.group(group)?.records().get(cycle))
    }

    /// Runs one cycle of a group now, or as soon as the one under way has ended.
    ///
    /// # Errors
    /// [`CoordError::UnknownGroup`], [`CoordError::NotLeading`], [`CoordError::Ended`]. A cycle that was withheld or failed
    /// is no error: its record says so.
    pub async fn step(&self, group: &str) -> Result<Arc<CycleRecord>, CoordError> {
        self.engine.group(group)?.step().await
    }

    /// Solves a problem without telling anybody or keeping anything, by a strategy, or by that of the problem's group.
    ///
    /// # Errors
    /// [`CoordError::Invalid`]: what is wrong with problem (`/…`) or strategy (`/strategy`); [`CoordError::UnknownGroup`]:
    /// no strategy is given, and there is no such group to take it from.
    pub async fn dry_run(&self, problem: ProblemDocument, strategy: Option<&Value>) -> Result<Resolved, CoordError> {
        let chosen = match strategy {
            Some(choice) => {
                let made = self.engine.strategies.make("/strategy", choice).map_err(CoordError::Invalid)?;
                Chosen::new(choice.clone(), made)?
            }
            None => {
                let chosen = self.engine.group(&problem.group)?.chosen();
                Chosen::new(chosen.choice.clone(), Arc::clone(&chosen.strategy))?
            }
        };
        let deadline = problem.budget.deadline_ms.map_or(Self::DRY_RUN, Duration::from_millis).min(Self::DRY_RUN);
        let problem = Problem::new(problem).map_err(CoordError::Invalid)?;
        let epoch = self.engine.leading().map_or(0, |epoch| epoch.0);
        let none = Arc::new(coredinator_core::coordination::NoNegotiator);
        Ok(resolve::resolve(Arc::new(problem), &chosen, none, epoch, deadline).await)
    }

    /// The longest that a dry run takes.
    pub const DRY_RUN: Duration = Duration::from_secs(30);

    /// Chooses another strategy for a group, durably, from the next cycle on.
    ///
    /// # Errors
    /// [`CoordError::UnknownGroup`], [`CoordError::Invalid`], [`CoordError::NotLeading`], [`CoordError::Store`].
    pub async fn set_strategy(&self, group: &str, choice: Value) -> Result<(), CoordError> {
        let engine = &self.engine;
        let group = engine.group(group)?;
        let made = engine.strategies.make("", &choice).map_err(CoordError::Invalid)?;
        let chosen = Chosen::new(choice.clone(), made)?;
        let epoch = engine.leading()?;
        let _turn = engine.registering.lock().await;
        let mut settings = group.settings();
        settings.strategy = Some(crate::persist::Changed {
            to: choice.clone(),
            configured: group.config().conflict_resolution.clone(),
        });
        engine.stored(engine.persist.save_settings(epoch, &settings).await)?;
        group.set_settings(settings);
        group.choose(chosen);
        engine.events.tell(Some(&group.name), EventKind::StrategyChanged { strategy: choice });
        Ok(())
    }

    /// Changes how much there is of resources of a group, durably, from the next cycle on. A cycle under way ends with what
    /// it began with.
    ///
    /// # Errors
    /// [`CoordError::UnknownGroup`]; [`CoordError::Invalid`] (no such resource, no amount); [`CoordError::NotLeading`];
    /// [`CoordError::Store`]. Nothing has changed then.
    pub async fn set_resources(&self, group: &str, amounts: BTreeMap<String, Amount>) -> Result<(), CoordError> {
        let engine = &self.engine;
        let group = engine.group(group)?;
        let epoch = engine.leading()?;
        let _turn = engine.registering.lock().await;
        let settings = group.with_amounts(&amounts)?;
        engine.stored(engine.persist.save_settings(epoch, &settings).await)?;
        group.apply(settings);
        let resources = amounts.into_keys().collect();
        engine.events.tell(Some(&group.name), EventKind::ResourcesChanged { resources });
        Ok(())
    }

    /// What happens from now on, or after the event of this number as far as that is kept.
    #[must_use]
    pub fn events(&self, after: Option<u64>) -> Events {
        self.engine.events.follow(after)
    }

    /// How many agents there are that are not silent.
    #[must_use]
    pub fn active_agents(&self) -> usize {
        self.engine.book().count(None).1
    }

    /// Ends the engine: cycles under way are given up. Whoever leads next may begin after that.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}

/// What an agent is told, one after the other.
#[derive(Debug)]
pub struct Decisions {
    coordinator: Coordinator,
    agent: Arc<Agent>,
    published: watch::Receiver<u64>,
    last: Option<(u64, u64)>,
}

impl Decisions {
    /// The next decision. One that is overtaken before it is read is skipped. Reading it is a sign of life, and acknowledges
    /// it. `None`: there are no more, as the agent was taken off the list or moved, or the engine shut down.
    pub async fn next(&mut self) -> Option<Arc<DecisionMessage>> {
        loop {
            match self.ready() {
                Ok(Some(told)) => return Some(told),
                Ok(None) => self.published.changed().await.ok()?,
                Err(_) => return None,
            }
        }
    }

    fn ready(&mut self) -> Result<Option<Arc<DecisionMessage>>, CoordError> {
        let engine = &self.coordinator.engine;
        let id = self.agent.agent_id.as_str();
        self.published.borrow_and_update();
        let agent = Arc::clone(engine.book().agent(id)?);
        if agent.group != self.agent.group {
            return Err(CoordError::unknown_agent(id));
        }
        let told = engine.book().told(id)?;
        let Some(told) = told.filter(|told| self.last != Some((told.epoch, told.cycle))) else { return Ok(None) };
        self.last = Some((told.epoch, told.cycle));
        self.coordinator.knows(id, told.cycle, told.epoch)?;
        Ok(Some(told))
    }
}

impl AgentView {
    /// Whether it counts as one that takes part.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state != AgentState::Silent
    }
}
