//! What a batch or a lease operation leads to: pure functions of the state, shared by all back ends.

use std::{collections::HashSet, time::Duration};

use coredinator_core::{
    Batch, Change, Epoch, Key, Lease, LeaseOperation, Precondition, Revision, StoreError, Timestamp,
};

use super::{MAX_BATCH_BYTES, MAX_VALUE_BYTES};

/// The part of a store's state that a verdict depends on.
pub(super) trait View {
    /// The revision of the newest write.
    fn revision(&self) -> Revision;
    /// What `key` was last changed by; `None`: absent.
    fn at(&self, key: &Key) -> Option<Revision>;
    /// The lease of this name, if there ever was one.
    fn lease(&self, name: &str) -> Option<&Lease>;
}

/// Whether a batch is one that a store takes, whatever its state.
pub(super) fn validate(batch: &Batch) -> Result<(), StoreError> {
    let mut total = 0_usize;
    // Hashing is for large batches; nearly all name one or two keys.
    let mut seen = HashSet::new();
    for (position, operation) in batch.operations.iter().enumerate() {
        let key = &operation.key;
        let twice = if batch.operations.len() <= 8 {
            batch.operations[..position].iter().any(|other| other.key == *key)
        } else {
            !seen.insert(key)
        };
        if twice {
            return Err(StoreError::Invalid(format!("a batch names each key once, but this one names {key} twice")));
        }
        let size = operation.value.as_ref().map_or(0, Vec::len);
        if size > MAX_VALUE_BYTES {
            return Err(StoreError::Invalid(format!(
                "a value has at most {MAX_VALUE_BYTES} bytes, but that of {key} has {size}"
            )));
        }
        total = total.saturating_add(size);
    }
    if total > MAX_BATCH_BYTES {
        return Err(StoreError::Invalid(format!(
            "the values of a batch have at most {MAX_BATCH_BYTES} bytes together, but these have {total}"
        )));
    }
    Ok(())
}

/// What a valid batch changes; `None`: nothing. Nothing is applied here.
pub(super) fn batch(view: &impl View, batch: Batch) -> Result<Option<Change>, StoreError> {
    if let Some(fence) = batch.fence {
        let current = view.lease(&fence.lease).map_or(Epoch::ZERO, |lease| lease.epoch);
        if current != fence.epoch {
            return Err(StoreError::Fenced { lease: fence.lease, given: fence.epoch, current });
        }
    }
    for operation in &batch.operations {
        let found = view.at(&operation.key);
        let holds = match operation.precondition {
            Precondition::Any => true,
            Precondition::Absent => found.is_none(),
            Precondition::At(revision) => found == Some(revision),
        };
        if !holds {
            return Err(StoreError::Conflict { key: operation.key.clone(), found });
        }
    }
    let entries: Vec<_> = batch
        .operations
        .into_iter()
        .filter(|operation| operation.value.is_some() || view.at(&operation.key).is_some())
        .map(|operation| (operation.key, operation.value))
        .collect();
    Ok((!entries.is_empty()).then(|| Change { revision: view.revision().next(), entries }))
}

/// What a lease becomes. Nothing is applied here.
pub(super) fn lease(
    current: Option<&Lease>,
    name: &str,
    holder: &str,
    operation: LeaseOperation,
    now: Timestamp,
) -> Result<Lease, StoreError> {
    let epoch = current.map_or(Epoch::ZERO, |lease| lease.epoch);
    let holding = current.filter(|lease| lease.holder.is_some() && lease.expires_at > now);
    let held = |epoch, ttl| Lease {
        name: name.to_owned(),
        holder: Some(holder.to_owned()),
        epoch,
        expires_at: after(now, ttl),
    };
    let fenced = |given| StoreError::Fenced { lease: name.to_owned(), given, current: epoch };
    let as_it_stands = || {
        let never = Lease { name: name.to_owned(), holder: None, epoch, expires_at: whole_micros(now) };
        current.cloned().unwrap_or(never)
    };
    match operation {
        LeaseOperation::Inspect => return Ok(as_it_stands()),
        LeaseOperation::Take { epoch: seen, expires_at, above, ttl } => {
            let stands =
                current.map_or(seen == Epoch::ZERO, |lease| lease.epoch == seen && lease.expires_at == expires_at);
            return if stands {
                Ok(held(epoch.max(above).next(), ttl))
            } else {
                Err(StoreError::LeaseHeld(as_it_stands()))
            };
        }
        _ => {}
    }
    if let Some(other) = holding.filter(|lease| lease.holder.as_deref() != Some(holder)) {
        return match operation {
            LeaseOperation::Renew { epoch: given, .. } | LeaseOperation::Release { epoch: given } if given != epoch => {
                Err(fenced(given))
            }
            _ => Err(StoreError::LeaseHeld(other.clone())),
        };
    }
    match operation {
        LeaseOperation::Acquire { ttl } => Ok(held(if holding.is_some() { epoch } else { epoch.next() }, ttl)),
        LeaseOperation::Renew { epoch: given, ttl } if given == epoch && holding.is_some() => Ok(held(epoch, ttl)),
        LeaseOperation::Release { epoch: given } if given == epoch && current.is_some() => {
            Ok(Lease { name: name.to_owned(), holder: None, epoch, expires_at: whole_micros(now) })
        }
        LeaseOperation::Renew { epoch: given, .. } | LeaseOperation::Release { epoch: given } => Err(fenced(given)),
        LeaseOperation::Inspect | LeaseOperation::Take { .. } => Ok(as_it_stands()),
    }
}

fn after(now: Timestamp, ttl: Duration) -> Timestamp {
    now.checked_add(ttl).map_or(Timestamp::MAX, whole_micros)
}

/// Leases count in microseconds, so that every back end can store what it answers.
fn whole_micros(stamp: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(stamp.as_microsecond()).unwrap_or(Timestamp::MAX)
}
