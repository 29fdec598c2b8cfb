//! Pods from nothing to running, and from gone to replaced: coredinator against a Deployment, in one run on one cluster.
//!
//! `COREDINATOR_TEST_KUBECONFIG=FILE cargo bench -p coredinator-runtime-k8s --bench pods`; without a cluster there is nothing to
//! measure, which is said in one line. The namespace is made and removed.

#[expect(dead_code, unused_imports, reason = "tests use more of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use coredinator_core::{Runtime, Started, StopRequest};
use coredinator_runtime_k8s::KubernetesRuntime;
use futures_util::future::join_all;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use support::{IMAGE, PATIENCE, Place, ends, request_of, runs, start, until};
use tokio::time::Instant;

const PODS: u32 = 20;
const ROUNDS: usize = 5;
const RUNS: &str = "exec sleep 1000";

#[tokio::main]
async fn main() {
    let Some(place) = Place::cluster().await else { return };
    let runtime = place.runtime("bench");
    let (mut ours, mut theirs, mut replaced, mut replaced_by_them) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let fleet = fleet(&runtime).await;
        ours.push(begun.elapsed());
        replaced.push(replace(&place, &runtime, &fleet[0]).await);
        for started in runtime.list(&[]).await.expect("pods are listed") {
            runtime.stop(&started.instance, StopRequest::KILL).await.expect("it stops");
        }
        runtime.forget(&fleet[0].instance.service).await.expect("it is forgotten");
        nothing(&place).await;

        let begun = Instant::now();
        deployment(&place).await;
        theirs.push(begun.elapsed());
        replaced_by_them.push(replaced_by_a_deployment(&place).await);
        place.api::<Deployment>().delete("bench", &DeleteParams::foreground()).await.expect("it is deleted");
        nothing(&place).await;
    }
    println!("| medians of {ROUNDS} | coredinator | Deployment |\n|---|---|---|");
    println!("| {PODS} pods from nothing to running | {} | {} |", median(ours), median(theirs));
    println!("| a pod forced away to its replacement running | {} | {} |", median(replaced), median(replaced_by_them));
}

fn median(mut of: Vec<Duration>) -> String {
    of.sort();
    format!("{:.2} s", of[of.len() / 2].as_secs_f64())
}

async fn fleet(runtime: &KubernetesRuntime) -> Vec<Started> {
    let more = json!({"replicas": PODS, "stop_grace_period": 1});
    let starting = (0..PODS).map(|replica| start(runtime, request_of("bench", replica, RUNS, more.clone())));
    let fleet = join_all(starting).await;
    for started in &fleet {
        runs(&mut runtime.watch(&started.instance)).await;
    }
    fleet
}

/// From a pod's end to its replacement running, as a supervisor does it: it is told of the end, and starts the next.
async fn replace(place: &Place, runtime: &KubernetesRuntime, one: &Started) -> Duration {
    let mut watch = runtime.watch(&one.instance);
    runs(&mut watch).await;
    let begun = Instant::now();
    let now = DeleteParams::default().grace_period(0);
    place.api::<Pod>().delete(one.instance.id.as_str(), &now).await.expect("it is deleted");
    ends(&mut watch).await;
    let more = json!({"replicas": PODS, "stop_grace_period": 1});
    let next = start(runtime, request_of("bench", 0, RUNS, more)).await;
    runs(&mut runtime.watch(&next.instance)).await;
    begun.elapsed()
}

/// The same pods, by the cluster's own controllers.
async fn deployment(place: &Place) {
    let labels = json!({"app": "bench"});
    let made = json!({
        "metadata": {"name": "bench"},
        "spec": {
            "replicas": PODS, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 1, "securityContext": {"runAsNonRoot": true, "runAsUser": 1000},
                "shareProcessNamespace": true, "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "args": ["sh", "-c", RUNS]}],
            }},
        },
    });
    let made: Deployment = serde_json::from_value(made).expect("a Deployment");
    place.api::<Deployment>().create(&PostParams::default(), &made).await.expect("it is made");
    until("the Deployment runs", async || running(place).await.len() == PODS as usize).await;
}

async fn running(place: &Place) -> Vec<String> {
    let listed = place.api::<Pod>().list(&ListParams::default().labels("app=bench")).await.expect("pods are listed");
    let runs = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    listed.items.into_iter().filter(runs).filter_map(|pod| pod.metadata.name).collect()
}

async fn replaced_by_a_deployment(place: &Place) -> Duration {
    let one = running(place).await.remove(0);
    let begun = Instant::now();
    place.api::<Pod>().delete(&one, &DeleteParams::default().grace_period(0)).await.expect("it is deleted");
    until("it is replaced", async || {
        let now = running(place).await;
        now.len() == PODS as usize && !now.contains(&one)
    })
    .await;
    begun.elapsed()
}

async fn nothing(place: &Place) {
    let gone = until("nothing is left", async || place.pods().await.is_empty());
    tokio::time::timeout(PATIENCE, gone).await.expect("pods end");
}
