//! One file of services, and the same story whatever runs them.

use std::time::Duration;

use serde_json::{Value, json};

#[cfg(feature = "kubernetes")]
use crate::cluster::Place;
#[cfg(feature = "docker")]
use crate::engine::Engine;
use crate::support::{PATIENCE, Plant, with};

/// What runs the services of the file, and what a document needs for that.
struct Driver {
    name: &'static str,
    prelude: Option<String>,
    more: Value,
    patience: Duration,
    /// Goes with it.
    _dir: Option<tempfile::TempDir>,
}

/// A process runs by itself, a container needs an image. A driver is a function here, and a line in the test.
fn process() -> Driver {
    Driver { name: "process", prelude: None, more: json!({"runtime": "process"}), patience: PATIENCE, _dir: None }
}

#[cfg(feature = "docker")]
fn docker(engine: &Engine) -> Driver {
    let prelude = Some(format!("export DOCKER_HOST={}", engine.host()));
    let more = json!({"runtime": "docker", "image": crate::engine::IMAGE, "network_mode": "none"});
    Driver { name: "docker", prelude, more, patience: PATIENCE, _dir: None }
}

#[cfg(feature = "kubernetes")]
fn kubernetes(place: &Place) -> Driver {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, place.kubeconfig()).unwrap();
    let prelude = Some(format!("export KUBECONFIG={}", path.display()));
    let more = json!({"runtime": "kubernetes", "image": crate::cluster::IMAGE, "pull": "never", "user": 1000});
    Driver { name: "kubernetes", prelude, more, patience: place.patience, _dir: Some(dir) }
}

/// The file, but for what runs it.
fn services(driver: &Driver) -> Value {
    let script = |text: &str, more: Value| {
        let common = json!({"command": ["sh", "-c", text], "backoff": {"initial": 0.02, "max": 0.05, "jitter": 0}});
        with(with(common, more), driver.more.clone())
    };
    json!({
        // Runs, is well by a check inside of it, and ends as it is asked to.
        "steady": script("trap 'exit 0' TERM; while :; do sleep 0.05; done", json!({
            "health_check": {"command": ["sh", "-c", "test $COREDINATOR_SERVICE = steady"], "interval": 0.2},
            "replicas": 2, "stop_grace_period": 20,
        })),
        "job": script("exit 0", json!({"restart_policy": "no"})),
        "failing": script("exit 3", json!({"restart_policy": "on-failure:2"})),
        // A pod is asked to end before it is killed, however little time it is given: this one does not hear.
        "ill": script("trap '' TERM; sleep 1000", json!({
            "restart_policy": "on-failure:1", "stop_grace_period": 0,
            "health_check": {"command": ["sh", "-c", "echo unwell; exit 2"], "interval": 0.1, "retries": 2},
        })),
        // Waits for the job.
        "after": script("exec sleep 1000", json!({
            "depends_on": {"job": {"condition": "service_completed_successfully"}}, "stop_grace_period": 0,
        })),
        "absent": with(script("", json!({"restart_policy": "no"})), json!({"command": ["/is/not/there"]})),
    })
}

/// A service's story in a line per event: who, what, and the words that are everybody's.
async fn story(plant: &Plant, service: &str) -> Vec<String> {
    let path = format!("/api/coredinator/events?service={service}&limit=1000");
    let events = plant.get(&path).await.expect("an answer").ok();
    let line = |event: &Value| {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let message = text("message");
        // A process has its number, wherever it runs; why there is no program, each runtime says in its own words.
        let message = message.split(" as process ").next().unwrap_or_default();
        let message = if service == "absent" && text("code") == "Failed" { "" } else { message };
        format!("{}: {} {} {message}", event["replica"], text("severity"), text("code"))
    };
    let mut lines: Vec<String> = events["events"].as_array().into_iter().flatten().map(line).collect();
    // Replicas go side by side, and so do an instance's life and its checks: each has an order of its own.
    lines.sort_by_key(|line| {
        let replica = line.split(':').next().unwrap_or_default().to_owned();
        (replica, line.contains("health: "))
    });
    let now = plant.service(service).await;
    lines.push(format!("{} {} {}", now["status"], now["reason_code"], now["ready"]));
    lines
}

/// Runs the file from its beginning to its end, and tells the story of each service.
async fn told(driver: &Driver) -> Vec<(String, Vec<String>)> {
    let services = services(driver);
    let mut plant = Plant::new(&services);
    plant.prelude.clone_from(&driver.prelude);
    plant.patience = driver.patience;
    plant.start().await;
    for (name, status) in [
        ("steady", "healthy"),
        ("job", "completed"),
        ("failing", "failed"),
        ("ill", "failed"),
        ("after", "healthy"),
        ("absent", "failed"),
    ] {
        plant.service_until(name, status, |service| service["status"] == status).await;
    }
    plant.service_until("steady", "is whole", |service| service["ready"] == 2).await;
    plant.order("steady", "restart").await.expect("an answer").ok();
    plant
        .service_until("steady", "has been replaced", |service| {
            let runs = |instance: &Value| instance["state"] == "running" && instance["restarts"] == 0;
            service["ready"] == 2 && service["instances"].as_array().is_some_and(|all| all.iter().all(runs))
        })
        .await;
    plant
        .until("both were restarted", async |plant| {
            let story = story(plant, "steady").await;
            story.iter().filter(|line| line.contains("Started")).count() == 4
                && plant.service("steady").await["ready"] == 2
        })
        .await;
    plant.scale("steady", 1).await.expect("an answer").ok();
    plant
        .service_until("steady", "is one", |service| service["instances"].as_array().is_some_and(|all| all.len() == 1))
        .await;
    plant.order("steady", "stop").await.expect("an answer").ok();
    plant
        .service_until("steady", "is stopped", |service| {
            service["instances"].as_array().is_some_and(|all| all.iter().all(|instance| instance["state"] == "stopped"))
        })
        .await;
    let names = services.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let mut all = Vec::new();
    for name in names {
        let story = story(&plant, &name).await;
        all.push((name, story));
    }
    assert!(plant.terminate().await.success(), "{}", driver.name);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_runs_them_services_have_the_same_story() {
    let as_processes = told(&process()).await;
    let text = format!("{as_processes:#?}");
    for word in ["Started", "Completed", "BackOff", "Failed", "Unhealthy", "CommandNotFound", "Stopped", "Healthy"] {
        assert!(text.contains(word), "{word} is part of it: {text}");
    }
    let same = async |driver: Driver| {
        let told = told(&driver).await;
        for (expected, told) in as_processes.iter().zip(&told) {
            assert_eq!(expected, told, "{}", driver.name);
        }
    };
    #[cfg(feature = "docker")]
    if let Some(engine) = Engine::start().await {
        same(docker(&engine)).await;
    }
    #[cfg(feature = "kubernetes")]
    {
        let place = match Place::cluster().await {
            Some(place) => place,
            None => Place::double().await,
        };
        same(kubernetes(&place)).await;
    }
}
