//! Wall-clock time, injected so that tests own it.

use std::{fmt, sync::Arc};

/// An instant of wall-clock time, RFC 3339 in JSON.
pub type Timestamp = jiff::Timestamp;

/// Tells the wall-clock time. Scheduling does not use it: a clock may jump, backwards too.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A clock that is shared by whoever stamps.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
