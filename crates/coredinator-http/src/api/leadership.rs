//! Who leads, and how fresh what this replica knows is.

use axum::{Json, extract::State};
use coredinator_registry::leadership::{Role, Standing};

use super::{
    model::{Leader, Leadership, LeadershipInShort, LeaseTimes, ProblemDocument, Replica, ReplicaRole},
    params::NoParams,
    render::millis,
    state::Api,
};

/// Who leads among the replicas that share the store, as this replica knows it, and how fresh that is.
///
/// One that shares its store with nobody leads always.
#[utoipa::path(
    get, path = "/api/coredinator/leadership", tag = "server", operation_id = "leadership",
    responses(
        (status = 200, description = "how it stands", body = Leadership),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn leadership(State(api): State<Api>, _: NoParams) -> Json<Leadership> {
    Json(Leadership::new(&api.registry.place().standing(), api.registry.place().is_sole()))
}

fn role(standing: &Standing) -> ReplicaRole {
    match standing.role {
        Role::Leader => ReplicaRole::Leader,
        Role::Follower => ReplicaRole::Follower,
    }
}

impl Leadership {
    fn new(standing: &Standing, sole: bool) -> Self {
        let address = |node| {
            let known = standing.replicas.iter().find(|known| known.replica.node == node);
            known.and_then(|known| known.replica.address.clone())
        };
        let replicas = standing.replicas.iter().map(|known| Replica {
            node: known.replica.node.clone(),
            address: known.replica.address.clone(),
            version: known.replica.version.clone(),
            started_at: millis(known.replica.started_at),
            leads: Some(&known.replica.node) == standing.leader.as_ref(),
            alive: known.lost.is_none(),
            silent_seconds: known.lost.map(|silent| silent.as_secs_f64()),
        });
        Self {
            role: role(standing),
            epoch: standing.epoch.0,
            leader: standing.leader.clone().map(|node| Leader { address: address(node.clone()), node }),
            node: standing.node.clone(),
            node_epoch: standing.node_epoch.0,
            shared: !sole,
            stale_seconds: standing.heard.map(|heard| heard.as_secs_f64()),
            trouble: standing.trouble.clone(),
            lease: LeaseTimes {
                lease_seconds: standing.timing.lease.as_secs_f64(),
                renew_deadline_seconds: standing.timing.renew_deadline.as_secs_f64(),
                retry_seconds: standing.timing.retry.as_secs_f64(),
            },
            replicas: replicas.collect(),
        }
    }
}

/// The same in short, for the health page.
pub(super) fn in_short(api: &Api) -> LeadershipInShort {
    let standing = api.registry.place().standing();
    LeadershipInShort {
        role: role(&standing),
        epoch: standing.epoch.0,
        stale_seconds: standing.heard.map(|heard| heard.as_secs_f64()),
        leader: standing.leader,
        node: standing.node,
    }
}

/// The same in a line each, for `/readyz?verbose`.
pub(super) fn in_lines(api: &Api) -> String {
    let standing = api.registry.place().standing();
    if standing.node.is_none() {
        return String::new();
    }
    let epoch = standing.epoch;
    let leads = match (standing.role, &standing.leader) {
        (Role::Leader, _) => format!("[+]leadership leader, epoch {epoch}"),
        (Role::Follower, Some(leader)) => format!("[+]leadership follower of {leader}, epoch {epoch}"),
        (Role::Follower, None) => format!("[-]leadership follower, and nobody leads, epoch {epoch}"),
    };
    let node = match (&standing.node, &standing.trouble) {
        (Some(node), None) => format!("[+]node {node}, epoch {}\n", standing.node_epoch),
        (Some(node), Some(trouble)) => format!("[-]node {node}: {trouble}\n"),
        (None, _) => String::new(),
    };
    let store = standing.heard.map(|heard| format!("[+]store heard {:.1} s ago\n", heard.as_secs_f64()));
    format!("{leads}\n{node}{}", store.unwrap_or_default())
}
