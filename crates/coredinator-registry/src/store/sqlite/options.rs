use std::{fmt, sync::Arc, time::Duration};

use coredinator_core::{SharedClock, SystemClock};

use crate::store::{DEFAULT_RETAINED_BYTES, DEFAULT_RETAINED_REVISIONS};

/// How a [`SqliteStore`](super::SqliteStore) behaves; the default suits nearly everybody.
#[derive(Clone)]
pub struct SqliteOptions {
    pub(super) clock: SharedClock,
    pub(super) retained_revisions: u64,
    pub(super) retained_bytes: u64,
    pub(super) lock_wait: Duration,
    pub(super) max_pages: Option<u32>,
    pub(super) tail_changes: usize,
    pub(super) tail_bytes: usize,
}

impl SqliteOptions {
    /// The clock by which leases end. Default: the machine's.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// How many of the newest revisions are kept for watchers, at least 1; older ones are forgotten little by little as
    /// new ones are written, so that a few hundred more may be kept. Default:
    /// [`DEFAULT_RETAINED_REVISIONS`].
    #[must_use]
    pub fn retained_revisions(mut self, revisions: u64) -> Self {
        self.retained_revisions = revisions.max(1);
        self
    }

    /// How many bytes of changes are kept for watchers at most, beside the newest one; the fewer of this and
    /// [`retained_revisions`](Self::retained_revisions) counts. Default: [`DEFAULT_RETAINED_BYTES`].
    #[must_use]
    pub fn retained_bytes(mut self, bytes: u64) -> Self {
        self.retained_bytes = bytes;
        self
    }

    /// How long an open or a write waits while another process has the file locked, before it is
    /// [`Unavailable`](coredinator_core::StoreError::Unavailable). Default: 10 seconds.
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// How many pages (of 4 KiB) the file may grow to; beyond, writes that need more are
    /// [`Unavailable`](coredinator_core::StoreError::Unavailable) as on a full disk. Default: no bound.
    #[must_use]
    pub fn max_pages(mut self, pages: u32) -> Self {
        self.max_pages = Some(pages);
        self
    }

    /// How many changes, and bytes of them, are held in memory for watchers that keep up; those who are further behind
    /// read the file. Default: 1024 changes, 8 MiB.
    #[must_use]
    pub fn watch_buffer(mut self, changes: usize, bytes: usize) -> Self {
        self.tail_changes = changes;
        self.tail_bytes = bytes;
        self
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            retained_revisions: DEFAULT_RETAINED_REVISIONS,
            retained_bytes: DEFAULT_RETAINED_BYTES,
            lock_wait: Duration::from_secs(10),
            max_pages: None,
            tail_changes: 1024,
            tail_bytes: 8 << 20,
        }
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("retained_revisions", &self.retained_revisions)
            .field("retained_bytes", &self.retained_bytes)
            .field("lock_wait", &self.lock_wait)
            .field("max_pages", &self.max_pages)
            .finish_non_exhaustive()
    }
}
