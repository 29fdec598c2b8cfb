//! What other replicas know better: the newest results of the checks that they make, asked for when somebody looks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coredinator_core::NodeName;
use coredinator_registry::leadership::Role;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{forward::PASSED_ON_BY, model::SystemHealth, state::Api};

/// For how long an answer will do: however many look, each replica is asked once in that time.
const FRESH: Duration = Duration::from_secs(1);
/// How long an answer is waited for. Without one, what the store told has to do.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a replica answered, and when.
type Kept = (Instant, Option<Arc<SystemHealth>>);

/// The last answers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    kept: Mutex<BTreeMap<NodeName, Kept>>,
    /// One asks, the others wait for its answers.
    asking: tokio::sync::Mutex<()>,
}

impl Peers {
    fn kept(&self, node: &NodeName) -> Option<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(node).filter(|(at, _)| at.elapsed() < FRESH).cloned()
    }

    /// What the health page of every other living replica says, the leader's last; those that do not answer are left out.
    pub(super) async fn ask(&self, api: &Api) -> Vec<Arc<SystemHealth>> {
        let place = api.registry.place();
        if place.is_sole() {
            return Vec::new();
        }
        let standing = place.standing();
        let _turn = self.asking.lock().await;
        let mut others: Vec<_> = standing
            .replicas
            .iter()
            .filter(|known| known.lost.is_none() && Some(&known.replica.node) != standing.node.as_ref())
            .filter_map(|known| Some((known.replica.node.clone(), known.replica.address.clone()?)))
            .collect();
        others.sort_by_key(|(node, _)| standing.role == Role::Follower && Some(node) == standing.leader.as_ref());
        let us = standing.node.as_ref().map_or_else(String::new, ToString::to_string);
        let answers = others.iter().map(|(node, address)| async {
            if let Some((_, answer)) = self.kept(node) {
                return answer;
            }
            let answer = ask(api, address, &us).await.map(Arc::new);
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(node.clone(), (Instant::now(), answer.clone()));
            answer
        });
        let answers = join_all(answers).await;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|node, _| others.iter().any(|(other, _)| other == node));
        answers.into_iter().flatten().collect()
    }
}

async fn ask(api: &Api, address: &str, us: &str) -> Option<SystemHealth> {
    let url = format!("{address}/api/coredinator/health");
    let answer = api.forwarder.get(url).header(PASSED_ON_BY, us).timeout(PATIENCE).send().await;
    match answer {
        // One that is on its way up or down answers, too, with 503.
        Ok(answer) => answer.json().await.ok(),
        Err(error) => {
            tracing::debug!(address, %error, "a replica does not tell of its checks");
            None
        }
    }
}
