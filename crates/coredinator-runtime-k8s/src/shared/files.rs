//! The configuration files of instances: brought as Secrets, and taken away where a crash left one without a pod.

use std::path::Path;

use coredinator_core::{InstanceId, InstanceRef, RuntimeError, ServiceName, StartRequest};
use k8s_openapi::api::core::v1::{Pod, Secret};
use tracing::{debug, info, warn};

use super::Shared;
use crate::{
    engine::Trouble,
    files::{self, Loose},
    labels,
    rbac::Call,
    state::{Found, State},
};

impl Shared {
    /// Brings a request's configuration file to where its pod finds it; whether it has one. With the `pod` it belongs to that,
    /// and goes with it.
    pub(super) async fn bring(
        &self,
        request: &StartRequest,
        namespace: &str,
        pod: Option<&Found>,
    ) -> Result<bool, RuntimeError> {
        let Some(file) = files::outside(request) else { return Ok(false) };
        let labels = labels::Tags::write(request, self.engine.owner(), 0);
        self.bring_file(&request.id, namespace, labels, file, pod).await?;
        Ok(true)
    }

    async fn bring_file(
        &self,
        id: &InstanceId,
        namespace: &str,
        labels: labels::Labels,
        file: &Path,
        pod: Option<&Found>,
    ) -> Result<(), RuntimeError> {
        let unreadable = |error| RuntimeError::internal(format!("cannot read {}", file.display()), error);
        let content = tokio::fs::read(file).await.map_err(unreadable)?;
        let Some(secret) = files::secret(id, namespace, labels, file, content, pod) else { return Ok(()) };
        self.engine.apply(Call::APPLY_SECRET, namespace, &secret, true).await.map(drop).map_err(Trouble::not_started)
    }

    /// Takes the file of a start that failed away again.
    pub(super) async fn take_back(&self, request: &StartRequest, namespace: &str) -> Result<(), RuntimeError> {
        self.engine
            .delete_named::<Secret>(Call::DELETE_SECRET, namespace, request.id.as_str())
            .await
            .map_err(Trouble::failed)
    }

    /// Brings changed content of its configuration file to an instance.
    pub(crate) async fn deliver(&self, instance: &InstanceRef, file: &Path) -> Result<(), RuntimeError> {
        let Some((found, pod)) = self.engine.pod(instance).await.map_err(Trouble::failed)? else { return Ok(()) };
        let labels = pod.metadata.labels.unwrap_or_default();
        self.bring_file(&instance.id, &found.namespace, labels, file, Some(&found)).await
    }

    /// Takes away the files (of one service, or of all) that a crash left without a pod, and gives those that it left before they
    /// were their pod's to that.
    pub(super) async fn tidy_files(&self, namespace: &str, of: Option<&ServiceName>) -> Result<(), Trouble> {
        // What is brought and about to get its pod is no left-over.
        let _alone = self.gate.write().await;
        for loose in self.loose_files(namespace).await? {
            if of.is_some_and(|of| *of != loose.service) {
                continue;
            }
            let pod: Option<Pod> = self.engine.get(Call::GET_POD, namespace, loose.id.as_str()).await?;
            let found = pod.and_then(|pod| self.engine.read(&pod)).filter(|it| !matches!(it.state, State::Ended(_)));
            let done = match found {
                Some(found) => {
                    let belongs = files::belongs(&loose, &found);
                    self.engine.merge::<Secret>(Call::APPLY_SECRET, namespace, loose.id.as_str(), &belongs).await
                }
                None => {
                    info!(secret = %loose.id, namespace, "removing the file of an instance that never came to be");
                    let name = loose.id.as_str();
                    self.engine.delete::<Secret>(Call::DELETE_SECRET, namespace, name, &loose.uid, None).await
                }
            };
            match done {
                // It is another by now, or gone.
                Err(Trouble::NotFound(_) | Trouble::Conflict(_)) | Ok(()) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    /// The files in a namespace that are no pod's. Without the right to look for them there are none.
    pub(super) async fn loose_files(&self, namespace: &str) -> Result<Vec<Loose>, Trouble> {
        match self.engine.loose_files(namespace).await {
            Err(Trouble::Refused(_, message)) => {
                let known = self.blind.swap(true, std::sync::atomic::Ordering::Relaxed);
                if known {
                    debug!(namespace, message, "cannot look for files that were left behind");
                } else {
                    warn!(namespace, message, "cannot look for files that were left behind");
                }
                Ok(Vec::new())
            }
            other => other,
        }
    }
}
