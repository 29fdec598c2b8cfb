//! Whether the kernel killed for want of memory.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::procfs;

/// Compares the kernel's count of out-of-memory kills with what it was when it was last looked at.
///
/// The count is the machine's, not one process's: a SIGKILL that nobody here sent, at a time when the count rose, is taken for
/// such a kill. It is looked at every second, so that an old kill is not held against a new exit.
#[derive(Debug)]
pub(crate) struct OomKills(AtomicU64);

impl OomKills {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(procfs::oom_kills().unwrap_or(0)))
    }

    /// Whether it rose since the last look.
    pub(crate) fn rose(&self) -> bool {
        procfs::oom_kills().is_some_and(|now| now > self.0.swap(now, Ordering::Relaxed))
    }
}
