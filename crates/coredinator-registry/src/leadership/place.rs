//! Who looks after what: the place of one replica among those that share a store.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc, time::Duration};

use coredinator_core::{Epoch, InstanceRecord, NodeName, RuntimeName, ServiceRecord};
use serde::Serialize;
use tokio::sync::watch;

use super::{
    Inner, LeaseTiming,
    keeper::now,
    tenure::{Tenure, TenureChanges},
};
use crate::ServiceView;

/// What a replica looks after services by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Post {
    /// It is the replica of its node.
    Node,
    /// It leads.
    Leader,
}

impl Post {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Node, Self::Leader];
}

/// Where something is looked after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seat {
    /// By the replica of this node.
    Node(NodeName),
    /// By whoever leads.
    Leader,
    /// Declared before nodes were told apart, and taken up by none yet.
    Nowhere,
}

/// What one replica has to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duty {
    /// By what it acts.
    pub post: Post,
    /// The service is looked after elsewhere by now: what still runs of it here is stopped, and nothing started.
    pub leaving: bool,
}

/// The place of a replica. Cheap to clone.
#[derive(Clone)]
pub struct Place(Arc<Parts>);

struct Parts {
    /// `None`: the replica has no name, as it is certainly alone.
    node: Option<NodeName>,
    sole: bool,
    /// The runtimes whose instances every replica reaches alike.
    cluster: BTreeSet<RuntimeName>,
    seat: Tenure,
    lead: Tenure,
    leadership: Option<Arc<Inner>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("node", &self.0.node).field("sole", &self.0.sole).finish_non_exhaustive()
    }
}

impl Place {
    /// That of somebody who is certainly alone, and asks no store for a lease: everything is his.
    #[must_use]
    pub fn alone() -> Self {
        Self(Arc::new(Parts {
            node: None,
            sole: true,
            cluster: BTreeSet::new(),
            seat: Tenure::unquestioned(),
            lead: Tenure::unquestioned(),
            leadership: None,
        }))
    }

    pub(super) fn of(leadership: Arc<Inner>, cluster: BTreeSet<RuntimeName>) -> Self {
        Self(Arc::new(Parts {
            node: Some(leadership.node.clone()),
            sole: leadership.sole,
            cluster,
            seat: leadership.seat.tenure.clone(),
            lead: leadership.lead.tenure.clone(),
            leadership: Some(leadership),
        }))
    }

