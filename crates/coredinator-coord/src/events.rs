//! What happened, numbered, for those who follow.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coredinator_core::{
    SharedClock, Timestamp,
    coordination::{AgentId, PlanStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::record::{CycleOutcome, FaultKind};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoordinationEvent {
    /// Its number: rises by one with each event of this process, from 1.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The group it is about; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// An agent registered.
    AgentRegistered {
        /// Which.
        agent_id: AgentId,
        /// Whether it took the place of one of the same name.
        replaced: bool,
    },
    /// An agent was taken off the list.
    AgentLeft {
        /// Which.
        agent_id: AgentId,
    },
    /// An agent that took part was silent in a cycle.
    AgentSilent {
        /// Which.
        agent_id: AgentId,
        /// Why, for people.
        detail: String,
    },
    /// An agent that was silent takes part again.
    AgentBack {
        /// Which.
        agent_id: AgentId,
    },
    /// A cycle ended.
    Cycle {
        /// Its number.
        cycle: u64,
        /// Its epoch.
        epoch: u64,
        /// What became of it.
        outcome: CycleOutcome,
        /// How good the plan is known to be.
        status: Option<PlanStatus>,
        /// How many conflicts there were.
        conflicts: usize,
        /// How long it took, in milliseconds.
        total_ms: f64,
        /// Why it was withheld or failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trouble: Option<String>,
    },
    /// A strategy failed.
    StrategyFault {
        /// In which cycle.
        cycle: u64,
        /// Which strategy.
        strategy: String,
        /// How.
        fault: FaultKind,
        /// For people.
        details: Vec<String>,
    },
    /// Not even what is safe for everyone fits: these got nothing. An alert.
    Shed {
        /// In which cycle.
        cycle: u64,
        /// Who.
        agents: Vec<AgentId>,
    },
    /// A cycle took longer than the interval.
    Overrun {
        /// Which.
        cycle: u64,
        /// How many cycles did not take place because of it.
        missed: u64,
    },
    /// The strategy was changed.
    StrategyChanged {
        /// What it is now.
        strategy: Value,
    },
    /// How much there is of resources was changed.
    ResourcesChanged {
        /// Which.
        resources: Vec<String>,
    },
    /// This coredinator leads the agents from now on.
    Leading {
        /// The epoch of its decisions.
        epoch: u64,
    },
    /// This coredinator does not lead the agents any more.
    NotLeading {
        /// Why.
        detail: String,
    },
}

/// How many events are kept for those who come late.
const KEPT: usize = 4096;

/// The events of one engine.
#[derive(Debug)]
pub(crate) struct EventLog {
    clock: SharedClock,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    events: VecDeque<Arc<CoordinationEvent>>,
}

impl EventLog {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, ring: Mutex::new(Ring { next: 1, events: VecDeque::new() }), newest: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, group: Option<&str>, kind: EventKind) {
        let at = self.clock.now();
        let mut ring = self.ring();
        let id = ring.next;
        ring.next += 1;
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(Arc::new(CoordinationEvent { id, at, group: group.map(str::to_owned), kind }));
        // Under the lock, so that the number never falls.
        self.newest.send_replace(id);
    }

    pub(crate) fn follow(self: &Arc<Self>, after: Option<u64>) -> Events {
        let newest = self.newest.subscribe();
        let ring = self.ring();
        let next = match after {
            // A number of another process's life: from the oldest that is kept.
            Some(after) if after >= ring.next => 1,
            Some(after) => after + 1,
            None => ring.next,
        };
        drop(ring);
        Events { log: Arc::clone(self), newest, next }
    }
}

/// Events, from one on, without end.
#[derive(Debug)]
pub struct Events {
    log: Arc<EventLog>,
    newest: watch::Receiver<u64>,
    next: u64,
}

impl Events {
    /// The next event, when it happens; those that were forgotten before they were read are skipped, as their numbers
    /// tell. `None`: the engine has been shut down and there are no more. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<CoordinationEvent>> {
        loop {
            if let Some(event) = self.ready() {
                return Some(event);
            }
            self.newest.changed().await.ok()?;
        }
    }

    /// The next event, if it has happened.
    pub fn ready(&mut self) -> Option<Arc<CoordinationEvent>> {
        let ring = self.log.ring();
        let first = ring.events.front()?.id;
        let at = usize::try_from(self.next.max(first) - first).ok()?;
        let event = Arc::clone(ring.events.get(at)?);
        self.next = event.id + 1;
        Some(event)
    }
}
