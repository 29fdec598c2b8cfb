//! The replicas of coredinator on one store: where each is reached, and whether it lives.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use coredinator_core::{
    Batch, Epoch, Key, Lease, LeaseOperation, NodeName, Precondition, Store, StoreError, Timestamp,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{LeaseTiming, keeper::now, tenure::Grant};

/// Where the records of replicas lie.
pub(super) const NODES: &str = "nodes/";

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The node that it runs on.
    pub node: NodeName,
    /// As whom it holds leases.
    pub holder: String,
    /// Where other replicas reach it, as `http://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its version.
    pub version: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// The epoch under which it leads, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads: Option<Epoch>,
}

/// How the lease of another node was seen.
#[derive(Debug, Clone)]
struct Look {
    lease: Lease,
    since: Instant,
    /// That it is lost was told.
    told: bool,
}

/// All replicas, as one of them knows them.
pub(super) struct Replicas {
    store: Arc<dyn Store>,
    me: NodeName,
    known: watch::Sender<Arc<BTreeMap<NodeName, Replica>>>,
    looks: Mutex<BTreeMap<NodeName, Look>>,
    /// Rises when a node is lost, or found again.
    turns: watch::Sender<u64>,
    timing: LeaseTiming,
}

pub(super) fn lease_of(node: &NodeName) -> String {
    format!("node/{node}")
}

fn key_of(node: &NodeName) -> Key {
    Key::new(format!("{NODES}{node}")).unwrap_or_else(|error| unreachable!("made of a DNS label: {error}"))
}

impl Replicas {
    pub(super) fn new(store: Arc<dyn Store>, me: NodeName, timing: LeaseTiming) -> Self {
        let (known, turns) = (watch::Sender::new(Arc::default()), watch::Sender::new(0));
        Self { store, me, known, looks: Mutex::default(), turns, timing }
    }

    pub(super) fn known(&self) -> Arc<BTreeMap<NodeName, Replica>> {
        Arc::clone(&self.known.borrow())
    }

    pub(super) fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    /// Since when a node other than this one has not been heard of; `None`: it lives, as far as is known.
    pub(super) fn lost(&self, node: &NodeName) -> Option<Duration> {
        if *node == self.me {
            return None;
        }
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let look = looks.get(node)?;
        let silent = now().saturating_duration_since(look.since);
        (look.lease.holder.is_none() || silent >= self.timing.lease).then_some(silent)
    }

    /// Says what this replica is.
    pub(super) async fn publish(&self, grant: &Grant, replica: &Replica) -> Result<(), StoreError> {
        let value = serde_json::to_vec(replica).map_err(|error| StoreError::Invalid(error.to_string()))?;
        self.write(grant, Batch::new().put(key_of(&replica.node), value, Precondition::Any)).await
    }

    /// Takes back what this replica said of itself.
    pub(super) async fn withdraw(&self, grant: &Grant) -> Result<(), StoreError> {
        self.write(grant, Batch::new().delete(key_of(&self.me), Precondition::Any)).await
    }

    async fn write(&self, grant: &Grant, batch: Batch) -> Result<(), StoreError> {
        let batch = match grant.fence() {
            Some(fence) => batch.fenced(fence.lease.as_str(), fence.epoch),
            None => batch,
        };
        self.store.write(batch).await.map(drop)
    }

    /// Follows what replicas say of themselves, and calls `changed` whenever one says something new. Never ends.
    pub(super) async fn follow(&self, changed: impl Fn()) {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.follow_once(&changed, &mut pause).await {
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "the list of replicas is read anew"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn follow_once(&self, changed: &impl Fn(), pause: &mut Duration) -> Result<(), StoreError> {
        let listing = self.store.list(NODES).await?;
        let mut known: BTreeMap<NodeName, Replica> =
            listing.records.iter().filter_map(|record| read(&record.value)).map(|r| (r.node.clone(), r)).collect();
        self.tell(&known, changed);
        let mut changes = self.store.watch(NODES, listing.revision).await?;
        *pause = Duration::from_millis(100);
        while let Some(change) = changes.next().await {
            for (key, value) in change?.entries {
                let name = key.as_str().strip_prefix(NODES).and_then(|name| NodeName::new(name).ok());
                match (value.as_deref().and_then(read), name) {
                    (Some(replica), _) => drop(known.insert(replica.node.clone(), replica)),
                    (None, Some(name)) => drop(known.remove(&name)),
                    (None, None) => {}
                }
            }
            self.tell(&known, changed);
        }
        Ok(())
    }

    fn tell(&self, known: &BTreeMap<NodeName, Replica>, changed: &impl Fn()) {
        let differs = self.known.send_if_modified(|before| {
            let differs = **before != *known;
            if differs {
                *before = Arc::new(known.clone());
            }
            differs
        });
        if differs {
            changed();
        }
    }

    /// Looks at the leases of the other nodes, again and again. Never ends.
    pub(super) async fn look(&self) {
        loop {
            let others: Vec<NodeName> = self.known().keys().filter(|node| **node != self.me).cloned().collect();
            for node in &others {
                let name = lease_of(node);
                let look = self.store.lease(&name, self.me.as_str(), LeaseOperation::Inspect);
                // A store that does not answer says nothing of the node.
                if let Ok(Ok(lease)) = tokio::time::timeout(self.timing.renew_deadline, look).await {
                    self.saw(node, lease);
                }
            }
            self.looks.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| others.contains(node));
            tokio::time::sleep(self.timing.retry).await;
        }
    }

    fn saw(&self, node: &NodeName, lease: Lease) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let told = looks.get(node).is_some_and(|look| look.told);
        match looks.get(node) {
            Some(look) if look.lease == lease => {}
            _ => drop(looks.insert(node.clone(), Look { lease, since: now(), told })),
        }
        drop(looks);
        let lost = self.lost(node).is_some();
        if lost != told {
            if let Some(look) = self.looks.lock().unwrap_or_else(PoisonError::into_inner).get_mut(node) {
                look.told = lost;
            }
            self.turns.send_modify(|turns| *turns += 1);
        }
    }
}

/// What cannot be read was written by another version, and is passed over.
fn read(value: &[u8]) -> Option<Replica> {
    serde_json::from_slice(value).ok()
}
