//! What the runtime is told when it is made.

use std::{ops::RangeInclusive, sync::Arc};

use coredinator_core::{SharedClock, SystemClock};

/// What a [`DockerRuntime`](crate::DockerRuntime) needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DockerRuntimeOptions {
    /// Who starts these containers: unique per data directory and the same after every restart. Containers that carry
    /// another owner are never touched.
    pub owner: String,
    /// Where the engine is: `unix:///path`, `tcp://host:port`. `None`: as `DOCKER_HOST` says, else the default socket.
    pub host: Option<String>,
    /// Stamps ends of which the engine knows no time.
    pub clock: SharedClock,
    /// Where ports for services with `port: 0` and `network_mode: host` come from; all others are the engine's to allocate.
    /// The default, 30000 to 32767, lies below the range from which Linux takes the ports of outgoing connections.
    pub ports: RangeInclusive<u16>,
}

impl DockerRuntimeOptions {
    /// The machine's clock, and the engine that the environment names.
    pub fn new(owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), host: None, clock: Arc::new(SystemClock), ports: 30_000..=32_767 }
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The same with the engine at `host`, whatever the environment says.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }
}
