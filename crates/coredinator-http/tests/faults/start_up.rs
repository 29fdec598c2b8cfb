//! Starting where somebody else is already, ending in order, and finding what runs.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
};

use coredinator_core::{Batch, Precondition, Store};
use coredinator_registry::store::SqliteStore;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    processes,
    support::{Plant, running, script, sleeper, with},
};

/// A coredinator that is expected not to get far: how it ended, and what it said.
fn refused(plant: &Plant, port: u16) -> (Output, String) {
    let output = plant.command(port).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it should not have started: {said}");
    (output, said)
}

/// A process of somebody else's; gone when dropped.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        Self(Command::new("setsid").args(["sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_coredinator_on_the_same_directory_says_so_and_starts_nothing() {
    let plant = Plant::running(&json!({"a": sleeper()})).await;
    let pids = plant.runs("a", 1).await;
    let store = fs::read(plant.store()).unwrap();
    plant.declare(&json!({"a": sleeper(), "second": sleeper()}));
    let (output, said) = refused(&plant, 0);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another coredinator"), "{said}");
    assert!(said.contains(&plant.pid().to_string()) && said.contains(plant.data().to_str().unwrap()), "{said}");
    assert!(fs::read(plant.store()).unwrap() == store, "it touched the store");
    assert_eq!(plant.runs("a", 1).await, pids, "the first one goes on");
    assert_eq!(plant.processes().len(), 1);
    plant.scale("a", 2).await.unwrap().ok();
    plant.runs("a", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_told_and_nothing_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut plant = Plant::new(&json!({"a": sleeper()}));
    let (output, said) = refused(&plant, port);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("in use"), "{said}");
    plant.assert_nothing_runs();
    assert!(!plant.store().exists(), "it made a store");
    drop(taken);
    plant.start().await;
    plant.runs("a", 1).await;
}

