//! How a new revision of a service's configuration document comes to its instances: one at a time, behind the health gate,
//! and back again when it fails. Pure.
//!
//! Level-triggered, like the life of replicas: [`decide`] compares what is wanted with what instances were given, and
//! answers the next step. What is known for good ([`ConfigRollout`]) and what each instance was given (its record) are
//! stored, so that a coredinator that is started anew goes on where the last one ended; from when on an instance has been
//! watched is not, so it gets its whole time again.

use std::time::Duration;

use coredinator_core::{
    ConfigAction, ConfigRollout, HealthStatus, InstanceId, InstanceState, RejectedConfig, ServiceRecord, Timestamp,
};

use crate::slot::{Now, Slot};

/// What is known of an instance beyond its record.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sight {
    /// What its health check says; `None`: it has none.
    pub(crate) health: Option<HealthStatus>,
    /// Whether it is in discovery.
    pub(crate) ready: bool,
    /// The revision it acknowledged in this life; 0: none.
    pub(crate) acknowledged: u64,
    /// When it was last checked.
    pub(crate) checked_at: Option<Timestamp>,
    /// Whether its last check failed, which need not have made it unhealthy yet.
    pub(crate) failing: bool,
}

/// The next step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConfigStep {
    /// Give the instance its document, and do what the service declares.
    Deliver { replica: u32, id: InstanceId, revision: u64 },
    /// Replace the instance: the new one starts with its document.
    Replace { replica: u32 },
    /// Have the instance checked: its last answer is older than what it was given.
    Check { replica: u32, id: InstanceId },
}

/// What became known for good.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConfigNews {
    /// Every instance is well with the revision.
    Stable(u64),
    /// The revision failed, and this is why.
    Rejected(RejectedConfig),
}

/// What follows from how things stand.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Decision {
    pub(crate) step: Option<ConfigStep>,
    pub(crate) news: Option<ConfigNews>,
    /// When to decide again if nothing else happens.
    pub(crate) due: Option<std::time::Instant>,
}

/// The revision that instances should have; 0: none.
pub(crate) fn target(record: &ServiceRecord, rollout: &ConfigRollout) -> u64 {
    let rejected = rollout.rejected.as_ref().is_some_and(|rejected| rejected.revision == record.config_revision);
    match record.config {
        None => 0,
        Some(_) if rejected && rollout.stable > 0 => rollout.stable,
        Some(_) => record.config_revision,
    }
}

/// How an instance does with what it was given.
#[derive(Debug, Clone, PartialEq)]
enum Standing {
    /// It does not run, or waits for something else.
    Away,
    /// It was given something else.
    Other,
    /// It is not known yet.
    Open { until: Option<std::time::Instant>, check: bool },
    /// It is well.
    Well,
    /// It is not.
    Failed(String),
}

/// Decides. `sight` answers for instances that run; `may_replace`, whether an instance may be disturbed now.
pub(crate) fn decide(
    record: &ServiceRecord,
    rollout: &ConfigRollout,
    slots: &[&Slot],
    wanted: u32,
    now: Now,
    sight: &dyn Fn(&InstanceId) -> Sight,
    may_replace: &dyn Fn(u32) -> bool,
) -> Decision {
    let target = target(record, rollout);
    let change = &record.spec.config.change;
    let mut decision = Decision::default();
    let slots: Vec<&&Slot> = slots.iter().filter(|slot| slot.record.replica < wanted).collect();
    let standings: Vec<Standing> = slots.iter().map(|slot| standing(slot, record, target, now, sight)).collect();
    if target == 0 {
        // What has no document any more loses it with its life: its file is named to it for as long as it lives.
        let given = slots.iter().find(|slot| gives(slot, record) && slot.record.config_revision != 0);
        let replica = given.map(|slot| slot.record.replica).filter(|replica| may_replace(*replica));
        if change.action != ConfigAction::None {
            decision.step = replica.map(|replica| ConfigStep::Replace { replica });
        }
        return decision;
    }
    let candidate = target != rollout.stable;
    let failed = standings.iter().find_map(|standing| match standing {
        Standing::Failed(reason) => Some(reason.clone()),
        _ => None,
    });
    if candidate && let Some(reason) = &failed {
        let again = rollout.rejected.as_ref().is_some_and(|rejected| rejected.revision == target);
        if !again {
            let rejected = RejectedConfig { revision: target, reason: reason.clone(), at: now.wall };
            decision.news = Some(ConfigNews::Rejected(rejected));
        }
        // Where there is nothing to go back to, no further instance is given it.
        return decision;
    }
    let well = standings.iter().filter(|standing| **standing == Standing::Well).count();
    if candidate && well > 0 && well == wanted as usize {
        decision.news = Some(ConfigNews::Stable(target));
        return decision;
    }
    for (slot, standing) in slots.iter().zip(&standings) {
        if let Standing::Open { until, check } = standing {
            decision.due = decision.due.into_iter().chain(*until).min();
            if *check && decision.step.is_none() && !slot.config_busy {
                let id = slot.record.id.clone();
                decision.step = id.map(|id| ConfigStep::Check { replica: slot.record.replica, id });
            }
        }
    }
    // One at a time: while it is open how one does with it, no other is given it.
    if standings.iter().any(|standing| matches!(standing, Standing::Open { .. }))
        || slots.iter().any(|slot| slot.config_busy)
    {
        return decision;
    }
    let next = slots.iter().zip(&standings).find(|(slot, standing)| {
        **standing == Standing::Other && gives(slot, record) && may_replace(slot.record.replica)
    });
    decision.step = next.and_then(|(slot, _)| {
        let replica = slot.record.replica;
        // One that was started without a document has no file to look into.
        let tell = slot.record.config_revision != 0 && change.action != ConfigAction::Restart;
        match (tell, change.action) {
            (false, ConfigAction::None) => None,
            (false, _) => Some(ConfigStep::Replace { replica }),
            (true, _) => slot.record.id.clone().map(|id| ConfigStep::Deliver { replica, id, revision: target }),
        }
    });
    decision
}

