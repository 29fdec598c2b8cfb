//! What stands beside the pods of a service: its Service and its disruption budget are made, kept as they should be, and taken
//! away.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use coredinator_core::{RuntimeError, ServiceName, StartRequest};
use k8s_openapi::api::{core::v1::Service, policy::v1::PodDisruptionBudget};
use tokio::time;
use tracing::{debug, warn};

use super::Shared;
use crate::{companions, engine::Trouble, labels, options::KubernetesOptions, rbac::Call};

impl Shared {
    /// Sees to it that a service is found in the cluster as its spec says.
    pub(super) async fn expose(
        &self,
        request: &StartRequest,
        options: &KubernetesOptions,
        namespace: &str,
    ) -> Result<(), RuntimeError> {
        let (spec, owner) = (&request.spec, self.engine.owner());
        let _one_at_a_time = self.companions.of(&spec.name).lock().await;
        let asked = companions::service(spec, options, owner, namespace);
        let there: Option<Service> =
            self.engine.get(Call::GET_SERVICE, namespace, spec.name.as_str()).await.map_err(Trouble::not_started)?;
        let ours = there.as_ref().is_some_and(|there| labels::is_ours(&there.metadata, owner));
        match (&there, asked) {
            (None, None) => Ok(()),
            (Some(_), None) if !ours => Ok(()),
            (Some(there), None) => self.delete_service(there).await.map_err(Trouble::not_started),
            (Some(_), Some(_)) if !ours => {
                let message = format!(
                    "the Service {} in namespace {namespace} is somebody else's; say `expose: none` to leave it so",
                    spec.name
                );
                Err(RuntimeError::not_started("NameTaken", message))
            }
            (Some(there), Some(asked)) if companions::is_as_asked(&there.metadata, &asked.metadata) => Ok(()),
            (there, Some(mut asked)) => {
                // Only the one that was looked at is changed.
                asked.metadata.uid = there.as_ref().and_then(|there| there.metadata.uid.clone());
                let applied = self.engine.apply(Call::APPLY_SERVICE, namespace, &asked, true).await;
                let anew = match (&applied, &there) {
                    // What cannot be changed in place is made anew.
                    (Err(Trouble::Refused("PodRefused", _)), Some(_)) => true,
                    (Ok(kept), Some(_)) => !companions::is_kept(&asked, kept),
                    _ => false,
                };
                let made = match there.as_ref().filter(|_| anew) {
                    Some(there) => {
                        self.delete_service(there).await.map_err(Trouble::not_started)?;
                        asked.metadata.uid = None;
                        self.engine.apply(Call::APPLY_SERVICE, namespace, &asked, true).await
                    }
                    None => applied,
                };
                made.map(drop).map_err(Trouble::not_started)
            }
        }
    }

    pub(super) async fn delete_service(&self, there: &Service) -> Result<(), Trouble> {
        let of = &there.metadata;
        let (namespace, name, uid) = (of.namespace.as_deref(), of.name.as_deref(), of.uid.as_deref());
        let (namespace, name, uid) = (namespace.unwrap_or_default(), name.unwrap_or_default(), uid.unwrap_or_default());
        self.engine.delete::<Service>(Call::DELETE_SERVICE, namespace, name, uid, None).await
    }

    /// Gives a service of several replicas its disruption budget, and fits it to what is left later.
    pub(super) async fn protect(self: &Arc<Self>, spec: &coredinator_core::ServiceSpec, replica: u32, namespace: &str) {
        let least = (spec.replicas as usize).max(replica as usize + 1).max(self.replicas(&spec.name, namespace));
        if least > 1
            && let Err(trouble) = self.budget(&spec.name, namespace, least).await
        {
            warn!(service = %spec.name, ?trouble, "cannot write its disruption budget");
        }
        self.settle(&spec.name);
    }

    /// How many replicas of a service there are: those that run, and those that have ended and are about to be replaced.
    fn replicas(&self, service: &ServiceName, namespace: &str) -> usize {
        let of: BTreeSet<u32> = self
            .events
            .all()
            .into_iter()
            .filter(|it| it.tags.service == *service && it.namespace == namespace && it.ending.is_none())
            .map(|it| it.tags.replica)
            .collect();
        of.len()
    }

    /// Fits a service's budget to so many replicas. One that is somebody else's is left alone.
    pub(super) async fn budget(&self, service: &ServiceName, namespace: &str, replicas: usize) -> Result<(), Trouble> {
        let _one_at_a_time = self.companions.of(service).lock().await;
        let owner = self.engine.owner();
        let there: Option<PodDisruptionBudget> = self.engine.get(Call::GET_BUDGET, namespace, service.as_str()).await?;
        let ours = there.as_ref().is_some_and(|there| labels::is_ours(&there.metadata, owner));
        if there.is_some() && !ours {
            debug!(%service, namespace, "its disruption budget is somebody else's");
            return Ok(());
        }
        let stays = |it: &PodDisruptionBudget| it.spec.as_ref().and_then(|spec| spec.min_available.clone());
        match (there, companions::budget(service, replicas, owner, namespace)) {
            (None, None) => Ok(()),
            (Some(there), Some(asked)) if stays(&there) == stays(&asked) => Ok(()),
            (there, Some(mut asked)) => {
                asked.metadata.uid = there.and_then(|there| there.metadata.uid);
                self.engine.apply(Call::APPLY_BUDGET, namespace, &asked, true).await.map(drop)
            }
            (Some(there), None) => {
                let uid = there.metadata.uid.unwrap_or_default();
                let deleted = self.engine.delete::<PodDisruptionBudget>(
                    Call::DELETE_BUDGET,
                    namespace,
                    service.as_str(),
                    &uid,
                    None,
                );
                deleted.await
            }
        }
    }

    /// Fits a service's budget to what there is of it, when nothing of it has been started or stopped for a while.
    pub(super) fn settle(self: &Arc<Self>, service: &ServiceName) {
        let (weak, name, settle) = (Arc::downgrade(self), service.clone(), self.options().settle);
        let task = tokio::spawn(async move {
            loop {
                time::sleep(settle).await;
                let Some(shared) = weak.upgrade() else { return };
                // What is refused is refused again.
                let is_away = |trouble: &Trouble| matches!(trouble, Trouble::Away(_) | Trouble::Conflict(_));
                let mut failed = None;
                for namespace in shared.engine.namespaces().await.unwrap_or_default() {
                    let replicas = shared.replicas(&name, &namespace);
                    failed = shared.budget(&name, &namespace, replicas).await.err().filter(is_away).or(failed);
                }
                let Some(trouble) = failed else { return };
                debug!(service = %name, ?trouble, "its disruption budget waits for the API server");
            }
        });
        let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        settling.retain(|_, task| !task.is_finished());
        if let Some(earlier) = settling.insert(service.clone(), task) {
            earlier.abort();
        }
    }
}
