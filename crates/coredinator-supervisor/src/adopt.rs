//! Which running instances belong to which records, when coredinator starts. Pure.

use std::collections::BTreeMap;

use coredinator_core::{InstanceRecord, InstanceRef, ServiceName, Started};

/// What to do with the instances that a runtime found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Adoption {
    /// To be supervised on, by service and replica.
    pub(crate) adopt: BTreeMap<(ServiceName, u32), Started>,
    /// To be ended: of services that are gone, or second ones of a replica.
    pub(crate) end: Vec<InstanceRef>,
}

/// Matches what was found with the records: what carries the id of its replica's record goes on, all else is ended. Every
/// start is recorded before it is made, so what is in no record was given up, or belongs to a service that is gone.
pub(crate) fn plan(found: Vec<Started>, records: &BTreeMap<(ServiceName, u32), InstanceRecord>) -> Adoption {
    let mut plan = Adoption::default();
    for started in found {
        let place = (started.instance.service.clone(), started.instance.replica);
        let recorded = records.get(&place).and_then(|record| record.id.as_ref());
        if recorded == Some(&started.instance.id) {
            if let Some(second) = plan.adopt.insert(place, started) {
                plan.end.push(second.instance);
            }
        } else {
            plan.end.push(started.instance);
        }
    }
    plan
}
