//! One replica of a service, as its machine sees it.

use std::time::{Duration, Instant};

use coredinator_core::{
    InstanceId, InstanceRecord, InstanceRef, InstanceState, Reason, RuntimeName, ServiceName, Timestamp,
};

use crate::restart::History;

/// Now, on both clocks: the monotonic one schedules, the wall clock stamps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) mono: Instant,
    pub(crate) wall: Timestamp,
}

/// Why an instance is being stopped, which decides what comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// It is not wanted any more, or not now: by hand, by scaling, by deregistering, by shutting down.
    Unwanted(Reason),
    /// It is replaced by a new one.
    Replaced(Reason),
    /// Its health check failed.
    Unhealthy(Reason),
}

impl StopCause {
    pub(crate) fn reason(&self) -> &Reason {
        match self {
            Self::Unwanted(reason) | Self::Replaced(reason) | Self::Unhealthy(reason) => reason,
        }
    }
}

/// A replica: its record as it should stand in the store, and what only this process knows.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) record: InstanceRecord,
    /// When its next step may be taken, while it waits.
    pub(crate) due: Option<Instant>,
    /// Since when it has been good without a break.
    pub(crate) good_since: Option<Instant>,
    /// A start or stop is under way.
    pub(crate) busy: bool,
    /// Why it is being stopped.
    pub(crate) cause: Option<StopCause>,
    /// The stop under way has been hurried.
    pub(crate) hurried: bool,
    /// It takes the place of one that ran a moment ago, so its dependencies are not asked again.
    pub(crate) ungated: bool,
    /// The last start may or may not have happened: the next one is under the same id.
    pub(crate) same_id: bool,
    /// Since when it has been watched with the revision of its document that it was given last.
    pub(crate) config_since: Option<Instant>,
    /// The revision with which it was seen to be well.
    pub(crate) config_well: u64,
    /// It is being given its document, or checked with it.
    pub(crate) config_busy: bool,
    /// The revision that it could not be given, and why.
    pub(crate) config_failure: Option<(u64, String)>,
}

impl Slot {
    /// A replica that has not lived yet.
    pub(crate) fn new(service: &ServiceName, replica: u32, runtime: RuntimeName, now: Now) -> Self {
        Self::of(InstanceRecord {
            service: service.clone(),
            replica,
            id: None,
            state: InstanceState::Pending,
            reason: Reason::new("Pending", "not started yet"),
            since: now.wall,
            generation: 0,
            runtime,
            node: None,
            handle: None,
            pid: None,
            host: String::new(),
            port: 0,
            started_at: None,
            restarts: 0,
            attempts: 0,
            restart_times: Vec::new(),
            last_exit: None,
            next_restart_at: None,
            followed: 0,
            config_revision: 0,
            config_at: None,
        })
    }

    pub(crate) fn of(record: InstanceRecord) -> Self {
        Self {
            record,
            due: None,
            good_since: None,
            busy: false,
            cause: None,
            hurried: false,
            ungated: false,
            same_id: false,
            config_since: None,
            config_well: 0,
            config_busy: false,
            config_failure: None,
        }
    }

    /// One that goes on from its record: what waited by the wall clock waits by the monotonic one, and never more than
    /// `longest`, however far the wall clock has been set back meanwhile.
    pub(crate) fn resumed(record: InstanceRecord, longest: Duration, now: Now) -> Self {
        let left = |at: Timestamp| Duration::try_from(at.duration_since(now.wall)).unwrap_or_default().min(longest);
        let left = record.next_restart_at.map(left);
        let mut slot = Self::of(record);
        slot.due = left.and_then(|left| now.mono.checked_add(left));
        // What was watched before is not known any more: it gets its whole time again.
        slot.config_since = Some(now.mono);
        slot
    }

    /// Notes which revision of its document it has from now on.
    pub(crate) fn give(&mut self, revision: u64, now: Now) {
        self.record.config_revision = revision;
        self.record.config_at = (revision != 0).then_some(now.wall);
        self.config_since = Some(now.mono);
        self.config_well = 0;
        self.config_failure = None;
    }

    pub(crate) fn is(&self, id: &InstanceId) -> bool {
        self.record.id.as_ref() == Some(id)
    }

    /// What its runtime needs to find it; `None` if it has not lived yet.
    pub(crate) fn instance(&self) -> Option<InstanceRef> {
        let record = &self.record;
        record.id.as_ref().map(|id| InstanceRef {
            id: id.clone(),
            service: record.service.clone(),
            replica: record.replica,
            handle: record.handle.clone(),
        })
    }

    pub(crate) fn enter(&mut self, state: InstanceState, reason: Reason, now: Now) {
        if self.record.state != state {
            self.record.since = now.wall;
        }
        self.record.state = state;
        self.record.reason = reason;
        if state != InstanceState::Backoff {
            self.record.next_restart_at = None;
            self.due = None;
        }
    }

    pub(crate) fn history(&self) -> History {
        History { attempts: self.record.attempts, times: self.record.restart_times.clone() }
    }

    pub(crate) fn set_history(&mut self, history: History) {
        self.record.attempts = history.attempts;
        self.record.restart_times = history.times;
    }
}