    /// The name of its node, if it has one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        self.0.node.as_ref()
    }

    /// Whether no other replica can use the store, so that everything is this one's.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.0.sole
    }

    /// What is acted by at a post.
    #[must_use]
    pub fn tenure(&self, post: Post) -> &Tenure {
        match post {
            Post::Node => &self.0.seat,
            Post::Leader => &self.0.lead,
        }
    }

    /// The post at which instances of a runtime are looked after.
    #[must_use]
    pub fn post_of(&self, runtime: &RuntimeName) -> Post {
        if self.0.cluster.contains(runtime) { Post::Leader } else { Post::Node }
    }

    /// The node that is noted of an instance which is started here; `None` where all replicas reach it alike.
    #[must_use]
    pub fn node_of(&self, runtime: &RuntimeName) -> Option<NodeName> {
        self.0.node.clone().filter(|_| self.post_of(runtime) == Post::Node)
    }

    /// Where a service is looked after. One that is external and named by an address of the machine itself: on the node where
    /// it was declared.
    #[must_use]
    pub fn seat(&self, record: &ServiceRecord) -> Seat {
        let local = match &record.spec.runtime {
            Some(runtime) => self.post_of(runtime) == Post::Node,
            None => is_loopback(&record.spec.host),
        };
        match &record.node {
            _ if !local => Seat::Leader,
            Some(node) => Seat::Node(node.clone()),
            None => Seat::Nowhere,
        }
    }

    /// Where an instance of a service is looked after for as long as it lives.
    #[must_use]
    pub fn seat_of_instance(&self, record: &ServiceRecord, instance: &InstanceRecord) -> Seat {
        match (&instance.node, &record.node) {
            (Some(node), _) => Seat::Node(node.clone()),
            (None, _) if self.post_of(&instance.runtime) == Post::Leader => Seat::Leader,
            (None, Some(node)) => Seat::Node(node.clone()),
            (None, None) => Seat::Nowhere,
        }
    }

    /// The post at which this replica looks after what belongs there; `None`: it does not.
    #[must_use]
    pub fn at(&self, seat: &Seat) -> Option<Post> {
        mine(seat, self.0.node.as_ref(), self.0.sole, self.0.lead.grant().is_some())
    }

    /// What this replica has to do with a service; `None`: nothing, now.
    #[must_use]
    pub fn duty(&self, view: &ServiceView) -> Option<Duty> {
        let at = self.at(&self.seat(&view.record));
        let live = view.instances.iter().filter(|instance| instance.record.state.is_live());
        duty(at, live.map(|instance| self.at(&self.seat_of_instance(&view.record, &instance.record))))
    }

    /// Whether the health of a service (of one of its instances) is checked here.
    #[must_use]
    pub fn checks(&self, record: &ServiceRecord, instance: Option<&InstanceRecord>) -> bool {
        let seat = match instance {
            Some(instance) => self.seat_of_instance(record, instance),
            None => self.seat(record),
        };
        self.at(&seat).is_some()
    }

    /// Told whenever what is this replica's, or what is known of the others, may have changed.
    #[must_use]
    pub fn changes(&self) -> PlaceChanges {
        let turns = self.0.leadership.as_ref().map(|leadership| leadership.replicas.turns());
        PlaceChanges { seat: self.0.seat.changes(), lead: self.0.lead.changes(), turns }
    }

    /// How leadership stands, as this replica knows it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let grant = self.0.lead.grant();
        let Some(leadership) = &self.0.leadership else {
            return Standing {
                node: None,
                role: Role::Leader,
                epoch: Epoch::ZERO,
                node_epoch: Epoch::ZERO,
                leader: None,
                trouble: None,
                heard: None,
                timing: LeaseTiming::default(),
                replicas: Vec::new(),
            };
        };
        let known = leadership.replicas.known();
        let sight = leadership.lead.sight.borrow().clone();
        let holder = sight.lease.as_ref().and_then(|lease| lease.holder.clone());
        let leader = match &grant {
            Some(_) => Some(leadership.node.clone()),
            None => known.values().find(|replica| Some(&replica.holder) == holder.as_ref()).map(|r| r.node.clone()),
        };
        // One that has had its time is not asked any more.
        let leader = leader.filter(|node| grant.is_some() || leadership.replicas.lost(node).is_none());
        let seat = self.0.seat.grant();
        let trouble = if seat.is_none() { Some(self.0.seat.why_not()) } else { None };
        let heard = [sight.heard, leadership.seat.sight.borrow().heard].into_iter().flatten().max();
        Standing {
            node: Some(leadership.node.clone()),
            role: if grant.is_some() { Role::Leader } else { Role::Follower },
            epoch: grant.map_or_else(|| sight.lease.map_or(Epoch::ZERO, |lease| lease.epoch), |grant| grant.epoch()),
            node_epoch: seat.map_or(Epoch::ZERO, |grant| grant.epoch()),
            leader,
            trouble,
            heard: heard.filter(|_| !self.0.sole).map(|heard| now().saturating_duration_since(heard)),
            timing: leadership.timing,
            replicas: known
                .values()
                .map(|replica| ReplicaStanding {
                    lost: leadership.replicas.lost(&replica.node),
                    replica: replica.clone(),
                })
                .collect(),
        }
    }

    /// Where the replica is reached that looks after what belongs at `seat`.
    ///
    /// # Errors
    /// Why nobody does, or how it is not known where.
    pub fn reach(&self, seat: &Seat) -> Result<Reach, String> {
        if self.at(seat).is_some() {
            return Ok(Reach::Here);
        }
        let standing = self.standing();
        let node = match seat {
            Seat::Node(node) => node.clone(),
            Seat::Leader => standing.leader.clone().ok_or("no replica leads at the moment")?,
            Seat::Nowhere => return Err("no replica has taken it up".to_owned()),
        };
        let known = standing.replicas.iter().find(|known| known.replica.node == node);
        let Some(known) = known else { return Err(format!("no replica of node {node} has said where it is reached")) };
        if let Some(silent) = known.lost {
            return Err(format!("nothing has been heard of node {node} for {:.0} s", silent.as_secs_f64()));
        }
        let address = known.replica.address.clone();
        address
            .map(|address| Reach::At { node, address })
            .ok_or_else(|| "it has not said where it is reached".to_owned())
    }

    /// Since when nothing has been heard of whoever looks after what belongs at `seat`; `None`: all is well, as far as is
    /// known.
    #[must_use]
    pub fn silent(&self, seat: &Seat) -> Option<Duration> {
        match (seat, &self.0.leadership) {
            (Seat::Node(node), Some(leadership)) if !self.0.sole => leadership.replicas.lost(node),
            _ => None,
        }
    }
}

/// The changes of a [`Place`].
#[derive(Debug, Clone)]
pub struct PlaceChanges {
    seat: TenureChanges,
    lead: TenureChanges,
    turns: Option<watch::Receiver<u64>>,
}

