//! Whether what a service depends on is there. Pure.

use std::sync::Arc;

use coredinator_core::{DependencyCondition, InstanceState, Reason, ServiceName, ServiceSpec, ServiceStatus};
use coredinator_registry::ServiceView;

/// Whether instances of a service may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They may.
    Open,
    /// They wait, and this is what for.
    Waiting(Reason),
}

/// Judges every dependency of `spec`; the first that does not hold speaks.
pub(crate) fn judge(spec: &ServiceSpec, lookup: impl Fn(&ServiceName) -> Option<Arc<ServiceView>>) -> Gate {
    for (name, dependency) in &spec.depends_on {
        let view = lookup(name).filter(|view| !view.record.deleting);
        let Some(view) = view else {
            if dependency.required {
                return Gate::Waiting(Reason::new(
                    "DependencyMissing",
                    format!("waits for {name}, which does not exist"),
                ));
            }
            continue;
        };
        if holds(&view, dependency.condition) || (!dependency.required && view.status == ServiceStatus::Failed) {
            continue;
        }
        let wanted = match dependency.condition {
            DependencyCondition::ServiceStarted => "be started",
            DependencyCondition::ServiceHealthy => "be healthy",
            DependencyCondition::ServiceCompletedSuccessfully => "complete",
        };
        let message = format!("waits for {name} to {wanted}; it is {}", view.status);
        return Gate::Waiting(Reason::new("WaitingForDependency", message));
    }
    Gate::Open
}

fn holds(view: &ServiceView, condition: DependencyCondition) -> bool {
    let managed = view.record.spec.is_managed();
    match condition {
        // Nobody here starts an external service; that it is declared has to do.
        DependencyCondition::ServiceStarted if !managed => true,
        DependencyCondition::ServiceStarted => {
            let wanted = view.wanted_replicas();
            let begun = |state| matches!(state, InstanceState::Running | InstanceState::Completed);
            let started = view.instances.iter().filter(|i| i.record.replica < wanted && begun(i.record.state)).count();
            wanted > 0 && started as u64 == u64::from(wanted)
        }
        DependencyCondition::ServiceHealthy => view.status == ServiceStatus::Healthy,
        DependencyCondition::ServiceCompletedSuccessfully => view.status == ServiceStatus::Completed,
    }
}
