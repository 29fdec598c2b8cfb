//! Services that are pods: the real binary on a double of a cluster, and, where it says so, on a real one too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cluster::{Double, Fault, IMAGE, Place, Then},
    support::{Plant, with},
};

/// How many times coredinator is killed at random; `COREDINATOR_FAULT_ROUNDS` asks for more.
const ROUNDS: u32 = 6;

fn service() -> Value {
    json!({
        "runtime": "kubernetes", "image": IMAGE, "pull": "never", "user": 1000,
        "command": ["sh", "-c", "echo hello from $COREDINATOR_SERVICE; exec sleep 1000"],
        "backoff": {"initial": 0.02, "max": 0.1},
        "stop_grace_period": 5,
    })
}

fn plant(double: &Double, services: &Value) -> (Plant, tempfile::TempDir) {
    plant_by(&double.kubeconfig(), services)
}

fn plant_by(kubeconfig: &str, services: &Value) -> (Plant, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig).unwrap();
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

/// Of each replica that has a pod whose program has not ended, which those are, by the API server's account alone.
async fn living(place: &Place) -> BTreeMap<String, Vec<String>> {
    let mut living: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in place.all_pods().await {
        let pod = serde_json::to_value(pod).unwrap();
        let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
            || pod["status"]["containerStatuses"][0]["state"].get("terminated").is_some();
        let label = |key: &str| pod["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
        if !over {
            let replica = format!("{}/{}", label("coredinator.service"), label("coredinator.replica"));
            living.entry(replica).or_default().push(label("coredinator.instance"));
        }
    }
    let doubled: Vec<_> = living.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:#?}");
    living
}

/// The cluster has made the pod, and coredinator has not heard of that: neither in its own namespace nor in the service's is
/// the pod forgotten, or made twice.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_a_pod_and_its_record_the_pod_is_found() {
    for namespace in ["plant", "elsewhere"] {
        let double = Double::start().await;
        let service = with(service(), json!({"namespace": namespace}));
        let (mut plant, _dir) = plant(&double, &json!({ "svc": service }));
        let then = Then::DoneAndSlow(Duration::from_secs(3600));
        double.fault(Fault { resource: "pods", verb: "patch", times: 1, then });
        plant.launch();
        plant.until("the pod is made", async |_| !double.names("pods", namespace).is_empty()).await;
        plant.kill().await;
        let first = double.names("pods", namespace);
        plant.start().await;
        plant.service_until("svc", "runs", is_running).await;
        assert_eq!((double.names("pods", namespace), double.processes()), (first, 1), "{namespace}");
        plant.terminate().await;
    }
}

/// A crash between a configuration file and the pod that is to find it leaves the Secret, and nobody knows of it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_a_file_and_its_pod_no_file_is_left() {
    let double = Double::start().await;
    let (mut plant, _dir) = plant(&double, &json!({ "svc": service() }));
    double.fault(Fault { resource: "pods", verb: "patch", times: 1, then: Then::Slow(Duration::from_secs(3600)) });
    plant.launch();
    plant.until("the file is brought", async |_| double.names("secrets", "plant").len() == 1).await;
    assert!(pods(&double).is_empty(), "its pod is not there yet");
    plant.kill().await;
    plant.start().await;
    plant.service_until("svc", "runs", is_running).await;
    assert_eq!(double.names("secrets", "plant"), pods(&double), "each pod has its own");
    // And once more, with the service gone meanwhile: its pod ends, and what never had one goes.
    let before = double.names("secrets", "plant");
    double.fault(Fault { resource: "pods", verb: "patch", times: 1, then: Then::Slow(Duration::from_secs(3600)) });
    plant.order("svc", "restart").await.expect("an answer").ok();
    plant.until("a file is brought", async |_| !double.names("secrets", "plant").is_subset(&before)).await;
    plant.kill().await;
    plant.declare(&json!({}));
    plant.start().await;
    // The double takes no objects away with their owners, as a cluster does.
    plant
        .until("what was left without a pod is gone", async |_| double.names("secrets", "plant").is_subset(&before))
        .await;
    plant.terminate().await;
}

