//! How much the changes weigh that the file keeps for watchers, and up to where they should be forgotten.

use std::collections::VecDeque;

use coredinator_core::{Change, Revision};
use sqlx::SqliteConnection;

use super::reader::revision;
use crate::store::{
    feed::weight,
    retention::{Retention, step},
};

/// The weight of each revision that is kept, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    weights: VecDeque<(Revision, u64)>,
    bytes: u64,
}

impl History {
    /// What a file holds.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let weigh = "SELECT revision, SUM(LENGTH(key) + COALESCE(LENGTH(value), 0)) AS bytes
            FROM changes GROUP BY revision ORDER BY revision";
        let mut history = Self::default();
        for row in sqlx::query(weigh).fetch_all(connection).await? {
            history.push(revision(&row, "revision")?, revision(&row, "bytes")?.0);
        }
        Ok(history)
    }

    /// Takes note of what was committed.
    pub(super) fn add(&mut self, changes: &[Change]) {
        changes.iter().for_each(|change| self.push(change.revision, weight(change) as u64));
    }

    fn push(&mut self, revision: Revision, bytes: u64) {
        self.weights.push_back((revision, bytes));
        self.bytes += bytes;
    }

    /// Takes note of what was forgotten.
    pub(super) fn forget(&mut self, up_to: Revision) {
        let forgotten = self.weights.partition_point(|(revision, _)| *revision <= up_to);
        self.bytes -= self.weights.drain(..forgotten).map(|(_, bytes)| bytes).sum::<u64>();
    }

    /// Up to where changes should be forgotten now, a bounded step at a time. The newest always stays.
    pub(super) fn due(&self, newest: Revision, compacted: Revision, keep: Retention) -> Option<Revision> {
        let by_weight = if keep.is_exceeded_by(self.bytes) { self.too_heavy(newest, keep.bytes) } else { None };
        step(keep.by_count(newest, compacted).max(by_weight), compacted)
    }

    /// The newest revision that has to go for the rest to weigh no more than `bytes`.
    fn too_heavy(&self, newest: Revision, bytes: u64) -> Option<Revision> {
        let mut left = self.bytes;
        let mut last = None;
        for &(revision, weight) in self.weights.iter().take_while(|(revision, _)| *revision < newest) {
            if left <= bytes {
                break;
            }
            left -= weight;
            last = Some(revision);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_what_is_due() {
        let keep = Retention { revisions: 1000, bytes: 800 };
        let of = |weights: &[(u64, u64)]| {
            let mut history = History::default();
            weights.iter().for_each(|&(revision, bytes)| history.push(Revision(revision), bytes));
            history
        };
        let due = |weights: &[(u64, u64)], newest, compacted| {
            of(weights).due(Revision(newest), Revision(compacted), keep).map(|revision| revision.0)
        };
        // By count: with slack, a bounded step at a time.
        assert_eq!(due(&[], 0, 0), None);
        assert_eq!(due(&[], 1127, 0), None);
        assert_eq!(due(&[], 1128, 0), Some(128));
        assert_eq!(due(&[], 1128, 100), None);
        assert_eq!(due(&[], 9000, 100), Some(1124));
        // By weight: with an eighth of slack, down to what is kept, never the newest.
        assert_eq!(due(&[(5, 300), (6, 300), (7, 300)], 7, 0), None);
        assert_eq!(due(&[(5, 300), (6, 300), (7, 301)], 7, 0), Some(5));
        assert_eq!(due(&[(5, 1), (6, 300), (7, 700)], 7, 0), Some(6));
        assert_eq!(due(&[(7, 7000)], 7, 6), None);
        assert_eq!(due(&[(6, 1), (7, 7000)], 7, 5), Some(6));
        // Whichever is further.
        assert_eq!(due(&[(5, 1), (1128, 1000), (1129, 1)], 1129, 0), Some(1024));
        let mut history = of(&[(5, 300), (6, 300), (7, 301)]);
        history.forget(Revision(6));
        assert_eq!((history.bytes, history.weights.len()), (301, 1));
    }
}
