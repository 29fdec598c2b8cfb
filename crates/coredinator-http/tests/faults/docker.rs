//! Services that are containers: the real binary on a real Docker engine.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    engine::{Engine, IMAGE},
    support::Plant,
};

fn service() -> Value {
    json!({
        "runtime": "docker", "image": IMAGE, "network_mode": "none",
        "command": ["sh", "-c", "echo hello from $COREDINATOR_SERVICE; exec sleep 1000"],
        "backoff": {"initial": 0.02, "max": 0.1},
        "stop_grace_period": 5,
    })
}

/// The engine's ids of the containers that run.
fn containers(engine: &Engine) -> BTreeSet<String> {
    engine.asked(&["ps", "--quiet", "--no-trunc"]).lines().map(str::to_owned).collect()
}

fn is_running(service: &Value) -> bool {
    service["ready"] == 1 && service["instances"][0]["state"] == "running"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_run_adopted_replaced_and_stopped() {
    let Some(engine) = Engine::start().await else { return };
    let mut plant = Plant::new(&json!({ "svc": service() }));
    plant.prelude = Some(format!("export DOCKER_HOST={}", engine.host()));
    plant.start().await;
    plant.service_until("svc", "runs", is_running).await;
    let first = containers(&engine);
    assert_eq!(first.len(), 1);
    plant
        .until("its output is read", async |plant| {
            let logs = plant.get("/api/coredinator/services/svc/logs").await;
            logs.is_some_and(|logs| logs.body.to_string().contains("hello from svc"))
        })
        .await;

    for _ in 0..3 {
        plant.kill().await;
        assert_eq!(containers(&engine), first, "containers outlive coredinator");
        plant.start().await;
        plant.service_until("svc", "is adopted", is_running).await;
        assert_eq!(containers(&engine), first, "and are adopted, not doubled");
    }

    let id = first.first().map_or("", String::as_str);
    engine.asked(&["kill", id]);
    plant
        .service_until("svc", "is replaced", |service| is_running(service) && service["instances"][0]["restarts"] == 1)
        .await;
    let second = containers(&engine);
    assert!(second.len() == 1 && second != first, "{second:?}");

    plant.order("svc", "stop").await.expect("an answer").ok();
    plant.service_until("svc", "is stopped", |service| service["instances"][0]["state"] == "stopped").await;
    assert_eq!(containers(&engine), BTreeSet::new());
    plant.deregister("svc").await.expect("an answer").ok();
    plant.until("nothing is left", async |_| engine.asked(&["ps", "--all", "--quiet"]).is_empty()).await;
    plant.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_comes_late_is_taken_up() {
    let Some(mut engine) = Engine::start().await else { return };
    engine.halt();
    let mut plant = Plant::new(&json!({ "svc": service() }));
    plant.prelude = Some(format!("export DOCKER_HOST={}", engine.host()));
    plant.launch();
    assert!(plant.listens().await, "it serves without an engine:\n{}", plant.said());
    plant
        .until("it says why its services wait", async |plant| plant.said().contains("Docker engine cannot be reached"))
        .await;
    engine.run().await.expect("the engine starts");
    plant.service_until("svc", "runs", is_running).await;
    plant.terminate().await;
    assert_eq!(containers(&engine), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_containers_needs_no_engine() {
    let mut plant = Plant::new(&json!({}));
    plant.prelude = Some("export DOCKER_HOST=unix:///nowhere/docker.sock".to_owned());
    plant.start().await;
    assert!(plant.terminate().await.success());
    assert!(!plant.said().contains("Docker"), "{}", plant.said());
}
