//! What the handle and the driver of one group share.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use coredinator_core::{
    Epoch, FieldError,
    coordination::{AgentId, Resource, Variable},
    field::join,
};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Amount, CoordError, CycleRecord, GroupConfig, HostView,
    persist::{Changed, GroupHead, Settings, Written},
    resolve::Chosen,
    stats::Stats,
};

/// A wish for a cycle now.
pub(crate) type Step = oneshot::Sender<Result<Arc<CycleRecord>, CoordError>>;

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    config: Mutex<Arc<GroupConfig>>,
    /// What is to hold from the next cycle on.
    next: Mutex<Option<Next>>,
    /// Wakes who runs its cycles, because there is something next.
    pub(crate) wake: Notify,
    /// There is no such group any more: no cycle begins.
    pub(crate) retired: CancellationToken,
    /// Rises whenever agents have been told something.
    pub(crate) published: watch::Sender<u64>,
    chosen: Mutex<Arc<Chosen>>,
    settings: Mutex<Settings>,
    subjects: Mutex<Subjects>,
    progress: Mutex<Progress>,
    /// The next cycle that will be decided.
    open: AtomicU64,
    listener: Mutex<Option<mpsc::UnboundedSender<AgentId>>>,
    pending: Mutex<Pending>,
    records: Mutex<Records>,
    stats: Mutex<Stats>,
    steps: mpsc::Sender<Step>,
}

/// What the configuration says of a group, as it is taken up between two cycles.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) config: GroupConfig,
    /// Another strategy; `None`: that of now stays.
    pub(crate) chosen: Option<Chosen>,
    pub(crate) configured: Vec<Resource>,
    /// How many cycles, and bytes of them, are kept.
    pub(crate) most: (usize, usize),
}

#[derive(Debug)]
struct Subjects {
    configured: Vec<Resource>,
    resources: Vec<Resource>,
    variables: Vec<Variable>,
}

/// How far a group has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The epoch since which this is known.
    pub(crate) epoch: Epoch,
    /// The last cycle that began.
    pub(crate) cycle: u64,
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) written: Written,
}

/// Who has not acknowledged the last cycle.
#[derive(Debug, Default)]
struct Pending {
    cycle: u64,
    epoch: u64,
    waiting: BTreeSet<AgentId>,
    /// Told when there is one less.
    heard: Option<mpsc::UnboundedSender<AgentId>>,
}

/// The cycles that are kept.
#[derive(Debug)]
pub(crate) struct Records {
    kept: VecDeque<(Arc<CycleRecord>, usize)>,
    weight: usize,
    most: (usize, usize),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    pub(crate) fn new(
        name: &str,
        config: &GroupConfig,
        chosen: Chosen,
        host: &dyn HostView,
        most: (usize, usize),
    ) -> (Self, mpsc::Receiver<Step>) {
        let (steps, receiver) = mpsc::channel(16);
        let configured = configured_resources(config, host);
        let group = Self {
            name: name.into(),
            config: Mutex::new(Arc::new(config.clone())),
            next: Mutex::default(),
            wake: Notify::new(),
            retired: CancellationToken::new(),
            published: watch::Sender::new(0),
            chosen: Mutex::new(Arc::new(chosen)),
            settings: Mutex::new(Settings { group: name.to_owned(), ..Settings::default() }),
            subjects: Mutex::new(Subjects {
                resources: configured.clone(),
                configured,
                variables: configured_variables(config),
            }),
            progress: Mutex::default(),
            open: AtomicU64::new(1),
            listener: Mutex::default(),
            pending: Mutex::default(),
            records: Mutex::new(Records { kept: VecDeque::new(), weight: 0, most }),
            stats: Mutex::default(),
            steps,
        };
        (group, receiver)
    }

    /// What the configuration says of it, as it holds now.
    pub(crate) fn config(&self) -> Arc<GroupConfig> {
        Arc::clone(&lock(&self.config))
    }

