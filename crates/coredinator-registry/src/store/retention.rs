//! How much history is kept for watchers, and in which steps the rest is forgotten. Shared by the back ends with a disk.

use coredinator_core::Revision;

/// How many revisions are forgotten at once. More than what a group adds, so that a backlog shrinks.
pub(super) const COMPACTION_STEP: u64 = 1024;

/// How many revisions beyond those retained may gather before the oldest are forgotten.
const COMPACTION_SLACK: u64 = 128;

/// How much is kept, in revisions and in bytes of keys and values: whichever ends first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) revisions: u64,
    pub(super) bytes: u64,
}

impl Retention {
    /// The newest revision that has to go because there are too many; with slack, so that not every write forgets.
    pub(super) fn by_count(self, newest: Revision, compacted: Revision) -> Option<Revision> {
        let beyond = newest.0.saturating_sub(self.revisions);
        (beyond.saturating_sub(compacted.0) >= COMPACTION_SLACK).then_some(Revision(beyond))
    }

    /// Whether changes of that weight are too heavy; with an eighth of slack, for the same reason.
    pub(super) fn is_exceeded_by(self, bytes: u64) -> bool {
        bytes > self.bytes.saturating_add(self.bytes / 8)
    }
}

/// The next step on the way to what is due.
pub(super) fn step(due: Option<Revision>, compacted: Revision) -> Option<Revision> {
    due.map(|due| Revision(due.0.min(compacted.0 + COMPACTION_STEP))).filter(|due| *due > compacted)
}
