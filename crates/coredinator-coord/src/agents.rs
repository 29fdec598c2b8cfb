//! Who is there, what they last said, and what they were last told: pure, a function of what happened and when.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::Arc,
    time::Duration,
};

use coredinator_core::{
    ServiceName, Timestamp,
    coordination::{Agent, AgentId, Holding, Intention},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{CoordError, transport::DecisionMessage};

/// A moment, by the clock that schedules and by the one that stamps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) stamp: Timestamp,
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// No cycle has ended since it came.
    New,
    /// It took part in the last cycle.
    Active,
    /// It said nothing of use in the last cycle.
    Silent,
}

/// An agent as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentView {
    /// The agent as it was accepted.
    #[serde(flatten)]
    pub agent: Arc<Agent>,
    /// What it is doing.
    pub state: AgentState,
    /// When it registered, or this process began.
    pub registered_at: Timestamp,
    /// Its last sign of life.
    pub last_seen_at: Timestamp,
    /// The first cycle of its silence ended then; absent: it is not silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<Timestamp>,
    /// The number of the intention that counts; absent: none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intention_seq: Option<u64>,
    /// What it was last told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Arc<DecisionMessage>>,
    /// The last cycle whose decision it acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged_cycle: Option<u64>,
    /// What it was granted, and whether that stays its own while it is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holding: Option<Arc<Holding>>,
}

/// An agent for a cycle.
#[derive(Debug, Clone)]
pub(crate) struct Participant {
    pub(crate) agent: Arc<Agent>,
    pub(crate) intention: Option<Arc<Intention>>,
    pub(crate) holding: Option<Arc<Holding>>,
}

/// Whom a round of collecting is about.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Those with an endpoint, the ones that answered last time first.
    pub(crate) pull: Vec<Arc<Agent>>,
    /// Those that come by themselves, live, and have not said what they want.
    pub(crate) awaited: BTreeSet<AgentId>,
    /// Those of them who have been waited for in vain, and never said anything: whether they ever will, nobody knows.
    pub(crate) quiet: BTreeSet<AgentId>,
}

#[derive(Debug)]
struct Entry {
    agent: Arc<Agent>,
    registered_at: Timestamp,
    seen: Moment,
    /// Since when its service cannot act.
    unusable_since: Option<Instant>,
    intention: Option<Arc<Intention>>,
    /// Whether the intention came since the last round closed.
    fresh: bool,
    holding: Option<Arc<Holding>>,
    told: Option<Arc<DecisionMessage>>,
    /// Epoch and cycle of what it acknowledged.
    acknowledged: Option<(u64, u64)>,
    state: AgentState,
    silent_since: Option<Timestamp>,
}

impl Entry {
    fn new(agent: Arc<Agent>, now: Moment) -> Self {
        Self {
            agent,
            registered_at: now.stamp,
            seen: now,
            unusable_since: None,
            intention: None,
            fresh: false,
            holding: None,
            told: None,
            acknowledged: None,
            state: AgentState::New,
            silent_since: None,
        }
    }

    fn ttl(&self) -> Duration {
        Duration::try_from_secs_f64(self.agent.ttl_seconds).unwrap_or(Duration::MAX)
    }

    fn lives(&self, now: Instant) -> bool {
        let since = self.unusable_since.map_or(self.seen.at, |since| since.min(self.seen.at));
        now.saturating_duration_since(since) < self.ttl()
    }

    /// Whether what it last said still counts in a cycle.
    fn stands(&self, cycle: u64, now: Instant) -> bool {
        let valid = |intention: &Arc<Intention>| intention.valid_until_cycle.is_none_or(|last| last >= cycle);
        self.unusable_since.is_none()
            && self.intention.as_ref().is_some_and(valid)
            && if self.agent.endpoint.is_some() { self.fresh } else { self.lives(now) }
    }

    fn view(&self, now: Instant) -> AgentView {
        let reserved = self.lives(now);
        let holding = self.holding.as_ref().map(|holding| with_reserved(holding, reserved));
        AgentView {
            agent: Arc::clone(&self.agent),
            state: self.state,
            registered_at: self.registered_at,
            last_seen_at: self.seen.stamp,
            silent_since: self.silent_since,
            intention_seq: self.intention.as_ref().map(|intention| intention.seq),
            decision: self.told.clone(),
            acknowledged_cycle: self.acknowledged.map(|(_, cycle)| cycle),
            holding,
        }
    }
}