    /// Has something else hold from the next cycle on.
    pub(crate) fn reconfigure(&self, next: Next) {
        *lock(&self.next) = Some(next);
        self.wake.notify_one();
    }

    /// Between two cycles: takes up what is to hold from now on. Answers what changed of it: the strategy, and resources.
    pub(crate) fn take_up(&self) -> Option<(Option<Value>, Vec<String>)> {
        let Next { config, chosen, configured, most } = lock(&self.next).take()?;
        let strategy = chosen.as_ref().map(|chosen| chosen.choice.clone());
        if let Some(chosen) = chosen {
            self.choose(chosen);
        }
        let before = {
            let mut subjects = lock(&self.subjects);
            subjects.configured = configured;
            subjects.variables = configured_variables(&config);
            subjects.resources.clone()
        };
        *lock(&self.config) = Arc::new(config);
        self.records().keep(most);
        self.apply(self.settings());
        let now = lock(&self.subjects).resources.clone();
        let of = |list: &[Resource], name: &str| list.iter().find(|resource| resource.name == name).cloned();
        let names: BTreeSet<&String> = before.iter().chain(&now).map(|resource| &resource.name).collect();
        let changed = names.into_iter().filter(|name| of(&before, name) != of(&now, name)).cloned().collect();
        Some((strategy, changed))
    }

    pub(crate) fn chosen(&self) -> Arc<Chosen> {
        Arc::clone(&lock(&self.chosen))
    }