impl PlaceChanges {
    /// Waits for the next one; those that came since the last call count. Cancel-safe.
    pub async fn changed(&mut self) {
        let turns = async {
            let told = match &mut self.turns {
                Some(turns) => turns.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.seat.changed() => {}
            () = self.lead.changed() => {}
            () = turns => {}
        }
    }
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It is this one.
    Here,
    /// It is another.
    At {
        /// Its node.
        node: NodeName,
        /// `http://host:port`.
        address: String,
    },
}

/// Whether a replica leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It does.
    Leader,
    /// It does not.
    Follower,
}

/// How leadership stands, as one replica knows it.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The node of this replica; `None`: it has no name, being certainly alone.
    pub node: Option<NodeName>,
    /// Whether this replica leads.
    pub role: Role,
    /// The epoch of the leader, as far as is known; 0: there never was one, or none is needed.
    pub epoch: Epoch,
    /// The epoch under which this replica acts for its node; 0: it does not.
    pub node_epoch: Epoch,
    /// The node of the replica that leads; `None`: none does, as far as is known.
    pub leader: Option<NodeName>,
    /// Why this replica does not act for its node, if it does not.
    pub trouble: Option<String>,
    /// How long ago the store answered last; `None` where no lease has to be kept.
    pub heard: Option<Duration>,
    /// The times of the leases.
    pub timing: LeaseTiming,
    /// All replicas, by node.
    pub replicas: Vec<ReplicaStanding>,
}

/// A replica, as another knows it.
#[derive(Debug, Clone)]
pub struct ReplicaStanding {
    /// What it says of itself.
    pub replica: super::Replica,
    /// How long nothing has been heard of it, if that is too long.
    pub lost: Option<Duration>,
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn mine(seat: &Seat, node: Option<&NodeName>, sole: bool, leads: bool) -> Option<Post> {
    let (post, mine) = match seat {
        Seat::Node(of) => (Post::Node, node == Some(of)),
        Seat::Leader => (Post::Leader, leads),
        Seat::Nowhere => (Post::Node, false),
    };
    (mine || sole).then_some(post)
}

/// What follows from where a service belongs (`None`: elsewhere) and where each of its living instances does.
///
/// Whoever it belongs to waits until what lives elsewhere has been stopped there: one replica at a time writes of a service.
fn duty(at: Option<Post>, mut live: impl Iterator<Item = Option<Post>>) -> Option<Duty> {
    match at {
        Some(post) => live.all(|at| at.is_some()).then_some(Duty { post, leaving: false }),
        None => live.flatten().min().map(|post| Duty { post, leaving: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_where() {
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        for (seat, sole, leads, expected) in [
            (Seat::Node(a.clone()), false, false, Some(Post::Node)),
            (Seat::Node(b.clone()), false, true, None),
            (Seat::Node(b.clone()), true, true, Some(Post::Node)),
            (Seat::Leader, false, true, Some(Post::Leader)),
            (Seat::Leader, false, false, None),
            (Seat::Nowhere, false, true, None),
            (Seat::Nowhere, true, true, Some(Post::Node)),
        ] {
            assert_eq!(mine(&seat, Some(&a), sole, leads), expected, "{seat:?} {sole} {leads}");
        }
    }

    #[test]
    fn a_service_that_moves_is_looked_after_by_one_at_a_time() {
        const NODE: Option<Post> = Some(Post::Node);
        const LEADER: Option<Post> = Some(Post::Leader);
        let duty = |at, live: &[Option<Post>]| duty(at, live.iter().copied()).map(|duty| (duty.post, duty.leaving));
        for (at, live, expected) in [
            (NODE, &[][..], Some((Post::Node, false))),
            (NODE, &[NODE, NODE], Some((Post::Node, false))),
            // Both posts are this replica's.
            (LEADER, &[NODE], Some((Post::Leader, false))),
            // Something lives elsewhere still.
            (NODE, &[NODE, None], None),
            (LEADER, &[None], None),
            (None, &[], None),
            (None, &[None], None),
            (None, &[None, NODE], Some((Post::Node, true))),
            (None, &[LEADER, NODE], Some((Post::Node, true))),
            (None, &[LEADER], Some((Post::Leader, true))),
        ] {
            assert_eq!(duty(at, live), expected, "{at:?} {live:?}");
        }
    }

    #[test]
    fn addresses_of_the_machine_itself() {
        for (host, expected) in
            [("localhost", true), ("127.0.0.9", true), ("[::1]", true), ("plant", false), ("10.0.0.1", false)]
        {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
