//! What the runtime is told when it is made.

use std::{ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

use coredinator_core::{SharedClock, SystemClock};

/// What a [`DockerRuntime`](crate::DockerRuntime) needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DockerRuntimeOptions {
    /// Who starts these containers: unique per data directory and the same after every restart. Containers that carry
    /// another owner are never touched.
    pub owner: String,
    /// An owner whose containers are these, too: what the same coredinator marked them with before. Nothing is started under it.
    pub former_owner: Option<String>,
    /// Where the engine is: `unix:///path`, `tcp://host:port`. `None`: as `DOCKER_HOST` says, else the default socket.
    pub host: Option<String>,
    /// Docker's folder of settings: the context in use and the credentials of registries. `None`: as `DOCKER_CONFIG` says, else
    /// `.docker` in the user's home.
    pub settings: Option<PathBuf>,
    /// A stream of events that was silent for so long is opened anew where it ended: a connection may be dead without a word.
    pub silence: Duration,
    /// Stamps ends of which the engine knows no time.
    pub clock: SharedClock,
    /// Where ports for services with `port: 0` and `network_mode: host` come from; all others are the engine's to allocate.
    /// The default, 30000 to 32767, lies below the range from which Linux takes the ports of outgoing connections.
    pub ports: RangeInclusive<u16>,
}

impl DockerRuntimeOptions {
    /// The machine's clock, and the engine that the environment names.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            former_owner: None,
            host: None,
            settings: None,
            silence: Duration::from_secs(60),
            clock: Arc::new(SystemClock),
            ports: 30_000..=32_767,
        }
    }

    /// The same with containers that were started under another owner.
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

    /// The same with the engine at `host`, whatever the environment says.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The same with Docker's settings in `folder`, whatever the environment says.
    #[must_use]
    pub fn with_settings(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings = Some(folder.into());
        self
    }

    /// The same with another [`silence`](Self::silence).
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }
}