    pub(crate) fn choose(&self, chosen: Chosen) {
        *lock(&self.chosen) = Arc::new(chosen);
    }

    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *lock(&self.settings) = settings;
    }

    /// The choice of an earlier life, unless the configuration has changed since.
    pub(crate) fn restored_choice(&self, settings: &Settings) -> Option<Value> {
        let changed = settings.strategy.as_ref()?;
        (changed.configured == self.config().conflict_resolution).then(|| changed.to.clone())
    }

    /// Resources and variables as they are now, by name.
    pub(crate) fn subjects(&self) -> (Vec<Resource>, Vec<Variable>) {
        let subjects = lock(&self.subjects);
        let mut variables = subjects.variables.clone();
        let resources = subjects.resources.clone();
        drop(subjects);
        let progress = lock(&self.progress);
        for variable in &mut variables {
            if let Some(value) = progress.values.get(&variable.name) {
                variable.current = Some(*value);
            }
        }
        (resources, variables)
    }

    /// The settings with these amounts, checked.
    pub(crate) fn with_amounts(&self, amounts: &BTreeMap<String, Amount>) -> Result<Settings, CoordError> {
        let mut settings = self.settings();
        let mut errors = Vec::new();
        let subjects = lock(&self.subjects);
        for (name, amount) in amounts {
            let pointer = join("", name);
            let Some(configured) = subjects.configured.iter().find(|resource| resource.name == *name) else {
                let names: Vec<&str> = subjects.configured.iter().map(|resource| resource.name.as_str()).collect();
                let error = FieldError::new(pointer, format!("there is no resource {name:?}"));
                errors.push(error.with_nearest(name, &names));
                continue;
            };
            let resource = changed(configured, *amount);
            errors.extend(resource.check(&pointer));
            errors.extend(amount.reserve.and_then(|_| resource.check_reserve(&pointer)));
            let configured = Amount { capacity: configured.capacity, reserve: Some(configured.reserve) };
            settings.resources.insert(name.clone(), Changed { to: *amount, configured });
        }
        if errors.is_empty() { Ok(settings) } else { Err(CoordError::Invalid(errors)) }
    }

    /// Makes what was changed at run time hold, as far as the configuration says what it said then.
    pub(crate) fn apply(&self, mut settings: Settings) {
        settings.group = self.name.to_string();
        let mut subjects = lock(&self.subjects);
        let Subjects { configured, resources, .. } = &mut *subjects;
        *resources = configured
            .iter()
            .map(|resource| {
                let is = Amount { capacity: resource.capacity, reserve: Some(resource.reserve) };
                match settings.resources.get(&resource.name).filter(|known| known.configured == is) {
                    Some(known) => changed(resource, known.to),
                    None => resource.clone(),
                }
            })
            .collect();
        drop(subjects);
        self.set_settings(settings);
    }

    /// Goes on from where an earlier life, or another leader, was.
    pub(crate) fn adopt(&self, epoch: Epoch, head: GroupHead, parts: usize) {
        let mut progress = lock(&self.progress);
        let cycle = progress.cycle.max(head.cycle);
        *progress = Progress { epoch, cycle, values: head.values, written: Written::parts(parts) };
        self.open.store(cycle + 1, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    pub(crate) fn cycle(&self) -> u64 {
        self.progress().cycle
    }

    /// The next cycle that will be decided.
    pub(crate) fn open_cycle(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn set_open_cycle(&self, cycle: u64) {
        self.open.store(cycle, Ordering::Relaxed);
    }

    /// Has a round of collecting told who is heard of. The round before hears nothing more.
    pub(crate) fn listen(&self) -> mpsc::UnboundedReceiver<AgentId> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.listener) = Some(sender);
        receiver
    }

    pub(crate) fn stop_listening(&self) {
        *lock(&self.listener) = None;
    }

    /// An agent has said what it wants.
    pub(crate) fn heard(&self, agent: &AgentId) {
        if let Some(listener) = &*lock(&self.listener) {
            // A round that has closed does not listen any more.
            let _ = listener.send(agent.clone());
        }
    }

    /// An agent is not to be waited for any more: it has left (or moved), or begun anew.
    pub(crate) fn gone(&self, agent: &AgentId, left: bool) {
        if left {
            self.heard(agent);
        }
        let mut pending = lock(&self.pending);
        if pending.waiting.remove(agent)
            && let Some(heard) = &pending.heard
        {
            let _ = heard.send(agent.clone());
        }
    }

    /// An agent has acknowledged a decision.
    pub(crate) fn acknowledged(&self, agent: &AgentId, cycle: u64, epoch: u64) {
        let mut pending = lock(&self.pending);
        if (pending.cycle, pending.epoch) == (cycle, epoch)
            && pending.waiting.remove(agent)
            && let Some(heard) = &pending.heard
        {
            let _ = heard.send(agent.clone());
        }
    }

    /// Whether an agent that was last told `last` (cycle and epoch) may have been given a decision of this cycle and epoch. By
    /// the record of the cycle, where that is kept; else whatever came before is believed.
    pub(crate) fn may_have_told(&self, agent: &str, last: Option<(u64, u64)>, cycle: u64, epoch: u64) -> bool {
        if let Some(record) = self.records().get(cycle) {
            let told = record.outcome == crate::CycleOutcome::Distributed && record.epoch == epoch;
            return told && record.plan.as_ref().is_some_and(|plan| plan.decision(agent).is_some());
        }
        let (current, newest) = {
            let progress = self.progress();
            (progress.epoch.0, progress.cycle)
        };
        let earlier_life = epoch < current && cycle <= newest;
        let forgotten = last.is_some_and(|last| last.1 == epoch && cycle < last.0);
        cycle > 0 && epoch > 0 && (earlier_life || forgotten)
    }

    /// Begins to wait for acknowledgements of a cycle. Whoever acknowledges is told to the receiver.
    pub(crate) fn expect(
        &self,
        cycle: u64,
        epoch: u64,
        waiting: BTreeSet<AgentId>,
    ) -> mpsc::UnboundedReceiver<AgentId> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.pending) = Pending { cycle, epoch, waiting, heard: Some(sender) };
        receiver
    }

    /// Who has not acknowledged that cycle.
    pub(crate) fn unacknowledged(&self) -> Vec<AgentId> {
        let mut pending = lock(&self.pending);
        pending.heard = None;
        pending.waiting.iter().cloned().collect()
    }

    /// Settles the last cycle: nobody's acknowledgement counts any more.
    pub(crate) fn settle(&self) {
        let (cycle, waiting) = {
            let mut pending = lock(&self.pending);
            (pending.cycle, std::mem::take(&mut pending.waiting))
        };
        let mut records = self.records();
        let Some(record) = records.newest().filter(|record| record.success.is_none()) else { return };
        let distributed = record.outcome == crate::CycleOutcome::Distributed;
        let unacknowledged: Vec<AgentId> =
            if distributed && record.cycle == cycle { waiting.into_iter().collect() } else { Vec::new() };
        let verified = record.plan.as_ref().is_some_and(|plan| plan.verified);
        // A cycle that all agents were silent in has lost nothing, and yet is not well.
        let heard = record.took_part() > 0 || record.problem.agents.is_empty();
        let success = distributed && verified && heard && unacknowledged.is_empty();
        let missing = unacknowledged.len();
        let settled = CycleRecord { unacknowledged, success: Some(success), ..CycleRecord::clone(&record) };
        records.replace_newest(Arc::new(settled));
        drop(records);
        self.stats().settled(&self.name, success, missing);
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }

    pub(crate) async fn step(&self) -> Result<Arc<CycleRecord>, CoordError> {
        let (sender, receiver) = oneshot::channel();
        self.steps.send(sender).await.map_err(|_| CoordError::Ended)?;
        receiver.await.unwrap_or(Err(CoordError::Ended))
    }
}

