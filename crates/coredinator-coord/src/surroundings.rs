//! What the engine needs to know of the world around it.

use coredinator_core::{Epoch, ServiceName};
use futures_util::stream::BoxStream;

/// Tells about services.
pub trait ServiceView: Send + Sync + 'static {
    /// Whether what lives in the service can act: it runs and is not unhealthy. A service that does not exist is not usable.
    /// Answered from memory, at once.
    fn usable(&self, service: &ServiceName) -> bool;

    /// Why what lives in the service cannot act, as a clause about the service: `is stopped`. `None`: it can.
    fn trouble(&self, service: &ServiceName) -> Option<String> {
        (!self.usable(service)).then(|| "cannot act".to_owned())
    }
}

/// A world in which every service is usable.
#[derive(Debug, Clone, Copy, Default)]
pub struct EveryService;

impl ServiceView for EveryService {
    fn usable(&self, _: &ServiceName) -> bool {
        true
    }
}

/// Tells how much the machine has, for the resources `system.cpu` and `system.memory`.
pub trait HostView: Send + Sync + 'static {
    /// How many logical CPUs there are.
    fn cpus(&self) -> f64;

    /// How much memory there is, in bytes.
    fn memory_bytes(&self) -> f64;
}

/// The machine as the standard library knows it: its CPUs, and no memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnknownHost;

impl HostView for UnknownHost {
    fn cpus(&self) -> f64 {
        std::thread::available_parallelism()
            .map_or(1.0, |cpus| f64::from(u32::try_from(cpus.get()).unwrap_or(u32::MAX)))
    }

    fn memory_bytes(&self) -> f64 {
        0.0
    }
}

/// Tells whether this coredinator leads, and so decides for the agents. Who leads is not this crate's to decide.
pub trait LeadView: Send + Sync + 'static {
    /// The lease by which it leads: everything is written under it. `None`: nobody else could write.
    fn lease(&self) -> Option<&str>;

    /// The epoch under which it leads at this moment, 1 or more; it is above that of every leader before. Else why it does not
    /// lead, for people. Answered from memory, at once, and never late: before another leads, this no longer says so.
    ///
    /// # Errors
    /// Why it does not lead.
    fn leading(&self) -> Result<Epoch, String>;

    /// The store has refused a write under the lease: another may lead.
    fn doubt(&self);

    /// Tells, again and again, that [`leading`](Self::leading) may answer otherwise than before. Never ends.
    fn changes(&self) -> BoxStream<'static, ()>;
}
