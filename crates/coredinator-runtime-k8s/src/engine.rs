//! The API server: one connection, its errors in coredinator's words, and every call that is made of it.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug, Display},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coredinator_core::{InstanceRef, RuntimeError, RuntimeName, ServiceName, SharedClock};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, Secret, Service},
};
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, Preconditions},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use crate::{
    KubernetesRuntime, KubernetesRuntimeOptions,
    config::Access,
    files::Loose,
    labels,
    rbac::Call,
    retry,
    state::{Found, Handle},
};

/// How long a connection may take, and one answer with all tries.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no such object.
    NotFound(String),
    /// It is another object by now, or somebody else's in part.
    Conflict(String),
    /// The server says no: a word, and why.
    Refused(&'static str, String),
    /// It is away, overloaded or does not know us: worth trying again, and nothing is known meanwhile.
    Away(String),
}

impl Trouble {
    /// As an error of a call without which an instance does not start.
    pub(crate) fn not_started(self) -> RuntimeError {
        match self {
            Self::NotFound(message) => RuntimeError::not_started("NotFound", message),
            Self::Conflict(message) => RuntimeError::not_started("Conflict", message),
            Self::Refused(code, message) => RuntimeError::not_started(code, message),
            Self::Away(message) => unavailable(&message),
        }
    }

    /// As an error of any other call.
    pub(crate) fn failed(self) -> RuntimeError {
        match self {
            Self::NotFound(message) | Self::Conflict(message) | Self::Refused(_, message) => {
                RuntimeError::Internal { message, source: None }
            }
            Self::Away(message) => unavailable(&message),
        }
    }

    /// As an error of a call without which nothing is known.
    pub(crate) fn unknown(self) -> RuntimeError {
        match self {
            Self::NotFound(message) | Self::Conflict(message) | Self::Refused(_, message) | Self::Away(message) => {
                unavailable(&message)
            }
        }
    }
}

/// The way to the API server; clones share it.
#[derive(Clone)]
pub(crate) struct Engine {
    options: Arc<KubernetesRuntimeOptions>,
    client: Arc<OnceCell<Client>>,
    /// Where instances of ours may live.
    namespaces: Arc<Mutex<BTreeSet<String>>>,
}

