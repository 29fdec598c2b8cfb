//! What happened lately, for whoever watches.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coredinator_core::{Event, InstanceId, Key, Reason, Revision, ServiceName, Severity};
use tokio::sync::watch;

/// How many events are kept, in memory and in the store.
const KEPT: usize = 10_000;
/// Event numbers are the revision of their write times this, plus their place in it. Above [`KEPT`], so that no write tells
/// of more than there are numbers for; numbers stay below 2^53, which JSON readers can count to, for 2^39 writes.
const PER_REVISION: u64 = 1 << 14;

/// An event that has not been written yet: number, time and revision come with the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The service it is about.
    pub service: ServiceName,
    /// The replica it is about, if it is about one.
    pub replica: Option<u32>,
    /// The life it is about, if it is about one.
    pub instance: Option<InstanceId>,
    /// Whether somebody should look.
    pub severity: Severity,
    /// What happened.
    pub reason: Reason,
}

impl NewEvent {
    /// Business as usual about a service as a whole.
    pub fn normal(service: &ServiceName, code: &str, message: impl Into<String>) -> Self {
        let reason = Reason::new(code, message);
        Self { service: service.clone(), replica: None, instance: None, severity: Severity::Normal, reason }
    }

    /// The same, but somebody should look.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same, about one replica and its life.
    #[must_use]
    pub fn about(mut self, replica: u32, instance: Option<InstanceId>) -> Self {
        self.replica = Some(replica);
        self.instance = instance;
        self
    }
}

/// What an [`EventCursor`] comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// The next event.
    Event(Arc<Event>),
    /// Events in between are no longer kept: what follows is the oldest that is.
    Reset,
}

/// The newest events, in the order in which they became visible.
#[derive(Debug)]
pub(super) struct EventLog {
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<(Key, Arc<Event>)>,
    /// The number of the newest event that is no longer kept; 0 if none was dropped.
    dropped: u64,
}

impl EventLog {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the events of one revision, in the order of their keys; answers the keys of those that are too old now.
    /// What was taken in before is passed over.
    pub(super) fn push(&self, revision: Revision, events: impl IntoIterator<Item = (Key, Event)>) -> Vec<Key> {
        let mut kept = self.kept();
        let mut newest = *self.newest.borrow();
        for (place, (key, mut event)) in (0..PER_REVISION).zip(events) {
            event.id = revision.0 * PER_REVISION + place;
            event.revision = revision;
            if event.id > newest {
                newest = event.id;
                kept.events.push_back((key, Arc::new(event)));
            }
        }
        let excess = kept.events.len().saturating_sub(KEPT);
        let dropped: Vec<_> = kept.events.drain(..excess).collect();
        kept.dropped = dropped.last().map_or(kept.dropped, |(_, event)| event.id);
        drop(kept);
        self.newest.send_if_modified(|id| std::mem::replace(id, newest) != newest);
        dropped.into_iter().map(|(key, _)| key).collect()
    }

    /// What the store has was taken in. Where that is as much as is kept there was more once, or may have been.
    pub(super) fn listed(&self) {
        let mut kept = self.kept();
        if kept.events.len() >= KEPT
            && let Some((_, oldest)) = kept.events.front()
        {
            kept.dropped = kept.dropped.max(oldest.id.saturating_sub(1));
        }
    }

    /// The newest `limit` events that `wanted` lets through, oldest first.
    pub(super) fn recent(&self, limit: usize, wanted: impl Fn(&Event) -> bool) -> Vec<Arc<Event>> {
        let kept = self.kept();
        let mut found: Vec<_> = kept
            .events
            .iter()
            .rev()
            .map(|(_, event)| event)
            .filter(|event| wanted(event))
            .take(limit)
            .cloned()
            .collect();
        drop(kept);
        found.reverse();
        found
    }

    pub(super) fn cursor(self: &Arc<Self>, after: Option<u64>) -> EventCursor {
        let newest = self.newest.subscribe();
        let last = after.unwrap_or_else(|| *newest.borrow());
        let reset = after.is_some_and(|after| self.misses(after));
        EventCursor { log: Arc::clone(self), newest, last, reset }
    }

    /// Whether events after number `after` may have been dropped (or `after` is not a number of ours).
    fn misses(&self, after: u64) -> bool {
        after > *self.newest.borrow() || after < self.kept().dropped
    }

