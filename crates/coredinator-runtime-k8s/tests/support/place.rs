//! Where a test runs pods: on a double, or in a namespace of its own of a real cluster.

use std::{io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use coredinator_runtime_k8s::{KubernetesRuntime, rbac};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, Pod, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
};
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, ListParams, PostParams},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};

use serde_json::json;

use super::{Double, NAMESPACE, line::Line, options};

/// A place for pods; what is there goes with it.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// An upper bound on what a test waits for here.
    pub(crate) patience: Duration,
    /// Leads here: its context names the namespace.
    kubeconfig: Kubeconfig,
    guard: Arc<Guard>,
}

/// What is dropped with a place.
enum Guard {
    Double(Double),
    Cluster { kubeconfig: Box<Kubeconfig>, namespace: String },
}

impl Place {
    /// On a double.
    pub(crate) async fn double() -> Self {
        let double = Double::start().await;
        let kubeconfig = Kubeconfig::from_yaml(&double.kubeconfig()).expect("a kubeconfig");
        Self {
            client: connect(&kubeconfig).await,
            namespace: NAMESPACE.to_owned(),
            patience: Duration::from_secs(60),
            kubeconfig,
            guard: Arc::new(Guard::Double(double)),
        }
    }

    /// On the cluster that `COREDINATOR_TEST_KUBECONFIG` names; `None`, and a line that says so, where it names none.
    pub(crate) async fn cluster() -> Option<Self> {
        let Some(path) = std::env::var_os("COREDINATOR_TEST_KUBECONFIG").map(PathBuf::from) else {
            static SAID: std::sync::Once = std::sync::Once::new();
            SAID.call_once(|| {
                // Not `eprintln!`, which is captured where a test passes.
                let why = "COREDINATOR_TEST_KUBECONFIG names no cluster";
                let _ = writeln!(std::io::stderr(), "SKIPPED, no test ran on a real Kubernetes cluster: {why}");
            });
            return None;
        };
        let mut kubeconfig = Kubeconfig::read_from(&path).expect("COREDINATOR_TEST_KUBECONFIG can be read");
        let client = connect(&kubeconfig).await;
        let namespace = namespace(&client).await;
        let current = kubeconfig.current_context.clone();
        for named in &mut kubeconfig.contexts {
            if current.as_ref() == Some(&named.name)
                && let Some(context) = &mut named.context
            {
                context.namespace = Some(namespace.clone());
            }
        }
        let guard = Guard::Cluster { kubeconfig: Box::new(kubeconfig.clone()), namespace: namespace.clone() };
        // A real kubelet takes its time, above all where several tests keep one node busy.
        Some(Self { client, namespace, patience: Duration::from_secs(150), kubeconfig, guard: Arc::new(guard) })
    }

    /// The double that this is; `None`: it is a real cluster.
    pub(crate) fn as_double(&self) -> Option<&Double> {
        match &*self.guard {
            Guard::Double(double) => Some(double),
            Guard::Cluster { .. } => None,
        }
    }

    /// Another namespace, which goes with the place that is answered.
    pub(crate) async fn beside(&self) -> Self {
        if let Guard::Cluster { kubeconfig, .. } = &*self.guard {
            let namespace = namespace(&self.client).await;
            let guard = Arc::new(Guard::Cluster { kubeconfig: kubeconfig.clone(), namespace: namespace.clone() });
            Self { namespace, guard, ..self.clone() }
        } else {
            // The double has whatever namespace it is asked for.
            Self { namespace: format!("{NAMESPACE}-{:08x}", fastrand::u32(..)), ..self.clone() }
        }
    }

    /// A runtime of this owner that works here.
    pub(crate) fn runtime(&self, owner: &str) -> KubernetesRuntime {
        KubernetesRuntime::with_client(options(owner, &self.namespace), self.client.clone())
    }

    /// The same, with a line of its own to the API server.
    pub(crate) async fn runtime_over(&self, line: &Line, owner: &str) -> KubernetesRuntime {
        let client = connect(&self.over(line)).await;
        KubernetesRuntime::with_client(options(owner, &self.namespace), client)
    }

