//! What the runtime is told when it is made.

use std::{ops::RangeInclusive, path::PathBuf, sync::Arc};

use coredinator_core::{SharedClock, SystemClock};

/// What a [`ProcessRuntime`](crate::ProcessRuntime) needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessRuntimeOptions {
    /// Where the output of instances is kept: `<log_dir>/<service>/<replica>.{stdout,stderr}.log`. Made when needed.
    pub log_dir: PathBuf,
    /// Who starts these processes: unique per data directory and the same after every restart. Processes that carry another
    /// owner are never touched.
    pub owner: String,
    /// What an earlier version called the same owner: processes that carry it are found, and looked after, too.
    pub former_owner: Option<String>,
    /// Stamps starts, ends and lines of output.
    pub clock: SharedClock,
    /// Where ports for services with `port: 0` come from. The default, 20000 to 29999, lies below the range from which Linux
    /// takes the ports of outgoing connections, so that none of those can snatch a port before the service binds it. When
    /// it is used up, any other is taken.
    pub ports: RangeInclusive<u16>,
}

impl ProcessRuntimeOptions {
    /// The machine's clock and the default ports.
    pub fn new(log_dir: impl Into<PathBuf>, owner: impl Into<String>) -> Self {
        Self {
            log_dir: log_dir.into(),
            owner: owner.into(),
            former_owner: None,
            clock: Arc::new(SystemClock),
            ports: 20_000..=29_999,
        }
    }

    /// The same, and whatever carries this owner is looked after, too.
    #[must_use]
    pub fn with_former_owner(mut self, owner: impl Into<String>) -> Self {
        self.former_owner = Some(owner.into());
        self
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The same with other ports.
    #[must_use]
    pub fn with_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = ports;
        self
    }
}
