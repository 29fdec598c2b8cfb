//! Services that are pods: the real binary on a double of a cluster.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    cluster::{Double, IMAGE},
    support::Plant,
};

fn service() -> Value {
    json!({
        "runtime": "kubernetes", "image": IMAGE, "pull": "never", "user": 1000,
        "command": ["sh", "-c", "echo hello from $COREDINATOR_SERVICE; exec sleep 1000"],
        "backoff": {"initial": 0.02, "max": 0.1},
        "stop_grace_period": 5,
    })
}

fn plant(double: &Double, services: &Value) -> (Plant, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, double.kubeconfig()).unwrap();
    let mut plant = Plant::new(services);
    plant.prelude = Some(format!("export KUBECONFIG={}", path.display()));
    (plant, dir)
}

fn pods(double: &Double) -> BTreeSet<String> {
    double.names("pods", "plant")
}

fn is_running(service: &Value) -> bool {
    service["ready"] == 1 && service["instances"][0]["state"] == "running"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_run_adopted_replaced_and_stopped() {
    let double = Double::start().await;
    let (mut plant, _dir) = plant(&double, &json!({ "svc": service() }));
    plant.start().await;
    plant.service_until("svc", "runs", is_running).await;
    let first = pods(&double);
    assert_eq!(first.len(), 1);
    plant
        .until("its output is read", async |plant| {
            let logs = plant.get("/api/coredinator/services/svc/logs").await;
            logs.is_some_and(|logs| logs.body.to_string().contains("hello from svc"))
        })
        .await;

    for _ in 0..3 {
        plant.kill().await;
        assert_eq!((pods(&double), double.processes()), (first.clone(), 1), "pods outlive coredinator");
        plant.start().await;
        plant.service_until("svc", "is adopted", is_running).await;
        assert_eq!((pods(&double), double.processes()), (first.clone(), 1), "and are adopted, not doubled");
    }

    let name = first.first().map_or("", String::as_str);
    double.alter("pods", "plant", name, |pod| {
        pod["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."});
    });
    plant
        .service_until("svc", "is replaced", |service| is_running(service) && service["instances"][0]["restarts"] == 1)
        .await;
    assert_eq!(pods(&double).difference(&first).count(), 1);

    plant.order("svc", "stop").await.expect("an answer").ok();
    plant.service_until("svc", "is stopped", |service| service["instances"][0]["state"] == "stopped").await;
    plant.deregister("svc").await.expect("an answer").ok();
    plant
        .until("nothing is left", async |_| pods(&double).is_empty() && double.names("services", "plant").is_empty())
        .await;
    plant.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kubelet_says_of_health_is_believed() {
    let double = Double::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (ready, alive) = (dir.path().join("ready"), dir.path().join("alive"));
    std::fs::write(&alive, "").unwrap();
    let mut service = service();
    service["probe_by"] = json!("kubelet");
    service["health_check"] = json!({"command": ["test", "-e", alive], "interval": 1, "retries": 2});
    service["readiness_check"] = json!({"command": ["test", "-e", ready], "interval": 0.1});
    let (mut plant, _dir) = plant(&double, &json!({ "svc": service }));
    plant.start().await;
    let up = |service: &Value| service["instances"][0]["state"] == "running";
    plant.service_until("svc", "runs, and is not ready", |service| up(service) && service["ready"] == 0).await;
    std::fs::write(&ready, "").unwrap();
    plant.service_until("svc", "is ready", is_running).await;
    std::fs::remove_file(&ready).unwrap();
    plant.service_until("svc", "is not ready, and goes on", |service| up(service) && service["ready"] == 0).await;
    assert_eq!(pods(&double).len(), 1, "it is not restarted for that");
    std::fs::remove_file(&alive).unwrap();
    plant
        .service_until("svc", "is ended by its kubelet and replaced", |service| {
            service["instances"][0]["restarts"].as_u64().is_some_and(|restarts| restarts >= 1)
        })
        .await;
    plant.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_comes_late_is_taken_up() {
    let mut double = Double::start().await;
    double.halt().await;
    let (mut plant, _dir) = plant(&double, &json!({ "svc": service() }));
    plant.launch();
    assert!(plant.listens().await, "it serves without a cluster:\n{}", plant.said());
    plant
        .until("it says why its services wait", async |plant| plant.said().contains("API server cannot be reached"))
        .await;
    double.resume().await;
    plant.service_until("svc", "runs", is_running).await;
    plant.terminate().await;
    plant.until("its pods have ended", async |_| double.processes() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_pods_needs_no_cluster() {
    let mut plant = Plant::new(&json!({}));
    plant.prelude = Some("export KUBECONFIG=/nowhere/kubeconfig".to_owned());
    plant.start().await;
    assert!(plant.terminate().await.success());
    assert!(!plant.said().contains("cluster"), "{}", plant.said());
}