fn with_reserved(holding: &Arc<Holding>, reserved: bool) -> Arc<Holding> {
    if holding.reserved == reserved {
        return Arc::clone(holding);
    }
    Arc::new(Holding { reserved, ..Holding::clone(holding) })
}

/// All agents, of all groups.
#[derive(Debug)]
pub(crate) struct Book {
    agents: BTreeMap<AgentId, Entry>,
    limit: usize,
}

impl Book {
    pub(crate) fn new(limit: usize) -> Self {
        Self { agents: BTreeMap::new(), limit }
    }

    /// How many agents there may be from now on; those that are there stay.
    pub(crate) fn limit_to(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether there is room for this agent.
    pub(crate) fn admits(&self, id: &AgentId) -> Result<(), CoordError> {
        if self.agents.len() >= self.limit && !self.agents.contains_key(id) {
            return Err(CoordError::Full(self.limit));
        }
        Ok(())
    }

    /// Enters an agent, in the place of one of its name. That one's intention is forgotten; what it was granted stays,
    /// because the plant may still be running on it, unless the group is another one. Whether there was none.
    pub(crate) fn register(&mut self, agent: Arc<Agent>, now: Moment) -> bool {
        match self.agents.entry(agent.agent_id.clone()) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry::new(agent, now));
                true
            }
            btree_map::Entry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                if entry.agent.group != agent.group {
                    *entry = Entry::new(agent, now);
                } else {
                    entry.agent = agent;
                    (entry.seen, entry.intention, entry.fresh) = (now, None, false);
                }
                false
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<Agent>> {
        self.agents.remove(id).map(|entry| entry.agent)
    }

    /// Gives an agent what it was granted in an earlier life of this process.
    pub(crate) fn restore(&mut self, group: &str, holding: Holding) {
        if let Some(entry) = self.agents.get_mut(&holding.agent_id).filter(|entry| entry.agent.group == group) {
            entry.holding = Some(Arc::new(holding));
        }
    }

    fn entry(&mut self, id: &str) -> Result<&mut Entry, CoordError> {
        self.agents.get_mut(id).ok_or_else(|| CoordError::unknown_agent(id))
    }

    pub(crate) fn agent(&self, id: &str) -> Result<&Arc<Agent>, CoordError> {
        self.agents.get(id).map(|entry| &entry.agent).ok_or_else(|| CoordError::unknown_agent(id))
    }

    /// A sign of life. Answers the agent.
    pub(crate) fn seen(&mut self, id: &str, now: Moment) -> Result<Arc<Agent>, CoordError> {
        let entry = self.entry(id)?;
        entry.seen = now;
        Ok(Arc::clone(&entry.agent))
    }

    /// What an agent wants from now on. One with a number below that of what it said before is refused, and is a sign of
    /// life all the same; one with the same number takes its place.
    pub(crate) fn intend(&mut self, intention: Arc<Intention>, now: Moment) -> Result<(), CoordError> {
        let entry = self.entry(intention.agent_id.as_str())?;
        entry.seen = now;
        if let Some(known) = entry.intention.as_ref().filter(|known| known.seq > intention.seq) {
            return Err(CoordError::Stale { given: intention.seq, known: known.seq });
        }
        entry.intention = Some(intention);
        entry.fresh = true;
        Ok(())
    }

    /// An agent that was asked answered with what it had said already, or with something older: what it said before counts.
    pub(crate) fn stays(&mut self, id: &str) {
        if let Some(entry) = self.agents.get_mut(id) {
            entry.fresh = entry.intention.is_some();
        }
    }

    /// Who is to be asked, and who is awaited, for a cycle.
    pub(crate) fn ask(&self, group: &str, cycle: u64, now: Instant, usable: &dyn Fn(&ServiceName) -> bool) -> Asked {
        let mut asked = Asked::default();
        let mut last = Vec::new();
        for (id, entry) in self.agents.iter().filter(|(_, entry)| entry.agent.group == group) {
            if entry.agent.service.as_ref().is_some_and(|service| !usable(service)) {
                continue;
            }
            if entry.agent.endpoint.is_some() {
                let list = if entry.state == AgentState::Silent { &mut last } else { &mut asked.pull };
                list.push(Arc::clone(&entry.agent));
            } else if entry.lives(now) && !entry.stands(cycle, now) {
                let in_vain = entry.state == AgentState::Silent && entry.intention.is_none();
                let list = if in_vain { &mut asked.quiet } else { &mut asked.awaited };
                list.insert(id.clone());
            }
        }
        asked.pull.append(&mut last);
        asked
    }

