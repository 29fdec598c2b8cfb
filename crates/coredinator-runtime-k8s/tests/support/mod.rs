//! What tests stand on: a double of a cluster, and, where `COREDINATOR_TEST_KUBECONFIG` names one, a real cluster.

mod double;
mod line;
mod place;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coredinator_core::{InstanceId, Observation, ObservationStream, Runtime, ServiceSpec, StartRequest, Started};
use coredinator_runtime_k8s::{KubernetesRuntime, KubernetesRuntimeOptions};
pub(crate) use double::{Double, Fault, IMAGE, Then};
use futures_util::StreamExt;
use kube::{Client, Config};
pub(crate) use line::Line;
pub(crate) use place::Place;
use serde_json::{Value, json};
use tokio::time::timeout;

/// An upper bound on whatever is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The namespace that tests on the double use.
pub(crate) const NAMESPACE: &str = "plant";

/// Runs tests on the double and, where there is one, on the cluster.
#[macro_export]
macro_rules! everywhere {
    ($($name:ident),+ $(,)?) => {
        mod on_a_double {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::double().await).await;
            })+
        }
        $crate::on_a_cluster!($($name),+);
    };
}

/// Runs tests on the cluster, where there is one.
#[macro_export]
macro_rules! on_a_cluster {
    ($($name:ident),+ $(,)?) => {
        mod on_a_cluster {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(place) = super::Place::cluster().await {
                    super::$name(place).await;
                }
            })+
        }
    };
}

/// Options for tests: they wait for less.
pub(crate) fn options(owner: &str, namespace: &str) -> KubernetesRuntimeOptions {
    let mut options = KubernetesRuntimeOptions::new(owner).with_namespace(namespace);
    options.settle = Duration::from_millis(300);
    // A busy node takes its time; whoever tests what is taken on says so.
    options.taken_on_after = Duration::from_secs(45);
    options
}

pub(crate) fn client(double: &Double) -> Client {
    let mut config = Config::new(double.url().parse().expect("a URL"));
    config.default_retry = false;
    Client::try_from(config).expect("a client is made")
}

pub(crate) fn runtime(double: &Double, owner: &str) -> KubernetesRuntime {
    KubernetesRuntime::with_client(options(owner, NAMESPACE), client(double))
}

pub(crate) fn request(script: &str, more: Value) -> StartRequest {
    request_of("svc", 0, script, more)
}

#[expect(clippy::needless_pass_by_value, reason = "as `json!` makes them")]
pub(crate) fn request_of(service: &str, replica: u32, script: &str, more: Value) -> StartRequest {
    let mut document = json!({
        "runtime": "kubernetes", "image": IMAGE, "pull": "never", "user": 1000, "command": ["sh", "-c", script],
    });
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec = ServiceSpec::parse("", Some(service), document, &Default::default()).unwrap();
    let id = InstanceId::coin(&spec.name, replica, fastrand::u64(..));
    StartRequest { id, replica, spec: Arc::new(spec), preferred_port: None, environment: BTreeMap::new() }
}

pub(crate) async fn start(runtime: &KubernetesRuntime, request: StartRequest) -> Started {
    timeout(PATIENCE, runtime.start(request)).await.expect("a start ends").expect("it starts")
}

pub(crate) async fn started(runtime: &KubernetesRuntime, script: &str, more: Value) -> Started {
    start(runtime, request(script, more)).await
}

pub(crate) async fn observed(watch: &mut ObservationStream) -> Observation {
    timeout(PATIENCE, watch.next()).await.expect("an observation").expect("no end before the end")
}

pub(crate) async fn runs(watch: &mut ObservationStream) -> Started {
    loop {
        match observed(watch).await {
            Observation::Running(started) => return started,
            Observation::Waiting(_) => {}
            other => panic!("expected it to run, but saw {other:?}"),
        }
    }
}

pub(crate) async fn ends(watch: &mut ObservationStream) -> coredinator_core::Exit {
    loop {
        if let Observation::Exited(exit) = observed(watch).await {
            return exit;
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}
