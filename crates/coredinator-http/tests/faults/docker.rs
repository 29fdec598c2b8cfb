//! Services that are containers: the real binary on a real Docker engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    engine::{Engine, IMAGE},
    support::{Plant, with},
};

/// Another coredinator on the same engine.
const ANOTHER: &str = "another";
/// How many times coredinator is killed at random; `COREDINATOR_FAULT_ROUNDS` asks for more.
const ROUNDS: u32 = 12;

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

/// Of each service's replicas that have a living container, which those are, by the engine's labels alone.
fn living(engine: &Engine) -> BTreeMap<String, Vec<String>> {
    let format =
        r#"{{.Label "coredinator.owner"}} {{.Label "coredinator.service"}}/{{.Label "coredinator.replica"}} {{.ID}}"#;
    let mut living: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in engine.asked(&["ps", "--no-trunc", "--format", format]).lines() {
        let (owner, rest) = line.split_once(' ').expect("an owner");
        let (replica, id) = rest.split_once(' ').expect("a replica and an id");
        if owner == ANOTHER {
            continue;
        }
        living.entry(replica.to_owned()).or_default().push(id.to_owned());
    }
    let doubled: Vec<_> = living.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:#?}");
    living
}

fn on(engine: &Engine, services: &Value) -> Plant {
    let mut plant = Plant::new(services);
    plant.prelude = Some(format!("export DOCKER_HOST={}", engine.host()));
    plant
}