    /// Closes a round: what everyone in the group wants in this cycle, and holds.
    pub(crate) fn close(
        &mut self,
        group: &str,
        cycle: u64,
        now: Instant,
        usable: &dyn Fn(&ServiceName) -> bool,
    ) -> Vec<Participant> {
        let mut participants = Vec::new();
        for entry in self.agents.values_mut().filter(|entry| entry.agent.group == group) {
            let can_act = entry.agent.service.as_ref().is_none_or(usable);
            entry.unusable_since = if can_act { None } else { entry.unusable_since.or(Some(now)) };
            let stands = entry.stands(cycle, now);
            entry.fresh = false;
            let reserved = entry.lives(now);
            participants.push(Participant {
                agent: Arc::clone(&entry.agent),
                intention: entry.intention.clone().filter(|_| stands),
                holding: entry.holding.as_ref().map(|holding| with_reserved(holding, reserved)),
            });
        }
        participants
    }

    /// Enters who took part in a cycle that has been decided. Answers who has fallen silent, and who is back.
    pub(crate) fn took_part(
        &mut self,
        group: &str,
        active: &BTreeSet<&AgentId>,
        stamp: Timestamp,
    ) -> (Vec<AgentId>, Vec<AgentId>) {
        let (mut silent, mut back) = (Vec::new(), Vec::new());
        for (id, entry) in self.agents.iter_mut().filter(|(_, entry)| entry.agent.group == group) {
            let state = if active.contains(id) { AgentState::Active } else { AgentState::Silent };
            match (entry.state, state) {
                (AgentState::Active | AgentState::New, AgentState::Silent) => {
                    entry.silent_since = Some(stamp);
                    silent.push(id.clone());
                }
                (AgentState::Silent, AgentState::Active) => {
                    entry.silent_since = None;
                    back.push(id.clone());
                }
                _ => {}
            }
            entry.state = state;
        }
        (silent, back)
    }

    /// Enters what agents hold after a cycle. Agents that have left since, or moved to another group, are passed over.
    pub(crate) fn hold(&mut self, group: &str, holdings: &[Arc<Holding>]) {
        for holding in holdings {
            if let Some(entry) = self.agents.get_mut(&holding.agent_id).filter(|entry| entry.agent.group == group) {
                entry.holding = Some(Arc::clone(holding));
            }
        }
    }

    /// Enters what an agent is told; whether it is there (still).
    pub(crate) fn tell(&mut self, message: Arc<DecisionMessage>) -> bool {
        match self.agents.get_mut(&message.decision.agent_id) {
            Some(entry) if *entry.agent.group == *message.group => {
                entry.told = Some(message);
                true
            }
            _ => false,
        }
    }

    /// What an agent was last told.
    pub(crate) fn told(&self, id: &str) -> Result<Option<Arc<DecisionMessage>>, CoordError> {
        self.agents.get(id).map(|entry| entry.told.clone()).ok_or_else(|| CoordError::unknown_agent(id))
    }

    /// An agent knows what it was told; whether that is what it was last told, and new.
    pub(crate) fn acknowledge(&mut self, id: &str, cycle: u64, epoch: u64, now: Moment) -> Result<bool, CoordError> {
        let entry = self.entry(id)?;
        entry.seen = now;
        let last = entry.told.as_ref().is_some_and(|told| told.cycle == cycle && told.epoch == epoch);
        let new = last && entry.acknowledged != Some((epoch, cycle));
        if new {
            entry.acknowledged = Some((epoch, cycle));
        }
        Ok(new)
    }

    pub(crate) fn view(&self, id: &str, now: Instant) -> Result<AgentView, CoordError> {
        self.agents.get(id).map(|entry| entry.view(now)).ok_or_else(|| CoordError::unknown_agent(id))
    }

    pub(crate) fn views(&self, group: Option<&str>, now: Instant) -> Vec<AgentView> {
        let of = |entry: &&Entry| group.is_none_or(|group| entry.agent.group == group);
        self.agents.values().filter(of).map(|entry| entry.view(now)).collect()
    }

    /// How many agents of a group (of all) there are, and how many of them are not silent.
    pub(crate) fn count(&self, group: Option<&str>) -> (usize, usize) {
        let of = |entry: &&Entry| group.is_none_or(|group| entry.agent.group == group);
        let states = self.agents.values().filter(of).map(|entry| entry.state);
        states.fold((0, 0), |(all, active), state| (all + 1, active + usize::from(state != AgentState::Silent)))
    }
}
