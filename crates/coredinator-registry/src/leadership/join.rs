//! Joining those that share a store, and leaving them.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use coredinator_core::{Epoch, LeaseOperation, NodeName, RuntimeName, Store, StoreError, Timestamp};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    LeaseTiming, Place,
    keeper::{Keeper, KeeperOptions},
    replicas::{Replica, Replicas, lease_of},
};

/// The lease of the leader.
pub const LEADER: &str = "leader";
/// How long the last word of a replica may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Who a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The name of its node.
    pub name: NodeName,
    /// What tells this coredinator from another on a node of the same name: the same after every restart.
    pub id: String,
    /// Somebody chose the name, so that no other will do.
    pub chosen: bool,
}

/// What a replica joins with.
#[derive(Clone)]
pub struct LeadershipOptions {
    /// Where the leases are.
    pub store: Arc<dyn Store>,
    /// Who it is.
    pub identity: NodeIdentity,
    /// The times of the leases.
    pub timing: LeaseTiming,
    /// Epochs of the leader are above this.
    pub above: Epoch,
    /// Where other replicas reach it, as `http://host:port`.
    pub address: Option<String>,
    /// Its version.
    pub version: String,
    /// When it was started.
    pub started_at: Timestamp,
}

/// Why a replica could not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Another one acts for the node already.
    #[error(
        "another coredinator ({holder}) is node {node} of this store already: stop that one first, or give this one a name \
         of its own (--node NAME, COREDINATOR_NODE, coredinator.node)"
    )]
    NodeTaken {
        /// The node.
        node: NodeName,
        /// As whom the other holds its lease.
        holder: String,
    },
    /// The store does not tell.
    #[error("the store cannot be asked who leads")]
    Store(#[from] StoreError),
}

impl JoinError {
    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NodeTaken { .. } => true,
            Self::Store(error) => error.is_retryable(),
        }
    }
}

/// One replica's part in leadership. It ends by [`leave`](Self::leave).
pub struct Leadership {
    inner: Arc<Inner>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

/// What the handle, the tasks and places share.
pub(super) struct Inner {
    pub(super) node: NodeName,
    pub(super) sole: bool,
    pub(super) timing: LeaseTiming,
    pub(super) seat: Keeper,
    pub(super) lead: Keeper,
    pub(super) replicas: Replicas,
    said: Replica,
}

impl Leadership {
    /// Joins: holds the node's lease when this returns, and runs for the leader's; where the store tells how the lease stands and
    /// takes no writes, it goes on to run for both. On a store that nobody else can use it leads at once. What an earlier life under this identity held is taken over at once; what another holds who has the
    /// same name, when that one has had its time.
    ///
    /// # Errors
    /// [`JoinError::NodeTaken`] by one that lives; [`JoinError::Store`] if it cannot be asked.
    pub async fn join(options: LeadershipOptions) -> Result<Self, JoinError> {
        let LeadershipOptions { store, identity, timing, above, address, version, started_at } = options;
        let sole = !store.capabilities().shared;
        let NodeIdentity { name, id, chosen } = identity;
        let run_for = |node: &NodeName, holder: String| {
            let (store, lease) = (Arc::clone(&store), LEADER.to_owned());
            tracing::debug!(%node, "running for the leader's lease");
            Keeper::start(KeeperOptions { store, lease, holder, timing, sole, above })
        };
        // Who is alone is refused by nobody, and has both in one write.
        let lead = sole.then(|| run_for(&name, format!("{name}/{id}")));
        let mut names = vec![name.clone()];
        if !chosen {
            let short: String = id.chars().filter(char::is_ascii_alphanumeric).take(6).collect();
            let kept: String = name.as_str().chars().take(56).collect();
            names.extend(NodeName::new(&format!("{}-{}", kept.trim_end_matches('-'), short.to_lowercase())).ok());
        }
        let mut taken = None;
        for node in names {
            let holder = format!("{node}/{id}");
            match sit(&store, &node, &holder, timing, sole).await {
                Ok(seat) => {
                    let lead = lead.unwrap_or_else(|| run_for(&node, holder.clone()));
                    let said = Replica { node, holder, address, version, started_at, leads: None };
                    return Ok(Self::begin(store, seat, lead, said, timing, sole).await);
                }
                Err(error @ JoinError::NodeTaken { .. }) => drop(taken.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| unreachable!("there is at least one name")))
    }

    async fn begin(
        store: Arc<dyn Store>,
        seat: Keeper,
        lead: Keeper,
        said: Replica,
        timing: LeaseTiming,
        sole: bool,
    ) -> Self {
        let replicas = Replicas::new(store, said.node.clone(), timing);
        let inner = Arc::new(Inner { node: said.node.clone(), sole, timing, seat, lead, replicas, said });
        if sole {
            // It leads at once; a store that takes no writes now holds up nothing but that.
            let mut sight = inner.lead.sight.clone();
            while inner.lead.tenure.grant().is_none() && sight.borrow_and_update().trouble.is_none() {
                if sight.changed().await.is_err() {
                    break;
                }
            }
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let run = |work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(work).await });
        };
        if !sole {
            let of = Arc::clone(&inner);
            run(Box::pin(async move { of.say().await }));
            let of = Arc::clone(&inner);
            run(Box::pin(async move { of.replicas.follow(|| of.lead.wake()).await }));
            let of = Arc::clone(&inner);
            run(Box::pin(async move { of.replicas.look().await }));
        }
        tasks.close();
        Self { inner, stop, tasks }
    }