fn is_running(service: &Value) -> bool {
    service["ready"] == 1 && service["instances"][0]["state"] == "running"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_run_adopted_replaced_and_stopped() {
    let Some(engine) = Engine::start().await else { return };
    let mut plant = on(&engine, &json!({ "svc": service() }));
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
    let mut plant = on(&engine, &json!({ "svc": service() }));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_check_by_a_command_runs_inside_and_what_was_asked_is_shown() {
    let Some(engine) = Engine::start().await else { return };
    let checked = with(
        service(),
        json!({
            "command": ["sh", "-c", "touch /well; cat $COREDINATOR_CONFIG_FILE; exec sleep 1000"],
            "health_check": {"command": ["sh", "-c", "test -e /well || exit 2"], "interval": 0.2, "retries": 2},
            "environment": {"A_PASSWORD": "hidden"},
        }),
    );
    let mut plant = on(&engine, &json!({ "svc": checked }));
    plant.start().await;
    plant.service_until("svc", "is well", |service| service["status"] == "healthy").await;
    let first = living(&engine)["svc/0"].clone();
    let logs = plant.get("/api/coredinator/services/svc/logs").await.expect("an answer").ok().to_string();
    assert!(logs.contains("health_check"), "its own document is inside: {logs}");
    let shown = plant.get("/api/coredinator/services/svc/inspect").await.expect("an answer").ok();
    let asked = &shown["instances"][0]["asked"];
    assert_eq!((&shown["runtime"], &asked["Image"], &asked["Id"]), (&json!("docker"), &json!(IMAGE), &json!(first[0])));
    assert!(shown.to_string().contains("A_PASSWORD=***") && !shown.to_string().contains("hidden"), "{shown}");

    // What it checks is inside: nothing of that kind is out here.
    engine.asked(&["exec", &first[0], "busybox", "rm", "/well"]);
    plant
        .service_until("svc", "is replaced and well", |service| {
            service["status"] == "healthy" && service["instances"][0]["restarts"] == 1
        })
        .await;
    assert_ne!(living(&engine)["svc/0"], first);
    plant.terminate().await;
    assert_eq!(containers(&engine), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_takes_its_containers_with_it_gets_new_ones() {
    let Some(mut engine) = Engine::start_with(|_| Vec::new()).await else { return };
    let two = with(service(), json!({"replicas": 2, "restart_policy": "always"}));
    let mut plant = on(&engine, &json!({ "svc": two }));
    plant.start().await;
    plant.service_until("svc", "runs twice", |service| service["ready"] == 2).await;
    let before = living(&engine);
    engine.halt();
    engine.run().await.expect("the engine starts again");
    plant
        .until("both run again, in new containers", async |plant| {
            let service = plant.service("svc").await;
            let now = living(&engine);
            service["ready"] == 2 && now.len() == 2 && now.iter().all(|(replica, ids)| before[replica] != *ids)
        })
        .await;
    plant.terminate().await;
    assert_eq!(containers(&engine), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_leaves_nothing_and_strangers_stay() {
    let Some(mut engine) = Engine::start().await else { return };
    let mut plant = on(&engine, &json!({ "kept": service(), "gone": service() }));
    plant.start().await;
    for name in ["kept", "gone"] {
        plant.service_until(name, "runs", is_running).await;
    }
    let owner = engine.asked(&[
        "inspect",
        "--format",
        r#"{{index .Config.Labels "coredinator.owner"}}"#,
        &living(&engine)["kept/0"][0],
    ]);
    let run = |owner: &str, service: &str, seconds: &str| {
        let label = |key: &str, value: &str| format!("--label=coredinator.{key}={value}");
        let labels = [
            label("owner", owner),
            label("service", service),
            label("instance", &format!("{service}-0-x")),
            label("replica", "0"),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        engine.asked(
            &[&["run", "--detach", "--init", "--network=none"], labels.as_slice(), &[IMAGE, "sleep", seconds]].concat(),
        )
    };
    // Those of another coredinator, one of nobody, and two of ours that are in no record: one lives, one has ended.
    let strangers = [
        run(ANOTHER, "kept", "1000"),
        run(ANOTHER, "gone", "0"),
        engine.asked(&["create", "--network=none", IMAGE, "sh"]),
    ];
    plant.kill().await;
    run(&owner, "ghost", "1000");
    run(&owner, "ghost", "0");

    // A service is deregistered while both coredinator and the engine are away.
    engine.halt();
    plant.declare(&json!({ "kept": service() }));
    plant.launch();
    assert!(plant.listens().await, "it serves without an engine:\n{}", plant.said());
    engine.run().await.expect("the engine starts again");
    let all =
        || engine.asked(&["ps", "--all", "--quiet", "--no-trunc"]).lines().map(str::to_owned).collect::<BTreeSet<_>>();
    plant
        .until("what is kept and what is strangers' is all that is left", async |plant| {
            let kept = living(&engine).get("kept/0").cloned().unwrap_or_default();
            is_running(&plant.service("kept").await) && all() == strangers.iter().chain(&kept).cloned().collect()
        })
        .await;
    plant.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant_nothing_is_doubled_or_orphaned() {
    let Some(engine) = Engine::start().await else { return };
    let seed =
        std::env::var("COREDINATOR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("COREDINATOR_SEED={seed}");
    let rounds =
        std::env::var("COREDINATOR_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut rng = fastrand::Rng::with_seed(seed);
    let flaky = with(service(), json!({"command": ["sh", "-c", "sleep 0.3; exit 1"]}));
    let mut plant = on(&engine, &json!({ "svc": with(service(), json!({"replicas": 2})), "flaky": flaky }));
    plant.start().await;
    let mut replicas = 2;
    for round in 0..rounds {
        // What is asked without an answer may or may not have been taken; its being asked again settles it.
        replicas = rng.u32(1..4);
        let orders = async {
            match rng.u8(..3) {
                0 => drop(plant.order("svc", "restart").await),
                1 => drop(plant.order("flaky", "restart").await),
                _ => {}
            }
            drop(plant.scale("svc", replicas).await);
        };
        orders.await;
        tokio::time::sleep(Duration::from_millis(rng.u64(..400))).await;
        plant.kill().await;
        living(&engine);
        plant.start().await;
        let now = living(&engine);
        assert!(
            now.keys().all(|replica| replica.starts_with("svc/") || replica == "flaky/0"),
            "round {round}: {now:?}"
        );
    }
    plant.scale("svc", replicas).await.expect("an answer").ok();
    plant.order("flaky", "stop").await.expect("an answer").ok();
    let wanted: BTreeSet<String> = (0..replicas).map(|replica| format!("svc/{replica}")).collect();
    plant
        .until("as many run as were asked for, and no others", async |plant| {
            let service = plant.service("svc").await;
            living(&engine).into_keys().collect::<BTreeSet<_>>() == wanted && service["ready"] == replicas
        })
        .await;
    for name in ["svc", "flaky"] {
        plant.deregister(name).await.expect("an answer").ok();
    }
    plant.until("nothing is left", async |_| engine.asked(&["ps", "--all", "--quiet"]).is_empty()).await;
    plant.terminate().await;
}