mod on_a_double {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_at_any_instant_nothing_is_doubled_or_orphaned() {
        super::killed_at_any_instant(Place::double().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_api_server_that_is_cut_off_stops_nothing() {
        super::cut_off(Place::double().await).await;
    }
}

mod on_a_cluster {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_at_any_instant_nothing_is_doubled_or_orphaned() {
        if let Some(place) = Place::cluster().await {
            super::killed_at_any_instant(place).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_api_server_that_is_cut_off_stops_nothing() {
        if let Some(place) = Place::cluster().await {
            super::cut_off(place).await;
        }
    }
}

async fn killed_at_any_instant(place: Place) {
    let seed =
        std::env::var("COREDINATOR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("COREDINATOR_SEED={seed}");
    let rounds =
        std::env::var("COREDINATOR_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut rng = fastrand::Rng::with_seed(seed);
    let base = with(service(), json!({"stop_grace_period": 1}));
    let flaky = with(base.clone(), json!({"command": ["sh", "-c", "sleep 0.3; exit 1"]}));
    let (mut plant, _dir) =
        plant_by(&place.kubeconfig(), &json!({ "svc": with(base, json!({"replicas": 2})), "flaky": flaky }));
    plant.patience = place.patience;
    plant.start().await;
    let mut replicas = 2;
    for _ in 0..rounds {
        // What is asked without an answer may or may not have been taken; its being asked again settles it.
        replicas = rng.u32(1..4);
        match rng.u8(..3) {
            0 => drop(plant.order("svc", "restart").await),
            1 => drop(plant.order("flaky", "restart").await),
            _ => {}
        }
        drop(plant.scale("svc", replicas).await);
        tokio::time::sleep(Duration::from_millis(rng.u64(..if place.as_double().is_some() { 400 } else { 3000 })))
            .await;
        plant.kill().await;
        living(&place).await;
        plant.start().await;
        living(&place).await;
    }
    plant.scale("svc", replicas).await.expect("an answer").ok();
    plant.order("flaky", "stop").await.expect("an answer").ok();
    let wanted: BTreeSet<String> = (0..replicas).map(|replica| format!("svc/{replica}")).collect();
    plant
        .until("as many run as were asked for, and no others", async |plant| {
            let service = plant.service("svc").await;
            living(&place).await.into_keys().collect::<BTreeSet<_>>() == wanted && service["ready"] == replicas
        })
        .await;
    for name in ["svc", "flaky"] {
        plant.deregister(name).await.expect("an answer").ok();
    }
    plant.until("nothing is left", async |_| place.pods().await.is_empty()).await;
    plant.terminate().await;
}

async fn cut_off(place: Place) {
    let line = place.line().await;
    let services = json!({ "svc": with(service(), json!({"replicas": 2})) });
    let (mut plant, _dir) = plant_by(&place.kubeconfig_over(&line), &services);
    plant.patience = place.patience;
    plant.start().await;
    plant.service_until("svc", "runs twice", |service| service["ready"] == 2).await;
    let before = living(&place).await;
    line.cut();
    // Restarted meanwhile it serves, and says why its services wait.
    plant.kill().await;
    plant.launch();
    assert!(plant.listens().await, "it serves without a cluster:\n{}", plant.said());
    plant
        .until("it says why its services wait", async |plant| plant.said().contains("API server cannot be reached"))
        .await;
    // One ends while nobody sees it.
    let gone = before["svc/1"][0].clone();
    place.end_pod(&gone).await;
    assert_eq!(living(&place).await.get("svc/0"), before.get("svc/0"));
    line.mend();
    plant
        .until("what is left is adopted, and what ended is replaced", async |plant| {
            let now = living(&place).await;
            plant.service("svc").await["ready"] == 2
                && now.get("svc/0") == before.get("svc/0")
                && now.get("svc/1").is_some_and(|ids| *ids != [gone.clone()])
        })
        .await;
    for _ in 0..3 {
        line.break_off();
        plant.order("svc", "restart").await.expect("an answer").ok();
        let now = living(&place).await;
        plant
            .until("both are new", async |plant| {
                let then = living(&place).await;
                then.len() == 2
                    && then.iter().all(|(replica, ids)| now.get(replica) != Some(ids))
                    && plant.service("svc").await["ready"] == 2
            })
            .await;
    }
    plant.terminate().await;
    assert_eq!(living(&place).await, BTreeMap::new());
}
