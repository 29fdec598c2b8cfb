//! What the supervisor writes.

use std::collections::BTreeMap;

use coredinator_core::{Batch, ConfigRollout, InstanceRecord, Precondition, Revision, ServiceName, StoreError};

use super::{NewEvent, Registry, RegistryError, keys, write::json};
use crate::leadership::Grant;

/// What the supervisor did or is about to do with instances of a service.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// The records of these.
    pub instances: Vec<InstanceRecord>,
    /// The replicas whose records are taken away.
    pub gone: Vec<u32>,
    /// How the records stand in the store as far as the writer knows. `None`: nobody else can have written.
    pub written: Option<Written>,
    /// How far the service's configuration document has come, where that has changed.
    pub rollout: Option<ConfigRollout>,
    /// What is told of it.
    pub events: Vec<NewEvent>,
}

/// By which writes the supervisor's records of a service stand in the store; what is missing has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Those of replicas, of those that cannot be read, too.
    pub instances: BTreeMap<u32, Revision>,
    /// That of how far its configuration document has come.
    pub rollout: Option<Revision>,
}

impl Registry {
    /// Stores what the supervisor did or is about to do with instances of `service`, all in one write under what it acts by.
    /// Durable when it returns; readers see it a moment later.
    ///
    /// # Errors
    /// The store's; [`StoreError::Fenced`] when this replica may not act any more, [`StoreError::Conflict`] when somebody else
    /// has written of one of the replicas meanwhile.
    pub async fn record(
        &self,
        service: &ServiceName,
        recording: Recording,
        grant: Option<&Grant>,
    ) -> Result<Revision, StoreError> {
        let Recording { instances, gone, written, rollout, events } = recording;
        let as_known = |at: &dyn Fn(&Written) -> Option<Revision>| match &written {
            Some(written) => at(written).map_or(Precondition::Absent, Precondition::At),
            None => Precondition::Any,
        };
        let instance_as_known = |replica: u32| as_known(&|written| written.instances.get(&replica).copied());
        let mut batch = under(grant);
        for record in &instances {
            batch =
                batch.put(keys::instance(service, record.replica), json(record)?, instance_as_known(record.replica));
        }
        for replica in gone {
            batch = batch.delete(keys::instance(service, replica), instance_as_known(replica));
            batch = batch.delete(keys::ack(service, replica), Precondition::Any);
        }
        if let Some(rollout) = rollout {
            batch = batch.put(keys::rollout(service), json(&rollout)?, as_known(&|written| written.rollout));
        }
        for event in events {
            batch = self.put_event(batch, event)?;
        }
        self.shared.store.write(batch).await
    }

    /// The record of a replica as the store has it at this moment; `None`: there is none.
    ///
    /// # Errors
    /// The store's.
    pub async fn recorded(&self, service: &ServiceName, replica: u32) -> Result<Option<InstanceRecord>, StoreError> {
        let record = self.shared.store.get(&keys::instance(service, replica)).await?;
        let read = |value: &[u8]| {
            serde_json::from_slice(value)
                .map_err(|error| StoreError::Unusable(format!("a record cannot be read: {error}")))
        };
        record.map(|record| read(&record.value)).transpose()
    }

    /// Removes the last of a managed service that was deregistered, now that none of its instances is left. One that has
    /// been declared again meanwhile stays.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_service(&self, service: &ServiceName, grant: Option<&Grant>) -> Result<(), RegistryError> {
        let _deciding = self.shared.deciding.write().await;
        let Some(view) = self.shared.service(service.as_str()).filter(|view| view.record.deleting) else {
            return Ok(());
        };
        let mut batch = under(grant).delete(keys::service(service), Precondition::At(view.revision));
        batch = batch.delete(keys::intent(service), Precondition::Any);
        batch = batch.delete(keys::rollout(service), Precondition::Any);
        batch = batch.delete(keys::health(service), Precondition::Any);
        for &replica in view.written.instances.keys() {
            batch = batch.delete(keys::instance(service, replica), Precondition::Any);
        }
        for replica in view.acks.keys() {
            batch = batch.delete(keys::ack(service, *replica), Precondition::Any);
        }
        let batch = self.put_event(batch, NewEvent::normal(service, "Deregistered", "deregistered"))?;
        self.commit(batch).await
    }
}

/// A batch that is only carried out as long as `grant` is in force.
fn under(grant: Option<&Grant>) -> Batch {
    Batch { fence: grant.and_then(Grant::fence).cloned(), ..Batch::new() }
}