/// Whether an instance can be given anything: it runs, and is not replaced for another reason.
fn gives(slot: &Slot, record: &ServiceRecord) -> bool {
    slot.record.state == InstanceState::Running && !slot.busy && slot.record.generation >= record.runs_since
}

fn standing(
    slot: &Slot,
    record: &ServiceRecord,
    target: u64,
    now: Now,
    sight: &dyn Fn(&InstanceId) -> Sight,
) -> Standing {
    let change = &record.spec.config.change;
    let given = slot.record.config_revision == target;
    match slot.record.state {
        InstanceState::Completed if given => return Standing::Well,
        // Whether nobody could try says nothing about the document.
        InstanceState::Backoff | InstanceState::Failed if given && !slot.same_id => {
            return Standing::Failed(format!("replica {}: {}", slot.record.replica, slot.record.reason.message));
        }
        InstanceState::Starting if given => {
            return timed(slot, change.timeout, now, "has not started")
                .unwrap_or(Standing::Open { until: due(slot.config_since, change.timeout), check: false });
        }
        InstanceState::Running => {}
        _ => return Standing::Away,
    }
    if let Some(failure) = &slot.config_failure {
        // What was to be given to it and could not be.
        if failure.0 == target {
            return Standing::Failed(format!("replica {}: {}", slot.record.replica, failure.1));
        }
    }
    if slot.config_busy && given && slot.record.config_at.is_none() {
        return Standing::Open { until: due(slot.config_since, change.timeout), check: false };
    }
    // Without a time it was to be given it, and nobody saw it happen.
    if !given || slot.record.config_at.is_none() {
        return Standing::Other;
    }
    if slot.config_well == target {
        return Standing::Well;
    }
    let Some(id) = &slot.record.id else { return Standing::Away };
    let Sight { health, ready, acknowledged, checked_at, failing } = sight(id);
    if health == Some(HealthStatus::Unhealthy) {
        return Standing::Failed(format!("replica {} is unhealthy", slot.record.replica));
    }
    let acknowledges = acknowledged == target;
    let settled_at = if acknowledges { slot.config_since } else { due(slot.config_since, change.settle) };
    let settled = acknowledges || (!change.acknowledge && settled_at.is_none_or(|at| at <= now.mono));
    let fresh = health.is_none() || checked_at.zip(slot.record.config_at).is_none_or(|(at, given)| at >= given);
    if settled && ready && fresh && !failing && (health.is_none() || checked_at.is_some()) {
        return Standing::Well;
    }
    let late = if change.acknowledge && !acknowledges { "has not acknowledged it" } else { "is not ready with it" };
    let until = due(slot.config_since, change.timeout);
    let until = until.into_iter().chain(settled_at.filter(|at| *at > now.mono)).min();
    timed(slot, change.timeout, now, late).unwrap_or(Standing::Open { until, check: settled && !fresh })
}

fn due(since: Option<std::time::Instant>, after: Duration) -> Option<std::time::Instant> {
    since.and_then(|since| since.checked_add(after))
}

/// A failure, once the time is over.
fn timed(slot: &Slot, timeout: Duration, now: Now, what: &str) -> Option<Standing> {
    let over = due(slot.config_since, timeout).is_some_and(|end| end <= now.mono);
    over.then(|| Standing::Failed(format!("replica {} {what} within {timeout:?}", slot.record.replica)))
}

/// Which replicas are well with the target now: noted, so that what happens to one much later is not the revision's fault.
pub(crate) fn well(
    record: &ServiceRecord,
    rollout: &ConfigRollout,
    slots: &[&Slot],
    now: Now,
    sight: &dyn Fn(&InstanceId) -> Sight,
) -> Vec<u32> {
    let target = target(record, rollout);
    let newly = slots.iter().filter(|slot| target != 0 && slot.config_well != target);
    let newly = newly.filter(|slot| standing(slot, record, target, now, sight) == Standing::Well);
    newly.map(|slot| slot.record.replica).collect()
}

#[cfg(test)]
mod tests;
