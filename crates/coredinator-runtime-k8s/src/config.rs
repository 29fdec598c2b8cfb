//! What the runtime is told when it is made.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use coredinator_core::{SharedClock, SystemClock};

/// How the API server is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// By the kubeconfig that `KUBECONFIG` names, else `~/.kube/config`, else as a pod of the cluster by its service account.
    #[default]
    Infer,
    /// By this kubeconfig file, and of it this context (`None`: its current one).
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context's name.
        context: Option<String>,
    },
    /// As a pod of the cluster, by its service account.
    InCluster,
}

/// What a [`KubernetesRuntime`](crate::KubernetesRuntime) needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KubernetesRuntimeOptions {
    /// Who starts these pods: unique per store and the same after every restart. Objects that carry another owner are never
    /// touched.
    pub owner: String,
    /// How the API server is found.
    pub access: Access,
    /// Where services live that name no namespace. `None`: the namespace of the kubeconfig's context or of the service
    /// account, else `default`.
    pub namespace: Option<String>,
    /// Further namespaces in which instances of ours may live: they are looked through for instances that nobody remembers.
    /// A namespace that a service names is looked after from its first start on in any case.
    pub namespaces: BTreeSet<String>,
    /// Stamps ends of which the cluster knows no time.
    pub clock: SharedClock,
    /// How long a start waits for the pod to run before it answers that it has been taken on.
    pub taken_on_after: Duration,
    /// How long a pod may stay beyond its grace until its node is held to be lost, and the pod with it.
    pub lost_after: Duration,
    /// How long after the last start or stop of a service its disruption budget is fitted to what is left of it: longer than
    /// it takes to replace an instance, so that a restart leaves the budget alone.
    pub settle: Duration,
}

impl KubernetesRuntimeOptions {
    /// The machine's clock, and the cluster that the environment names.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            access: Access::default(),
            namespace: None,
            namespaces: BTreeSet::new(),
            clock: Arc::new(SystemClock),
            taken_on_after: Duration::from_secs(10),
            lost_after: Duration::from_secs(60),
            settle: Duration::from_secs(60),
        }
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The same with the API server found like this, whatever the environment says.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The same with another namespace for services that name none.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The same, looking through these namespaces too.
    #[must_use]
    pub fn with_namespaces(mut self, namespaces: impl IntoIterator<Item = String>) -> Self {
        self.namespaces.extend(namespaces);
        self
    }
}