    fn next_after(&self, last: u64) -> Option<Arc<Event>> {
        let kept = self.kept();
        let place = kept.events.partition_point(|(_, event)| event.id <= last);
        kept.events.get(place).map(|(_, event)| Arc::clone(event))
    }
}

/// A reader's place in the events.
#[derive(Debug)]
pub struct EventCursor {
    log: Arc<EventLog>,
    newest: watch::Receiver<u64>,
    last: u64,
    reset: bool,
}

impl EventCursor {
    /// The next event, as soon as there is one. Cancel-safe.
    pub async fn next(&mut self) -> EventItem {
        loop {
            if !self.reset && self.log.misses(self.last) {
                self.reset = true;
            }
            if std::mem::take(&mut self.reset) {
                self.last = self.log.kept().dropped;
                return EventItem::Reset;
            }
            self.newest.borrow_and_update();
            if let Some(event) = self.log.next_after(self.last) {
                self.last = event.id;
                return EventItem::Event(event);
            }
            if self.newest.changed().await.is_err() {
                // Cannot happen: the log, which holds the sender, is held by this cursor.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coredinator_core::Timestamp;

    use super::*;
    use crate::registry::keys;

    fn event(n: u32) -> (Key, Event) {
        let event = Event {
            id: 0,
            at: Timestamp::UNIX_EPOCH,
            service: ServiceName::new("a").unwrap(),
            replica: None,
            instance: None,
            severity: Severity::Normal,
            reason: Reason::new("Test", n.to_string()),
            revision: Revision::ZERO,
        };
        (keys::event(Timestamp::UNIX_EPOCH, n), event)
    }

    #[tokio::test]
    async fn a_cursor_resumes_without_loss_and_waits_for_more() {
        let log = Arc::new(EventLog::new());
        log.push(Revision(1), [event(0), event(1)]);
        log.push(Revision(2), [event(2)]);
        let mut cursor = log.cursor(Some(PER_REVISION));
        let EventItem::Event(next) = cursor.next().await else { panic!("reset") };
        assert_eq!(next.reason.message, "1");
        let EventItem::Event(next) = cursor.next().await else { panic!("reset") };
        assert_eq!((next.reason.message.as_str(), next.id), ("2", 2 * PER_REVISION));
        let waiting = tokio::spawn(async move { cursor.next().await });
        log.push(Revision(2), [event(2)]);
        log.push(Revision(3), [event(3)]);
        let EventItem::Event(next) = waiting.await.unwrap() else { panic!("reset") };
        assert_eq!(next.reason.message, "3");
    }

    #[tokio::test]
    async fn a_cursor_from_before_what_is_kept_is_told_so() {
        let log = Arc::new(EventLog::new());
        let mut dropped = 0;
        for n in 0..KEPT as u32 + 5 {
            dropped += log.push(Revision(u64::from(n) + 1), [event(n)]).len();
        }
        assert_eq!(dropped, 5);
        let mut cursor = log.cursor(Some(PER_REVISION));
        assert_eq!(cursor.next().await, EventItem::Reset);
        let EventItem::Event(next) = cursor.next().await else { panic!("reset twice") };
        assert_eq!(next.reason.message, "5");
        assert_eq!(log.cursor(Some(u64::MAX)).next().await, EventItem::Reset);
        assert_eq!(log.recent(2, |_| true).len(), 2);
    }

    #[tokio::test]
    async fn a_cursor_from_before_what_the_store_still_had_is_told_so() {
        let (few, full) = (Arc::new(EventLog::new()), Arc::new(EventLog::new()));
        few.push(Revision(8), [event(0)]);
        few.listed();
        assert!(matches!(few.cursor(Some(0)).next().await, EventItem::Event(_)), "nothing was ever dropped");
        for n in 0..KEPT as u32 {
            full.push(Revision(u64::from(n) + 8), [event(n)]);
        }
        full.listed();
        let mut cursor = full.cursor(Some(7 * PER_REVISION));
        assert_eq!(cursor.next().await, EventItem::Reset);
        let EventItem::Event(next) = cursor.next().await else { panic!("reset twice") };
        assert_eq!(next.reason.message, "0");
    }
}
