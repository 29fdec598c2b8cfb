//! What waits to be stored.

use std::{collections::BTreeMap, time::Instant};

use coredinator_core::{ConfigRollout, InstanceRecord};
use coredinator_registry::NewEvent;

use crate::machine::Step;

/// How many events of one service wait for the store at most.
const EVENTS_WAITING: usize = 100;

/// What goes to the store in one write, and the steps that may be taken once it is there.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    /// By replica: its record, or that there is none any more.
    pub(super) records: BTreeMap<u32, Option<InstanceRecord>>,
    /// How far the service's document has come, where that has changed.
    pub(super) rollout: Option<ConfigRollout>,
    pub(super) events: Vec<NewEvent>,
    pub(super) steps: Vec<Step>,
}

/// What waits to be stored, and the steps that may only be taken afterwards.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) waiting: Writing,
    /// A write of which it is not known whether it has happened; what waits comes after it.
    pub(super) doubt: Option<Writing>,
    pub(super) writing: bool,
    pub(super) not_before: Option<Instant>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.doubt.is_none() && !self.writing
    }
}

impl Writing {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rollout.is_none() && self.events.is_empty() && self.steps.is_empty()
    }

    /// Takes in what came after it. Of each replica the latest word counts: a record that was to be taken away and is
    /// needed again stays.
    pub(super) fn add(&mut self, records: Vec<InstanceRecord>, events: Vec<NewEvent>, steps: Vec<Step>) {
        self.records.extend(records.into_iter().map(|record| (record.replica, Some(record))));
        self.events.extend(events);
        for step in steps {
            match step {
                Step::Forget { replica } => drop(self.records.insert(replica, None)),
                step => self.steps.push(step),
            }
        }
    }

    /// Takes in what was refused before it: what it says itself is newer.
    pub(super) fn put_back(&mut self, refused: Self) {
        for (replica, record) in refused.records {
            self.records.entry(replica).or_insert(record);
        }
        self.rollout = self.rollout.take().or(refused.rollout);
        let newer = std::mem::replace(&mut self.events, refused.events);
        self.events.extend(newer);
        let excess = self.events.len().saturating_sub(EVENTS_WAITING);
        self.events.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use coredinator_core::{RuntimeName, ServiceName};

    use super::*;
    use crate::slot::{Now, Slot};

    fn record(replica: u32, port: u16) -> InstanceRecord {
        let (service, runtime) = (ServiceName::new("a").unwrap(), RuntimeName::new("process").unwrap());
        let now = Now { mono: tokio::time::Instant::now().into_std(), wall: coredinator_core::Timestamp::UNIX_EPOCH };
        let mut record = Slot::new(&service, replica, runtime, now).record;
        record.port = port;
        record
    }

    #[test]
    fn of_a_replica_that_is_forgotten_and_needed_again_the_record_stays() {
        let mut waiting = Writing::default();
        waiting.add(vec![record(0, 1)], vec![], vec![]);
        waiting.add(vec![], vec![], vec![Step::Forget { replica: 0 }]);
        assert_eq!(waiting.records, BTreeMap::from([(0, None)]));
        waiting.add(vec![record(0, 2)], vec![], vec![]);
        assert_eq!(waiting.records, BTreeMap::from([(0, Some(record(0, 2)))]));
    }

    #[test]
    fn what_was_refused_goes_before_what_came_since() {
        let mut refused = Writing::default();
        refused.add(vec![record(0, 1), record(1, 1)], vec![], vec![Step::Forget { replica: 2 }]);
        let mut waiting = Writing::default();
        waiting.add(vec![record(1, 2), record(2, 2)], vec![], vec![Step::Forget { replica: 0 }]);
        waiting.put_back(refused);
        let expected = BTreeMap::from([(0, None), (1, Some(record(1, 2))), (2, Some(record(2, 2)))]);
        assert_eq!(waiting.records, expected);
    }
}
