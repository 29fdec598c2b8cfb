//! What follows for a service as a whole from its record, its instances and their health. Pure.

use coredinator_core::{HealthStatus, InstanceRecord, InstanceState, Intent, Reason, ServiceRecord, ServiceStatus};

/// What health says about one running instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What the health check says; `None`: there is none, and running is enough.
    pub(super) health: Option<HealthStatus>,
    /// What the readiness check says; `None`: there is none.
    pub(super) readiness: Option<HealthStatus>,
}

impl Verdict {
    /// Both as one: the worse of the two.
    pub(super) fn status(self) -> HealthStatus {
        let health = self.health.unwrap_or(HealthStatus::Healthy);
        self.readiness.map_or(health, |readiness| health.max(readiness))
    }

    /// Whether an instance of which this is said belongs into discovery.
    pub(super) fn is_ready(self) -> bool {
        matches!(self.status(), HealthStatus::Healthy | HealthStatus::Degraded)
    }
}

/// How many instances should run.
pub(super) fn wanted_replicas(record: &ServiceRecord, intent: &Intent) -> u32 {
    if intent.stopped || record.deleting { 0 } else { intent.replicas.unwrap_or(record.spec.replicas) }
}

/// The status of an external service, by its one check.
pub(super) fn external(health: HealthStatus, message: &str) -> (ServiceStatus, Reason) {
    match health {
        HealthStatus::Healthy => (ServiceStatus::Healthy, Reason::new("Healthy", message)),
        HealthStatus::Degraded => (ServiceStatus::Degraded, Reason::new("Degraded", message)),
        HealthStatus::Unhealthy => (ServiceStatus::Unhealthy, Reason::new("Unhealthy", message)),
        HealthStatus::Unknown if message.is_empty() => {
            (ServiceStatus::Unknown, Reason::new("NeverChecked", "not checked yet"))
        }
        HealthStatus::Unknown => (ServiceStatus::Unknown, Reason::new("Unknown", message)),
    }
}

/// The status of a managed service. `instances` are in the order of their replicas, each with what health says of it (and
/// the words it used) while it runs.
pub(super) fn managed<'a>(
    record: &ServiceRecord,
    intent: &Intent,
    instances: impl Iterator<Item = (&'a InstanceRecord, Verdict, String)> + Clone,
) -> (ServiceStatus, Reason) {
    let wanted = wanted_replicas(record, intent);
    if wanted == 0 {
        return without_instances(record, intent, instances);
    }
    let slots = instances.filter(|(instance, ..)| instance.replica < wanted);
    let ready = slots.clone().filter(|(i, verdict, _)| i.state == InstanceState::Running && verdict.is_ready());
    let ready_count = u32::try_from(ready.clone().count()).unwrap_or(u32::MAX);
    let well = ready.filter(|(_, verdict, _)| verdict.status() == HealthStatus::Healthy).count();
    if ready_count == wanted && well as u64 == u64::from(wanted) {
        return (ServiceStatus::Healthy, Reason::new("Healthy", running(ready_count, wanted)));
    }
    // The slot that most needs telling speaks for the service. A replica without a record yet is on its way.
    let worst = slots
        .map(|(instance, verdict, words)| {
            let (rank, status) = rank(instance.state, verdict);
            let reason = match instance.state {
                InstanceState::Running if !words.is_empty() => {
                    let code = if verdict.status() == HealthStatus::Unknown { "NotReadyYet" } else { "Unhealthy" };
                    Reason::new(code, words)
                }
                _ => instance.reason.clone(),
            };
            (rank, status, reason)
        })
        .min_by_key(|(rank, ..)| *rank)
        .unwrap_or_else(|| (0, ServiceStatus::Starting, Reason::new("Pending", "not started yet")));
    if ready_count > 0 {
        let message = format!("{}; {}", running(ready_count, wanted), worst.2.message);
        return (ServiceStatus::Degraded, Reason::new(worst.2.code, message));
    }
    (worst.1, worst.2)
}

fn running(ready: u32, wanted: u32) -> String {
    if wanted == 1 { "1 instance ready".to_owned() } else { format!("{ready} of {wanted} instances ready") }
}

/// Which slot speaks for a service none of whose instances is ready, and what it then says. Lower speaks first.
fn rank(state: InstanceState, verdict: Verdict) -> (u8, ServiceStatus) {
    match state {
        InstanceState::Running => match verdict.status() {
            HealthStatus::Unhealthy => (0, ServiceStatus::Unhealthy),
            HealthStatus::Unknown => (1, ServiceStatus::Starting),
            HealthStatus::Degraded => (7, ServiceStatus::Degraded),
            HealthStatus::Healthy => (9, ServiceStatus::Healthy),
        },
        InstanceState::Starting => (2, ServiceStatus::Starting),
        InstanceState::Backoff => (3, ServiceStatus::Backoff),
        InstanceState::Failed => (4, ServiceStatus::Failed),
        InstanceState::Pending => (5, ServiceStatus::Starting),
        // It is wanted, so what stops is about to be replaced.
        InstanceState::Stopping | InstanceState::Stopped => (6, ServiceStatus::Starting),
        InstanceState::Completed => (8, ServiceStatus::Completed),
    }
}