/// Three in a row, each of which notes its end in a file.
fn chain(grace: &str) -> Value {
    let link = |name: &str, needs: Option<&str>| {
        let text = format!("trap 'echo {name} >> ended; exit 0' TERM; while :; do sleep 0.01; done");
        let needs: Value = needs.map_or(json!({}), |needs| json!({needs: {"condition": "service_healthy"}}));
        with(script(&text), json!({"depends_on": needs, "stop_grace_period": grace}))
    };
    json!({"base": link("base", None), "middle": link("middle", Some("base")), "top": link("top", Some("middle"))})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_stops_dependents_first_and_ends_well() {
    let mut plant = Plant::new(&json!({}));
    let mut services = chain("30s");
    for (_, service) in services.as_object_mut().unwrap() {
        service["working_dir"] = json!(plant.root());
    }
    plant.declare(&services);
    plant.start().await;
    for name in ["base", "middle", "top"] {
        plant.runs(name, 1).await;
    }
    assert_eq!(plant.terminate().await.code(), Some(0), "{}", plant.said());
    plant.assert_nothing_runs();
    assert_eq!(fs::read_to_string(plant.root().join("ended")).unwrap(), "top\nmiddle\nbase\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_kills_what_is_deaf_to_the_first() {
    let deaf = with(script("trap '' TERM; while :; do sleep 0.05; done"), json!({"stop_grace_period": 600}));
    let services = json!({"deaf": deaf, "below": sleeper(), "above": with(sleeper(), json!({"depends_on": ["deaf"]}))});
    let mut plant = Plant::running(&services).await;
    for name in ["deaf", "below", "above"] {
        plant.runs(name, 1).await;
    }
    processes::signal(plant.pid(), Signal::TERM);
    plant
        .until("the deaf one is all that is left", async |plant| {
            let seen = plant.processes();
            seen.iter().all(|process| process.service != "above")
                && plant.service("deaf").await["instances"][0]["state"] == "stopping"
        })
        .await;
    assert!(plant.ended().is_none(), "it waits for the grace to pass");
    assert_eq!(plant.terminate().await.code(), Some(0), "{}", plant.said());
    plant.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_services_go_on_and_the_next_coredinator_adopts_them() {
    let mut plant = Plant::new(&json!({"a": with(sleeper(), json!({"replicas": 3})), "dies": sleeper()}));
    plant.arguments.push("--detach".to_owned());
    plant.start().await;
    let (a, dies) = (plant.runs("a", 3).await, plant.runs("dies", 1).await);
    assert_eq!(plant.terminate().await.code(), Some(0), "{}", plant.said());
    assert_eq!(plant.processes().len(), 4, "they go on");
    dies.iter().for_each(|pid| processes::signal(*pid, Signal::KILL));
    plant.arguments.clear();
    plant.start().await;
    assert_eq!(plant.runs("a", 3).await, a);
    assert_eq!(plant.service("a").await["instances"][0]["restarts"], 0);
    plant.service_until("dies", "was restarted", |service| service["instances"][0]["restarts"] == 1).await;
    // What was adopted is watched as if started: its end is seen, and how it came.
    let first = *a.first().unwrap();
    processes::signal(first, Signal::KILL);
    let restarted = |service: &Value| {
        let instances = service["instances"].as_array().unwrap();
        instances.iter().any(|instance| instance["restarts"] == 1 && instance["last_exit"]["signal"] == 9)
    };
    let service = plant.service_until("a", "has its killed instance back", restarted).await;
    assert!(!running(&service).contains(&first));
    plant.runs("a", 3).await;
    assert_eq!(plant.terminate().await.code(), Some(0));
    plant.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_before_it_has_found_what_runs_stops_that_too() {
    let mut plant = Plant::running(&json!({"a": with(sleeper(), json!({"replicas": 5}))})).await;
    plant.runs("a", 5).await;
    plant.kill().await;
    for _ in 0..10 {
        assert_eq!(plant.none_doubled().len(), 5);
        plant.launch();
        assert!(plant.listens().await, "{}", plant.said());
        assert_eq!(plant.terminate().await.code(), Some(0), "{}", plant.said());
        plant.assert_nothing_runs();
        plant.start().await;
        plant.runs("a", 5).await;
        plant.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_was_given_to_a_stranger_is_neither_adopted_nor_killed() {
    let mut plant = Plant::running(&json!({"a": sleeper()})).await;
    let before = plant.runs("a", 1).await;
    plant.kill().await;
    before.iter().for_each(|pid| processes::signal(*pid, Signal::KILL));
    plant.until("it has ended", async |plant| plant.processes().is_empty()).await;
    let mut stranger = Stranger::start();
    // As if the kernel had given the number to somebody else meanwhile.
    let store = SqliteStore::open(plant.store()).await.unwrap();
    let record = store.list("instances/a/").await.unwrap().records.remove(0);
    let mut value: Value = serde_json::from_slice(&record.value).unwrap();
    assert_eq!(value["handle"]["pid"], value["pid"]);
    value["pid"] = json!(stranger.pid());
    value["handle"]["pid"] = json!(stranger.pid());
    let batch = Batch::new().put(record.key, value.to_string().into_bytes(), Precondition::At(record.revision));
    store.write(batch).await.unwrap();
    store.close().await;

    plant.start().await;
    plant.service_until("a", "was started anew", |service| service["instances"][0]["restarts"] == 1).await;
    let after = plant.runs("a", 1).await;
    assert!(!after.contains(&stranger.pid()));
    plant.order("a", "restart").await.unwrap().ok();
    plant.service_until("a", "was replaced", |s| !running(s).is_empty() && !after.contains(&running(s)[0])).await;
    plant.order("a", "stop").await.unwrap().ok();
    plant.until("nothing runs", async |plant| plant.processes().is_empty()).await;
    assert!(plant.terminate().await.success());
    assert!(stranger.lives(), "a stranger was killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_reads_its_log_any_more_it_goes_on() {
    let mut plant = Plant::new(&json!({"a": with(sleeper(), json!({"replicas": 2}))}));
    // Its standard error is a pipe, whose reader writes down what makes the start and then goes away.
    let pipe = plant.root().join("log").display().to_string();
    plant.prelude = Some(format!("mkfifo {pipe}; head -n 3 <{pipe} >&2 & exec 2>{pipe}"));
    plant.start().await;
    plant.runs("a", 2).await;
    for round in 1..=10 {
        let pids = plant.runs("a", 2).await;
        pids.iter().for_each(|pid| processes::signal(*pid, Signal::KILL));
        plant.service_until("a", "was replaced", |s| s["instances"][1]["restarts"].as_u64() >= Some(round)).await;
    }
    plant.scale("a", 3).await.unwrap().ok();
    plant.runs("a", 3).await;
    assert_eq!(plant.terminate().await.code(), Some(0));
    plant.assert_nothing_runs();
}
