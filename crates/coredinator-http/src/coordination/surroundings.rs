//! What the engine is told of the world: services from the registry, the machine from the system.

use coredinator_coord::{HostView, LeadView, ServiceView};
use coredinator_core::{Epoch, ServiceName, ServiceStatus};
use coredinator_registry::{
    Registry,
    leadership::{Place, Post},
};
use futures_util::stream::{self, BoxStream};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Services as the registry knows them.
#[derive(Clone)]
pub(crate) struct Services(pub(crate) Registry);

impl ServiceView for Services {
    fn usable(&self, service: &ServiceName) -> bool {
        self.trouble(service).is_none()
    }

    fn trouble(&self, service: &ServiceName) -> Option<String> {
        match self.0.service(service.as_str()) {
            Ok(view) => trouble(view.status).map(str::to_owned),
            Err(_) => Some("does not exist".to_owned()),
        }
    }
}

/// Why what lives in a service of this status cannot act. One that is not known to be well may still: its agent speaks for
/// itself.
fn trouble(status: ServiceStatus) -> Option<&'static str> {
    match status {
        ServiceStatus::Healthy | ServiceStatus::Degraded | ServiceStatus::Starting | ServiceStatus::Unknown => None,
        ServiceStatus::Unhealthy => Some("is unhealthy"),
        ServiceStatus::Backoff => Some("waits to be started again"),
        ServiceStatus::Stopped => Some("is stopped"),
        ServiceStatus::Completed => Some("has completed"),
        ServiceStatus::Failed => Some("has failed"),
    }
}

/// How much this machine has, read once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    cpus: f64,
    memory_bytes: f64,
}

impl Machine {
    /// This machine; 0 of what it does not tell.
    pub(crate) fn here() -> Self {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        match System::new_with_specifics(what) {
            Ok(system) => Self { cpus: system.cpus().len() as f64, memory_bytes: system.total_memory() as f64 },
            Err(_) => Self { cpus: 0.0, memory_bytes: 0.0 },
        }
    }
}

impl HostView for Machine {
    fn cpus(&self) -> f64 {
        self.cpus
    }

    fn memory_bytes(&self) -> f64 {
        self.memory_bytes
    }
}

/// Leads the agents while this replica leads.
pub(crate) struct Lead(pub(crate) Place);

impl LeadView for Lead {
    fn lease(&self) -> Option<&str> {
        Some(coredinator_registry::leadership::LEADER)
    }

    fn leading(&self) -> Result<Epoch, String> {
        let tenure = self.0.tenure(Post::Leader);
        tenure.grant().map(|grant| grant.epoch()).ok_or_else(|| match self.0.standing().leader {
            Some(node) => format!("node {node} leads"),
            None => tenure.why_not(),
        })
    }

    fn doubt(&self) {
        self.0.tenure(Post::Leader).doubt();
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let changes = self.0.tenure(Post::Leader).changes();
        Box::pin(stream::unfold(changes, |mut changes| async {
            changes.changed().await;
            Some(((), changes))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::here();
        assert!(machine.cpus() >= 1.0 && machine.memory_bytes() >= 1e6, "{machine:?}");
    }

    #[test]
    fn only_what_is_down_or_ill_cannot_act() {
        use ServiceStatus as S;
        let able: Vec<S> = S::ALL.into_iter().filter(|&status| trouble(status).is_none()).collect();
        assert_eq!(able, [S::Healthy, S::Degraded, S::Starting, S::Unknown]);
        assert_eq!(trouble(S::Stopped), Some("is stopped"));
    }
}
