//! Which check starts next: pure, without a clock of its own.

use std::collections::BTreeSet;

use tokio::time::Instant;

/// What the last check of a target allows to expect of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// It answered in time, whatever it said.
    Prompt,
    /// It did not answer in time, or was never asked.
    Doubtful,
}

/// A place in a queue: when it was due, and which check.
type Place = (Instant, u64);

/// The checks that wait for their time or for a free slot.
///
/// At most `limit` checks run at a time, and at most half of those are of [`Lane::Doubtful`] targets: however many
/// targets hang, the others find a slot. A target that hangs for the first time may hold one of the other half until its
/// timeout; thereafter it is doubtful.
#[derive(Debug)]
pub(super) struct Agenda {
    limit: usize,
    timed: BTreeSet<Place>,
    prompt: BTreeSet<Place>,
    doubtful: BTreeSet<Place>,
    prompt_running: usize,
    doubtful_running: usize,
}

impl Agenda {
    /// An empty agenda; a limit below 2 is 2.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(2),
            timed: BTreeSet::new(),
            prompt: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            prompt_running: 0,
            doubtful_running: 0,
        }
    }

    /// Puts a check down for `due`; it must not be on the agenda yet.
    pub(super) fn schedule(&mut self, id: u64, due: Instant) {
        self.timed.insert((due, id));
    }

    /// Takes a waiting check off the agenda.
    pub(super) fn cancel(&mut self, id: u64, due: Instant) {
        let place = (due, id);
        let _ = self.timed.remove(&place) || self.prompt.remove(&place) || self.doubtful.remove(&place);
    }

    /// Counts a check as running, whether or not there is a slot for it.
    pub(super) fn started(&mut self, lane: Lane) {
        *self.running(lane) += 1;
    }

    /// A check that was started has ended, or was given up.
    pub(super) fn ended(&mut self, lane: Lane) {
        let running = self.running(lane);
        *running = running.saturating_sub(1);
    }

    fn running(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Prompt => &mut self.prompt_running,
            Lane::Doubtful => &mut self.doubtful_running,
        }
    }

    /// Takes the next check off the agenda that is due and finds a slot, and counts it as running.
    pub(super) fn next(&mut self, now: Instant, lane_of: impl Fn(u64) -> Lane) -> Option<(u64, Instant, Lane)> {
        while let Some(&place) = self.timed.first().filter(|(due, _)| *due <= now) {
            self.timed.remove(&place);
            match lane_of(place.1) {
                Lane::Prompt => self.prompt.insert(place),
                Lane::Doubtful => self.doubtful.insert(place),
            };
        }
        if self.prompt_running + self.doubtful_running >= self.limit {
            return None;
        }
        let half_free = self.doubtful_running < self.limit / 2;
        let doubtful = self.doubtful.first().filter(|_| half_free).copied();
        let (queue, lane) = match (self.prompt.first().copied(), doubtful) {
            (Some(prompt), Some(doubtful)) if doubtful < prompt => (&mut self.doubtful, Lane::Doubtful),
            (Some(_), _) => (&mut self.prompt, Lane::Prompt),
            (None, Some(_)) => (&mut self.doubtful, Lane::Doubtful),
            (None, None) => return None,
        };
        let (due, id) = queue.pop_first()?;
        self.started(lane);
        Some((id, due, lane))
    }

    /// When the next check becomes due; those that wait for a slot are woken by [`ended`](Self::ended).
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timed.first().map(|(due, _)| *due)
    }

    /// Whether a check is due and waits for a slot.
    pub(super) fn is_waiting(&self) -> bool {
        !(self.prompt.is_empty() && self.doubtful.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn in_order_of_due_time_and_not_before_it() {
        let now = Instant::now();
        let mut agenda = Agenda::new(10);
        agenda.schedule(1, now + Duration::from_secs(2));
        agenda.schedule(2, now + Duration::from_secs(1));
        agenda.schedule(3, now + Duration::from_secs(3));
        assert_eq!(agenda.next(now, |_| Lane::Prompt), None);
        assert_eq!(agenda.next_due(), Some(now + Duration::from_secs(1)));
        agenda.cancel(3, now + Duration::from_secs(3));
        let later = now + Duration::from_secs(9);
        let order: Vec<_> = std::iter::from_fn(|| agenda.next(later, |_| Lane::Prompt)).map(|(id, ..)| id).collect();
        assert_eq!(order, [2, 1]);
        assert_eq!(agenda.next_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_doubtful_get_half_of_the_slots() {
        let now = Instant::now();
        let mut agenda = Agenda::new(4);
        let lane = |id| if id < 100 { Lane::Doubtful } else { Lane::Prompt };
        (0..10).for_each(|id| agenda.schedule(id, now));
        (100..110).for_each(|id| agenda.schedule(id, now + Duration::from_secs(1)));
        let later = now + Duration::from_secs(2);
        let started: Vec<_> = std::iter::from_fn(|| agenda.next(later, lane)).map(|(id, ..)| id).collect();
        assert_eq!(started, [0, 1, 100, 101]);
        assert!(agenda.is_waiting());
        agenda.ended(Lane::Doubtful);
        assert_eq!(agenda.next(later, lane).map(|next| next.0), Some(2));
        agenda.ended(Lane::Prompt);
        assert_eq!(agenda.next(later, lane).map(|next| next.0), Some(102));
        assert_eq!(agenda.next(later, lane), None);
    }
}