fn without_instances<'a>(
    record: &ServiceRecord,
    intent: &Intent,
    mut instances: impl Iterator<Item = (&'a InstanceRecord, Verdict, String)>,
) -> (ServiceStatus, Reason) {
    if instances.any(|(instance, ..)| instance.state.is_live()) {
        return (ServiceStatus::Stopped, Reason::new("Stopping", "its instances are being stopped"));
    }
    let reason = if record.deleting {
        Reason::new("Deleting", "deregistered")
    } else if intent.stopped {
        Reason::new("StoppedByHand", "stopped by hand")
    } else {
        Reason::new("ScaledToZero", "scaled to 0")
    };
    (ServiceStatus::Stopped, reason)
}

#[cfg(test)]
mod tests {
    use coredinator_core::{Origin, RuntimeName, ServiceName, ServiceSpec, SpecDefaults, Timestamp};
    use serde_json::json;

    use super::*;

    fn record(replicas: u32) -> ServiceRecord {
        let document = json!({"name": "a", "runtime": "process", "command": "x", "replicas": replicas});
        ServiceRecord {
            spec: ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap(),
            generation: 1,
            runs_since: 1,
            origin: Origin::Api,
            node: None,
            created_at: Timestamp::UNIX_EPOCH,
            deleting: false,
            config: None,
            config_revision: 0,
        }
    }

    fn instance(replica: u32, state: InstanceState) -> InstanceRecord {
        InstanceRecord {
            service: ServiceName::new("a").unwrap(),
            replica,
            id: None,
            state,
            reason: Reason::new("Because", state.to_string()),
            since: Timestamp::UNIX_EPOCH,
            generation: 1,
            runtime: RuntimeName::new("process").unwrap(),
            node: None,
            handle: None,
            pid: None,
            host: String::new(),
            port: 0,
            started_at: None,
            restarts: 0,
            attempts: 0,
            restart_times: vec![],
            last_exit: None,
            next_restart_at: None,
            followed: 0,
            config_revision: 0,
            config_at: None,
        }
    }

    fn status(replicas: u32, intent: &Intent, slots: &[(InstanceState, Option<HealthStatus>)]) -> ServiceStatus {
        let records: Vec<_> = (0..).zip(slots).map(|(i, (state, _))| instance(i, *state)).collect();
        let all = records
            .iter()
            .zip(slots)
            .map(|(record, (_, health))| (record, Verdict { health: *health, readiness: None }, String::new()));
        managed(&record(replicas), intent, all).0
    }

    #[test]
    fn the_table_of_statuses() {
        use HealthStatus as H;
        use InstanceState as I;
        use ServiceStatus as S;
        let run = Intent::default();
        let stop = Intent { stopped: true, ..Intent::default() };
        for (replicas, intent, slots, expected) in [
            (1, &run, &[][..], S::Starting),
            (1, &run, &[(I::Pending, None)], S::Starting),
            (1, &run, &[(I::Starting, None)], S::Starting),
            (1, &run, &[(I::Running, None)], S::Healthy),
            (1, &run, &[(I::Running, Some(H::Unknown))], S::Starting),
            (1, &run, &[(I::Running, Some(H::Healthy))], S::Healthy),
            (1, &run, &[(I::Running, Some(H::Degraded))], S::Degraded),
            (1, &run, &[(I::Running, Some(H::Unhealthy))], S::Unhealthy),
            (1, &run, &[(I::Backoff, None)], S::Backoff),
            (1, &run, &[(I::Stopping, None)], S::Starting),
            (1, &run, &[(I::Completed, None)], S::Completed),
            (1, &run, &[(I::Failed, None)], S::Failed),
            (1, &stop, &[(I::Stopping, None)], S::Stopped),
            (1, &stop, &[(I::Stopped, None)], S::Stopped),
            (0, &run, &[], S::Stopped),
            (2, &run, &[(I::Running, None)], S::Degraded),
            (2, &run, &[(I::Running, None), (I::Backoff, None)], S::Degraded),
            (2, &run, &[(I::Running, None), (I::Running, Some(H::Unhealthy))], S::Degraded),
            (2, &run, &[(I::Backoff, None), (I::Running, Some(H::Unhealthy))], S::Unhealthy),
            (2, &run, &[(I::Completed, None), (I::Failed, None)], S::Failed),
            // An instance beyond what is wanted says nothing about the service.
            (1, &run, &[(I::Running, None), (I::Stopping, None)], S::Healthy),
        ] {
            assert_eq!(status(replicas, intent, slots), expected, "{replicas} {intent:?} {slots:?}");
        }
    }

    #[test]
    fn readiness_alone_takes_out_of_discovery() {
        let verdict = Verdict { health: Some(HealthStatus::Healthy), readiness: Some(HealthStatus::Unhealthy) };
        assert!(!verdict.is_ready());
        assert!(Verdict { health: None, readiness: None }.is_ready());
        assert!(!Verdict { health: Some(HealthStatus::Unknown), readiness: None }.is_ready());
    }
}
