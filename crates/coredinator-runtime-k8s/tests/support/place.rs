//! Where a test runs pods: on a double, or in a namespace of its own of a real cluster.

use std::{io::Write as _, path::PathBuf, sync::Arc};

use coredinator_runtime_k8s::KubernetesRuntime;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{Double, NAMESPACE, client, options};

/// A place for pods; what is there goes with it.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// What is dropped with it.
    _guard: Arc<Guard>,
}

enum Guard {
    Double { _double: Double },
    Cluster { kubeconfig: PathBuf, namespace: String },
}

impl Place {
    /// On a double.
    pub(crate) async fn double() -> Self {
        let double = Double::start().await;
        let client = client(&double);
        Self { client, namespace: NAMESPACE.to_owned(), _guard: Arc::new(Guard::Double { _double: double }) }
    }

    /// On the cluster that `COREDINATOR_TEST_KUBECONFIG` names; `None`, and a line that says so, where it names none.
    pub(crate) async fn cluster() -> Option<Self> {
        let Some(kubeconfig) = std::env::var_os("COREDINATOR_TEST_KUBECONFIG").map(PathBuf::from) else {
            static SAID: std::sync::Once = std::sync::Once::new();
            SAID.call_once(|| {
                // Not `eprintln!`, which is captured where a test passes.
                let why = "COREDINATOR_TEST_KUBECONFIG names no cluster";
                let _ = writeln!(std::io::stderr(), "SKIPPED, no test ran on a real Kubernetes cluster: {why}");
            });
            return None;
        };
        let client = connect(&kubeconfig).await;
        let namespace = format!("coredinator-test-{:08x}", fastrand::u32(..));
        let made: Namespace =
            serde_json::from_value(serde_json::json!({"metadata": {"name": namespace}})).expect("a namespace");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &made).await.expect("a namespace can be made");
        // Without it no pod is admitted, and the cluster makes it in its own time.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        super::until("the namespace has its service account", async || {
            accounts.get_opt("default").await.is_ok_and(|account| account.is_some())
        })
        .await;
        let guard = Guard::Cluster { kubeconfig, namespace: namespace.clone() };
        Some(Self { client, namespace, _guard: Arc::new(guard) })
    }

    /// A runtime of this owner that works here.
    pub(crate) fn runtime(&self, owner: &str) -> KubernetesRuntime {
        KubernetesRuntime::with_client(options(owner, &self.namespace), self.client.clone())
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The names of the pods that are here.
    pub(crate) async fn pods(&self) -> Vec<String> {
        let listed = self.api::<Pod>().list(&ListParams::default()).await.expect("pods can be listed");
        listed.items.into_iter().filter_map(|pod| pod.metadata.name).collect()
    }
}

async fn connect(kubeconfig: &PathBuf) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("COREDINATOR_TEST_KUBECONFIG can be read");
    let config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("it leads to a cluster");
    Client::try_from(config).expect("a client is made")
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Self::Cluster { kubeconfig, namespace } = self else { return };
        let (kubeconfig, namespace) = (kubeconfig.clone(), namespace.clone());
        // Of its own, for the one that the test ran on may be ending.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let namespaces: Api<Namespace> = Api::all(connect(&kubeconfig).await);
                let removed = namespaces.delete(&namespace, &DeleteParams::background()).await;
                if let Err(error) = removed {
                    eprintln!("the namespace {namespace} is left behind: {error}");
                }
            });
        });
        let _ = removing.join();
    }
}