    /// The token of a service account that has the rights of the table here and in `others`, and no others.
    pub(crate) async fn token(&self, others: &[&Self]) -> String {
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "coredinator"}})).unwrap();
        let accounts = self.api::<ServiceAccount>();
        accounts.create(&PostParams::default(), &account).await.expect("an account can be made");
        for of in others.iter().copied().chain([self]) {
            let role = rbac::role("coredinator", &of.namespace);
            of.api::<Role>().create(&PostParams::default(), &role).await.expect("a role can be made");
            let binding = rbac::role_binding("coredinator", &of.namespace, "coredinator", &self.namespace);
            of.api::<RoleBinding>().create(&PostParams::default(), &binding).await.expect("a binding can be made");
        }
        let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref: None, expiration_seconds: Some(3600) };
        let asked = TokenRequest { spec, ..TokenRequest::default() };
        let made = accounts.create_token_request("coredinator", &PostParams::default(), &asked).await;
        made.expect("a token").status.expect("it is told").token
    }

    /// The certificate of the authority that vouches for the API server, where the kubeconfig holds it.
    pub(crate) fn authority(&self) -> Option<Vec<u8>> {
        let cluster = self.kubeconfig.clusters.iter().find_map(|named| named.cluster.as_ref())?;
        match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
            (Some(data), _) => Some(serde_json::from_value::<k8s_openapi::ByteString>(json!(data)).ok()?.0),
            (None, Some(file)) => std::fs::read(file).ok(),
            (None, None) => None,
        }
    }

    /// A client that is known by this token alone.
    pub(crate) async fn client_with(&self, token: &str) -> Client {
        let mut kubeconfig = self.kubeconfig.clone();
        for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
            *user = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        }
        connect(&kubeconfig).await
    }

    /// A line to the API server.
    pub(crate) async fn line(&self) -> Line {
        let server = self.server();
        let host = server.host().expect("a server has a host");
        let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
        Line::to(format!("{host}:{port}")).await
    }

    /// A kubeconfig that leads here, as a text.
    pub(crate) fn kubeconfig(&self) -> String {
        serde_json::to_string(&self.kubeconfig).expect("a kubeconfig is YAML, and so is JSON")
    }

    /// The same over a line.
    pub(crate) fn kubeconfig_over(&self, line: &Line) -> String {
        serde_json::to_string(&self.over(line)).expect("a kubeconfig is YAML, and so is JSON")
    }

    /// Where the API server of the current context is.
    pub(crate) fn server(&self) -> axum::http::Uri {
        let config = &self.kubeconfig;
        let context = config.contexts.iter().find(|named| Some(&named.name) == config.current_context.as_ref());
        let name = context.and_then(|named| named.context.as_ref()).map(|context| &context.cluster);
        let cluster = config.clusters.iter().find(|named| Some(&named.name) == name);
        let server = cluster.and_then(|named| named.cluster.as_ref()?.server.as_ref());
        server.expect("the current context has a server").parse().expect("a URL")
    }

    fn over(&self, line: &Line) -> Kubeconfig {
        let mut kubeconfig = self.kubeconfig.clone();
        let server = self.server();
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            let is_plain = server.scheme_str() == Some("http");
            cluster.server = Some(format!("{}://{}", if is_plain { "http" } else { "https" }, line.address));
            // Its certificate is for the name by which it is reached without the line.
            if !is_plain && cluster.tls_server_name.is_none() {
                cluster.tls_server_name = server.host().map(str::to_owned);
            }
        }
        kubeconfig
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pods that are here.
    pub(crate) async fn all_pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default()).await.expect("pods can be listed").items
    }

    /// The names of the pods that are here.
    pub(crate) async fn pods(&self) -> Vec<String> {
        self.all_pods().await.into_iter().filter_map(|pod| pod.metadata.name).collect()
    }

    /// Deletes a pod as anybody may, and waits until it is no more.
    pub(crate) async fn end_pod(&self, name: &str) {
        let pods = self.api::<Pod>();
        pods.delete(name, &DeleteParams::default().grace_period(1)).await.expect("anybody may delete a pod");
        super::until("a pod that was deleted is gone", async || pods.get_opt(name).await.is_ok_and(|it| it.is_none()))
            .await;
    }
}

/// A new namespace in which pods are admitted.
async fn namespace(client: &Client) -> String {
    let name = format!("coredinator-test-{:08x}", fastrand::u32(..));
    let made: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &made).await.expect("a namespace can be made");
    // Without it no pod is admitted, and the cluster makes it in its own time.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
    super::until("the namespace has its service account", async || {
        accounts.get_opt("default").await.is_ok_and(|account| account.is_some())
    })
    .await;
    name
}

async fn connect(kubeconfig: &Kubeconfig) -> Client {
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await.expect("it leads to a cluster");
    config.default_retry = false;
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
                let client = connect(&kubeconfig).await;
                // Pods of tests that failed need not end in order.
                let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
                let _ = pods.delete_collection(&DeleteParams::default().grace_period(1), &ListParams::default()).await;
                let namespaces: Api<Namespace> = Api::all(client);
                let removed = namespaces.delete(&namespace, &DeleteParams::background()).await;
                if let Err(error) = removed {
                    eprintln!("the namespace {namespace} is left behind: {error}");
                }
            });
        });
        let _ = removing.join();
    }
}