    /// The name under which it joined.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.inner.node
    }

    /// Its place, where instances of the runtimes `cluster` are reached alike by all replicas.
    #[must_use]
    pub fn place(&self, cluster: BTreeSet<RuntimeName>) -> Place {
        Place::of(Arc::clone(&self.inner), cluster)
    }

    /// Does not lead any more, and does not run for it: the lease is given back, so that another can have it at once.
    pub async fn resign(&self) {
        self.inner.lead.retire().await;
        if !self.inner.sole {
            self.tell(&self.inner.said).await;
        }
    }

    /// Leaves: resigns, and gives the node's lease back. Nothing may be done for the node any more then.
    pub async fn leave(self) {
        if self.inner.sole {
            tokio::join!(self.inner.lead.retire(), self.inner.seat.retire());
            return;
        }
        self.resign().await;
        self.stop.cancel();
        self.tasks.wait().await;
        if let Some(grant) = self.inner.seat.tenure.grant() {
            let withdrawn = tokio::time::timeout(LAST_WORD, self.inner.replicas.withdraw(&grant)).await;
            if !matches!(withdrawn, Ok(Ok(()))) {
                tracing::warn!("others cannot be told that this replica leaves; they will find out");
            }
        }
        self.inner.seat.retire().await;
    }

    async fn tell(&self, said: &Replica) {
        if let Some(grant) = self.inner.seat.tenure.grant() {
            // Those who wait for the lease look at it by themselves, too.
            let _ = tokio::time::timeout(LAST_WORD, self.inner.replicas.publish(&grant, said)).await;
        }
    }
}

impl Inner {
    /// Says what this replica is, again whenever it has changed. Never ends.
    async fn say(&self) {
        let [mut seat, mut lead] = [self.seat.tenure.changes(), self.lead.tenure.changes()];
        loop {
            let leads = self.lead.tenure.grant().map(|grant| grant.epoch());
            let said = Replica { leads, ..self.said.clone() };
            let told = match self.seat.tenure.grant() {
                Some(grant) => self.replicas.publish(&grant, &said).await,
                None => Ok(()),
            };
            match told {
                Ok(()) => tokio::select! {
                    () = seat.changed() => {}
                    () = lead.changed() => {}
                },
                Err(error) => {
                    if matches!(error, StoreError::Fenced { .. }) {
                        self.seat.tenure.doubt();
                    }
                    tracing::debug!(%error, "others cannot be told of this replica");
                    tokio::time::sleep(self.timing.retry).await;
                }
            }
        }
    }
}

/// Comes to hold the node's lease.
async fn sit(
    store: &Arc<dyn Store>,
    node: &NodeName,
    holder: &str,
    timing: LeaseTiming,
    sole: bool,
) -> Result<Keeper, JoinError> {
    let lease = lease_of(node);
    let stands = store.lease(&lease, holder, LeaseOperation::Inspect).await?;
    if let Some(other) = stands.holder.as_deref().filter(|other| *other != holder && !sole) {
        tracing::warn!(%node, holder = other, "another coredinator was this node; waiting whether it lives");
    }
    let options =
        KeeperOptions { store: Arc::clone(store), lease, holder: holder.to_owned(), timing, sole, above: Epoch::ZERO };
    let keeper = Keeper::start(options);
    let (mut changes, mut sight) = (keeper.tenure.changes(), keeper.sight.clone());
    let free = stands.holder.as_deref().is_none_or(|other| other == holder);
    loop {
        if keeper.tenure.grant().is_some() {
            return Ok(keeper);
        }
        let seen = sight.borrow_and_update().clone();
        if let Some(message) = seen.trouble.clone().filter(|_| sole) {
            return Err(StoreError::Unavailable { message, source: None }.into());
        }
        // It was looked at, is nobody else's, and cannot be taken: the store can be read alone.
        if let Some(trouble) = seen.trouble.as_deref().filter(|_| free && seen.lease.is_some() && !seen.lives) {
            tracing::error!(%node, trouble, "the node's lease cannot be had: following until the store takes writes");
            return Ok(keeper);
        }
        if seen.lives {
            keeper.retire().await;
            let holder = seen.lease.and_then(|lease| lease.holder).unwrap_or_default();
            return Err(JoinError::NodeTaken { node: node.clone(), holder });
        }
        tokio::select! {
            () = changes.changed() => {}
            seen = sight.changed() => if seen.is_err() {
                let message = "keeping the node's lease ended".to_owned();
                return Err(StoreError::Unavailable { message, source: None }.into());
            },
        }
    }
}
