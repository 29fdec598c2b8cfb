//! What readers see: one immutable snapshot per service, replaced whole when something about it changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coredinator_core::{
    ConfigAck, ConfigRollout, Exit, HealthStatus, InstanceRecord, InstanceState, Intent, Reason, Revision, ServiceName,
    ServiceRecord, ServiceStatus, Timestamp,
};

use super::{
    record::Written,
    status::{self, Verdict},
};
use crate::health::CheckCell;

/// A service as it stands: what was declared, what is observed, and what follows.
///
/// A snapshot: it does not change, but for the cells of its checks, which always tell the newest result.
#[derive(Debug, Clone)]
pub struct ServiceView {
    /// What was declared.
    pub record: Arc<ServiceRecord>,
    /// The store's revision of the declaration.
    pub revision: Revision,
    /// What was asked of it by commands.
    pub intent: Arc<Intent>,
    /// The store's revision of the intent, if anything was ever asked.
    pub(super) intent_at: Option<Revision>,
    /// The service in one word.
    pub status: ServiceStatus,
    /// Why that is its status.
    pub reason: Reason,
    /// Since when that is its status.
    pub since: Timestamp,
    /// Its replicas, in order. Empty for an external service.
    pub instances: Vec<InstanceView>,
    /// By which writes the supervisor's records of it stand in the store.
    pub written: Arc<Written>,
    /// What the check of an external service says.
    pub check: Option<Arc<CheckCell>>,
    /// What instances said last of their configuration documents, by replica. It may be an earlier life's word.
    pub acks: Arc<BTreeMap<u32, ConfigAck>>,
    /// How far the service's configuration document has come.
    pub rollout: Arc<ConfigRollout>,
    /// Rises with every change of this snapshot; comparable across services.
    pub index: u64,
}

/// One replica of a service, with its health.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// What the supervisor wrote.
    pub record: Arc<InstanceRecord>,
    /// Its health check, while it runs and the service has one.
    pub health: Option<Arc<CheckCell>>,
    /// Its readiness check, while it runs and the service has one.
    pub readiness: Option<Arc<CheckCell>>,
    /// What health says about it; `None` while it does not run.
    pub status: Option<HealthStatus>,
    /// Whether it is in discovery.
    pub ready: bool,
}

/// Where a ready instance (or a healthy external service) is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The instance; `None` for an external service.
    pub instance: Option<coredinator_core::InstanceId>,
    /// The host name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl InstanceView {
    pub(super) fn new(
        record: Arc<InstanceRecord>,
        health: Option<Arc<CheckCell>>,
        readiness: Option<Arc<CheckCell>>,
    ) -> Self {
        let mut view = Self { record, health, readiness, status: None, ready: false };
        view.judge();
        view
    }

    /// Reads the cells anew.
    pub(super) fn judge(&mut self) {
        let running = self.record.state == InstanceState::Running;
        let verdict = self.verdict();
        self.status = running.then(|| verdict.status());
        self.ready = running && verdict.is_ready();
    }

    fn verdict(&self) -> Verdict {
        let status = |cell: &Option<Arc<CheckCell>>| cell.as_ref().map(|cell| cell.status());
        Verdict { health: status(&self.health), readiness: status(&self.readiness) }
    }

    /// What its checks last said, in their words; of the worse one, if they differ.
    fn words(&self) -> String {
        [&self.health, &self.readiness]
            .into_iter()
            .flatten()
            .max_by_key(|cell| cell.status())
            .map(|cell| cell.snapshot().message)
            .unwrap_or_default()
    }

    /// How its last life ended.
    #[must_use]
    pub fn last_exit(&self) -> Option<&Exit> {
        self.record.last_exit.as_ref()
    }
}

impl ServiceView {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.record.spec.name
    }

    /// How many instances should run: what the spec says, or a scaling by hand; 0 while stopped.
    #[must_use]
    pub fn wanted_replicas(&self) -> u32 {
        status::wanted_replicas(&self.record, &self.intent)
    }

    /// How many instances are declared, whether or not the service is stopped.
    #[must_use]
    pub fn declared_replicas(&self) -> u32 {
        self.intent.replicas.unwrap_or(self.record.spec.replicas)
    }

    /// Where requests to it can go now.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        if self.record.spec.is_managed() {
            let ready = self.instances.iter().filter(|instance| instance.ready);
            return ready
                .map(|i| Endpoint { instance: i.record.id.clone(), host: i.record.host.clone(), port: i.record.port })
                .collect();
        }
        let spec = &self.record.spec;
        let up = matches!(self.status, ServiceStatus::Healthy | ServiceStatus::Degraded);
        let here = Endpoint { instance: None, host: spec.host.clone(), port: spec.port };
        if up { vec![here] } else { vec![] }
    }

    /// All of its checks.
    pub fn checks(&self) -> impl Iterator<Item = &Arc<CheckCell>> {
        let of_instances = self.instances.iter().flat_map(|i| i.health.iter().chain(&i.readiness));
        self.check.iter().chain(of_instances)
    }

    /// When any of its checks was last made.
    #[must_use]
    pub fn last_check(&self) -> Option<Timestamp> {
        self.checks().filter_map(|cell| cell.snapshot().last_check).max()
    }

    /// How long its slowest check last took to answer.
    #[must_use]
    pub fn response_time(&self) -> Option<Duration> {
        self.checks().filter_map(|cell| cell.snapshot().response_time).max()
    }

    /// When the first of its replicas that wait will be started.
    #[must_use]
    pub fn next_restart_at(&self) -> Option<Timestamp> {
        self.instances.iter().filter_map(|instance| instance.record.next_restart_at).min()
    }

    /// The same snapshot with what its checks say at this moment.
    #[must_use]
    pub fn refreshed(&self) -> Self {
        let mut fresh = self.clone();
        fresh.instances.iter_mut().for_each(InstanceView::judge);
        (fresh.status, fresh.reason) = fresh.derive();
        fresh
    }

    /// Its status, as it follows from the rest.
    pub(super) fn derive(&self) -> (ServiceStatus, Reason) {
        if self.record.spec.is_managed() {
            let instances = self.instances.iter().map(|i| (i.record.as_ref(), i.verdict(), i.words()));
            return status::managed(&self.record, &self.intent, instances);
        }
        match &self.check {
            Some(cell) => status::external(cell.status(), &cell.snapshot().message),
            None => (ServiceStatus::Unknown, Reason::new("NoCheck", "it has no health check")),
        }
    }
}