/// The resources of a group by name, those of the machine with what it has.
pub(crate) fn configured_resources(config: &GroupConfig, host: &dyn HostView) -> Vec<Resource> {
    let mut configured = config.resources.clone();
    for resource in configured.iter_mut().filter(|resource| config.from_host.contains(&resource.name)) {
        resource.capacity = if resource.name == "system.cpu" { host.cpus() } else { host.memory_bytes() };
    }
    configured.sort_by(|a, b| a.name.cmp(&b.name));
    configured
}

fn configured_variables(config: &GroupConfig) -> Vec<Variable> {
    let mut variables = config.variables.clone();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    variables
}

fn changed(resource: &Resource, to: Amount) -> Resource {
    Resource { capacity: to.capacity, reserve: to.reserve.unwrap_or(resource.reserve), ..resource.clone() }
}

impl Records {
    pub(crate) fn newest(&self) -> Option<Arc<CycleRecord>> {
        self.kept.back().map(|(record, _)| Arc::clone(record))
    }

    pub(crate) fn get(&self, cycle: u64) -> Option<Arc<CycleRecord>> {
        let at = self.kept.binary_search_by_key(&cycle, |(record, _)| record.cycle).ok()?;
        self.kept.get(at).map(|(record, _)| Arc::clone(record))
    }

    /// The newest first.
    pub(crate) fn last(&self, limit: usize) -> Vec<Arc<CycleRecord>> {
        self.kept.iter().rev().take(limit).map(|(record, _)| Arc::clone(record)).collect()
    }

    pub(crate) fn push(&mut self, record: Arc<CycleRecord>) {
        let weight = record.weight();
        self.weight += weight;
        self.kept.push_back((record, weight));
        self.keep(self.most);
    }

    /// Keeps so many cycles, and bytes of them, from now on.
    fn keep(&mut self, most: (usize, usize)) {
        self.most = most;
        let (cycles, bytes) = most;
        while self.kept.len() > 1 && (self.kept.len() > cycles || self.weight > bytes) {
            self.weight -= self.kept.pop_front().map_or(0, |(_, weight)| weight);
        }
    }

    fn replace_newest(&mut self, record: Arc<CycleRecord>) {
        if let Some((newest, _)) = self.kept.back_mut() {
            *newest = record;
        }
    }
}