impl Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(options: KubernetesRuntimeOptions) -> Self {
        let namespaces = Arc::new(Mutex::new(options.namespaces.clone()));
        Self { options: Arc::new(options), client: Arc::default(), namespaces }
    }

    /// One that asks over `client`, whatever the options say of access.
    pub(crate) fn with_client(options: KubernetesRuntimeOptions, client: Client) -> Self {
        let engine = Self::new(options);
        // It is new, so there is none yet.
        let _ = engine.client.set(retry::patient(client));
        engine
    }

    pub(crate) fn options(&self) -> &KubernetesRuntimeOptions {
        &self.options
    }

    pub(crate) fn owner(&self) -> &str {
        &self.options.owner
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.options.clock
    }

    pub(crate) async fn client(&self) -> Result<&Client, Trouble> {
        self.client.get_or_try_init(|| connect(&self.options.access)).await
    }

    /// Where services live that name no namespace.
    pub(crate) async fn namespace(&self) -> Result<String, Trouble> {
        match &self.options.namespace {
            Some(namespace) => Ok(namespace.clone()),
            None => Ok(self.client().await?.default_namespace().to_owned()),
        }
    }

    /// Looks through this namespace from now on.
    pub(crate) fn learn(&self, namespace: &str) {
        let mut known = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(namespace) {
            known.insert(namespace.to_owned());
        }
    }

    /// Everywhere that instances of ours may live.
    pub(crate) async fn namespaces(&self) -> Result<BTreeSet<String>, Trouble> {
        let own = self.namespace().await?;
        let mut known = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(own);
        Ok(known.clone())
    }

    pub(crate) async fn api<K>(&self, namespace: &str) -> Result<Api<K>, Trouble>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Ok(Api::namespaced(self.client().await?.clone(), namespace))
    }

    /// Makes a call; `what` says of which object.
    pub(crate) async fn ask<T>(
        &self,
        call: Call,
        namespace: &str,
        what: &str,
        work: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(ANSWER, work).await {
            Ok(answer) => answer.map_err(|error| judge(call, namespace, what, &error)),
            Err(_) => Err(Trouble::Away(format!("the API server did not answer within {} s", ANSWER.as_secs()))),
        }
    }

    /// An object; `None` if there is none.
    pub(crate) async fn get<K>(&self, call: Call, namespace: &str, name: &str) -> Result<Option<K>, Trouble>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = self.api(namespace).await?;
        self.ask(call, namespace, name, api.get_opt(name)).await
    }

    /// Makes or changes an object by server-side apply. `force` takes over fields that somebody else has written.
    pub(crate) async fn apply<K>(&self, call: Call, namespace: &str, object: &K, force: bool) -> Result<K, Trouble>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let api: Api<K> = self.api(namespace).await?;
        let name = object.meta().name.clone().unwrap_or_default();
        let params = PatchParams { force, ..PatchParams::apply(labels::FIELD_MANAGER) };
        self.ask(call, namespace, &name, api.patch(&name, &params, &Patch::Apply(object))).await
    }

    /// Writes a piece over an object, which holds the object's uid where no later one of its name is meant.
    pub(crate) async fn merge<K>(
        &self,
        call: Call,
        namespace: &str,
        name: &str,
        piece: &serde_json::Value,
    ) -> Result<(), Trouble>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = self.api(namespace).await?;
        let params = PatchParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.ask(call, namespace, name, api.patch_metadata(name, &params, &Patch::Merge(piece))).await.map(drop)
    }

    /// Deletes the one object of this id, and no later one of its name. One that is gone is no error.
    pub(crate) async fn delete<K>(
        &self,
        call: Call,
        namespace: &str,
        name: &str,
        uid: &str,
        grace_seconds: Option<u32>,
    ) -> Result<(), Trouble>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = self.api(namespace).await?;
        let params = DeleteParams {
            grace_period_seconds: grace_seconds,
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.ask(call, namespace, name, api.delete(name, &params)).await {
            // Another object has its name by now.
            Ok(_) | Err(Trouble::NotFound(_) | Trouble::Conflict(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Deletes an object by its name, which nobody else can have coined. One that is gone is no error.
    pub(crate) async fn delete_named<K>(&self, call: Call, namespace: &str, name: &str) -> Result<(), Trouble>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = self.api(namespace).await?;
        match self.ask(call, namespace, name, api.delete(name, &DeleteParams::default())).await {
            Ok(_) | Err(Trouble::NotFound(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// All pods of ours in a namespace.
    pub(crate) async fn pods(&self, namespace: &str) -> Result<Vec<Found>, Trouble> {
        let api: Api<Pod> = self.api(namespace).await?;
        let params = ListParams::default().labels(&labels::of_owner(self.owner()));
        let listed = self.ask(Call::LIST_PODS, namespace, "pods", api.list(&params)).await?;
        Ok(listed.items.iter().filter_map(|pod| self.read(pod)).collect())
    }

    /// An answer about a namespace; `None`: coredinator may not look into it, so nothing of ours has been made there. In its own it
    /// has to.
    pub(crate) async fn where_allowed<T>(
        &self,
        namespace: &str,
        answer: Result<T, Trouble>,
    ) -> Result<Option<T>, Trouble> {
        match answer {
            Err(Trouble::Refused("Forbidden", message)) if self.namespace().await? != namespace => {
                tracing::debug!(namespace, message, "passed over");
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The services that have a Service of ours in a namespace.
    pub(crate) async fn exposed(&self, namespace: &str) -> Result<Vec<ServiceName>, Trouble> {
        let api: Api<Service> = self.api(namespace).await?;
        let params = ListParams::default().labels(&labels::of_owner(self.owner()));
        let listed = self.ask(Call::LIST_SERVICES, namespace, "services", api.list(&params)).await?;
        let name = |it: Service| ServiceName::new(it.metadata.labels?.get(labels::SERVICE)?).ok();
        Ok(listed.items.into_iter().filter_map(name).collect())
    }

    /// The files of ours in a namespace that are no pod's. What is in them is not asked for.
    pub(crate) async fn loose_files(&self, namespace: &str) -> Result<Vec<Loose>, Trouble> {
        let api: Api<Secret> = self.api(namespace).await?;
        let params = ListParams::default().labels(&labels::of_owner(self.owner()));
        let listed = self.ask(Call::LIST_SECRETS, namespace, "secrets", api.list_metadata(&params)).await?;
        Ok(listed.items.iter().filter_map(|it| Loose::read(&it.metadata, self.owner())).collect())
    }

    /// A pod, if it is ours.
    pub(crate) fn read(&self, pod: &Pod) -> Option<Found> {
        Found::read(pod, self.owner(), self.clock())
    }

    /// An instance's pod, as the API server sees it now.
    pub(crate) async fn find(&self, instance: &InstanceRef) -> Result<Option<Found>, Trouble> {
        Ok(self.pod(instance).await?.map(|(found, _)| found))
    }

    /// The same, with all that the API server says of it.
    pub(crate) async fn pod(&self, instance: &InstanceRef) -> Result<Option<(Found, Pod)>, Trouble> {
        let namespaces = match Handle::read(instance) {
            Some(handle) => {
                self.learn(&handle.namespace);
                BTreeSet::from([handle.namespace])
            }
            None => self.namespaces().await?,
        };
        for namespace in namespaces {
            let asked = self.get::<Pod>(Call::GET_POD, &namespace, instance.id.as_str()).await;
            let Some(pod) = self.where_allowed(&namespace, asked).await?.flatten() else { continue };
            if let Some(found) = self.read(&pod).filter(|found| found.tags.id == instance.id) {
                return Ok(Some((found, pod)));
            }
        }
        Ok(None)
    }

    /// Output of a pod's program, as it comes.
    pub(crate) async fn log(
        &self,
        namespace: &str,
        pod: &str,
        params: &LogParams,
    ) -> Result<impl futures_util::AsyncBufRead + Send + use<>, Trouble> {
        let api: Api<Pod> = self.api(namespace).await?;
        self.ask(Call::READ_LOG, namespace, pod, api.log_stream(pod, params)).await
    }
}

async fn connect(access: &Access) -> Result<Client, Trouble> {
    let none = |error: &dyn std::error::Error| Trouble::Away(format!("no cluster is known: {}", chain(error)));
    let mut config = match access {
        Access::Infer => Config::infer().await.map_err(|error| none(&error))?,
        Access::InCluster => Config::incluster().map_err(|error| none(&error))?,
        Access::Kubeconfig { path, context } => {
            let file = Kubeconfig::read_from(path).map_err(|error| none(&error))?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| none(&error))?
        }
    };
    config.connect_timeout = Some(CONNECT);
    // Ours honours what the server asks for, and gives up.
    config.default_retry = false;
    Client::try_from(config).map(retry::patient).map_err(|error| none(&error))
}

fn unavailable(message: &str) -> RuntimeError {
    let runtime = RuntimeName::new(KubernetesRuntime::NAME).unwrap_or_else(|_| unreachable!("a DNS label"));
    RuntimeError::Unavailable { runtime, message: message.to_owned() }
}

/// An error and what lies under it, each told once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    message
}

/// What an error of a call means.
pub(crate) fn judge(call: Call, namespace: &str, what: &str, error: &kube::Error) -> Trouble {
    let kube::Error::Api(status) = error else {
        return match error {
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Trouble::Refused(
                "BadAnswer",
                format!("the API server's answer about {what} is not to be understood: {error}"),
            ),
            kube::Error::Auth(_) => Trouble::Away(format!("no credentials for the cluster: {}", chain(error))),
            error => Trouble::Away(format!("the API server cannot be reached: {}", chain(error))),
        };
    };
    let said = if status.message.is_empty() { status.reason.as_str() } else { status.message.as_str() };
    let about = |doing: &dyn Display| format!("{doing} {what} in namespace {namespace}: {said}");
    match status.code {
        401 => Trouble::Away(format!("the API server does not accept coredinator's credentials: {said}")),
        403 if said.contains("exceeded quota") => {
            Trouble::Refused("QuotaExceeded", format!("namespace {namespace} has no room for it: {said}"))
        }
        403 if said.contains("violates PodSecurity") => {
            Trouble::Refused("PodSecurity", format!("namespace {namespace} does not allow such a pod: {said}"))
        }
        403 if said.contains("because it is being terminated") => {
            Trouble::Refused("NamespaceTerminating", format!("namespace {namespace} is being removed: {said}"))
        }
        403 if said.contains("error looking up service account") => Trouble::Refused(
            "NoServiceAccount",
            format!("namespace {namespace} lacks the service account it asks for: {said}"),
        ),
        403 => Trouble::Refused(
            "Forbidden",
            format!("coredinator lacks the right to {} in namespace {namespace}: {said}", call.right()),
        ),
        404 => Trouble::NotFound(about(&"there is no")),
        409 => Trouble::Conflict(about(&"conflict over")),
        408 | 410 | 429 | 500..=599 => {
            Trouble::Away(format!("the API server answers {} to {}: {said}", status.code, call.right()))
        }
        _ => Trouble::Refused("PodRefused", about(&"the API server refuses")),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "Reason").with_code(code).boxed())
    }

    fn of(code: u16, message: &str) -> Trouble {
        judge(Call::APPLY_POD, "plant", "svc-0", &api(code, message))
    }

    #[test]
    fn every_answer_has_its_meaning() {
        assert!(matches!(of(404, "not found"), Trouble::NotFound(_)));
        assert!(matches!(of(409, "uid differs"), Trouble::Conflict(_)));
        assert!(matches!(of(422, "spec.containers: Required value"), Trouble::Refused("PodRefused", _)));
        assert!(matches!(of(400, "bad"), Trouble::Refused("PodRefused", _)));
        for code in [401, 408, 410, 429, 500, 502, 503, 504] {
            assert!(matches!(of(code, "later"), Trouble::Away(_)), "{code}");
        }
        for (message, code) in [
            ("pods \"x\" is forbidden: exceeded quota: q", "QuotaExceeded"),
            ("pods \"x\" is forbidden: violates PodSecurity \"restricted\"", "PodSecurity"),
            ("pods \"x\" is forbidden: error looking up service account plant/default: not found", "NoServiceAccount"),
            (
                "pods \"x\" is forbidden: unable to create new content in namespace plant because it is being terminated",
                "NamespaceTerminating",
            ),
            ("pods \"x\" is forbidden: User \"me\" cannot patch resource", "Forbidden"),
        ] {
            let Trouble::Refused(word, told) = of(403, message) else { panic!("{message} is refused") };
            assert_eq!(word, code);
            assert!(told.contains(message) && told.contains("namespace plant"), "{told}");
        }
        let Trouble::Refused(_, told) = of(403, "no") else { panic!("403 is refused") };
        assert!(told.contains("lacks the right to patch pods"), "{told}");
        let silent = kube::Error::Service("connection refused".into());
        assert!(matches!(judge(Call::GET_POD, "plant", "x", &silent), Trouble::Away(_)));
    }

    #[test]
    fn what_a_trouble_means_depends_on_the_call() {
        assert!(matches!(of(403, "no").not_started(), RuntimeError::NotStarted { .. }));
        assert!(matches!(of(403, "no").failed(), RuntimeError::Internal { .. }));
        assert!(matches!(of(403, "no").unknown(), RuntimeError::Unavailable { .. }));
        for error in [of(503, "").not_started(), of(503, "").failed(), of(503, "").unknown()] {
            assert!(matches!(error, RuntimeError::Unavailable { .. }));
        }
    }
}
