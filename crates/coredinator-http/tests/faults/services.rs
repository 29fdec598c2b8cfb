//! Services that crash, linger, hang, or are asked for by many at once.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use crate::{
    processes::{self, leaders_of},
    support::{PATIENCE, Plant, running, script, sleeper, with},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_in_a_row_are_counted_and_wait_longer_each_time_and_never_run_twice() {
    let backoff = json!({"backoff": {"initial": 0.05, "max": 30, "factor": 2, "jitter": 0}});
    let plant = Plant::running(&json!({"crashes": with(script("exit 7"), backoff)})).await;
    let service = plant
        .service_until("crashes", "has been started again six times", |service| {
            service["instances"][0]["restarts"].as_u64() >= Some(6)
        })
        .await;
    let instance = &service["instances"][0];
    assert_eq!((&service["status"], &instance["last_exit"]["code"]), (&json!("backoff"), &json!(7)), "{service:#}");
    assert_eq!(instance["attempts"], instance["restarts"]);
    assert!(service["next_restart_at"].is_string(), "{service:#}");
    // What was waited, as the events tell it: "… restart 3 in a row in 0.1 s".
    let events = plant.get("/api/coredinator/events?service=crashes&limit=1000").await.unwrap().ok();
    let texts = events["events"].as_array().unwrap().iter().map(ToString::to_string);
    let pauses: Vec<f64> = texts
        .filter_map(|text| {
            let (_, pause) = text.split_once(" in a row ")?;
            Some(pause.strip_prefix("in ").map_or(0.0, |pause| pause.split(' ').next().unwrap().parse().unwrap()))
        })
        .collect();
    assert!(pauses.len() >= 6, "{events:#}");
    assert_eq!(pauses[0], 0.0, "the first restart comes at once");
    assert!(pauses.is_sorted() && pauses[5] > pauses[2], "{pauses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_starts_at_once_are_one_instance() {
    let plant = Plant::running(&json!({"one": sleeper()})).await;
    plant.runs("one", 1).await;
    for _ in 0..5 {
        plant.order("one", "stop").await.unwrap().ok();
        let starts = (0..20).map(|_| plant.order("one", "start"));
        for answer in futures_util::future::join_all(starts).await {
            answer.unwrap().ok();
        }
        plant.runs("one", 1).await;
        assert_eq!(plant.processes().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_outlives_its_leader_is_gone_before_the_replacement_starts() {
    // What the child holds stands for its port: a replacement that starts too early finds it taken, and says so.
    let plant = Plant::new(&json!({}));
    let text = "exec 9>held; flock -n 9 || { echo taken >> clashes; exit 1; }; sleep 1000 & exec 9>&-; \
                setsid sleep 1000 9>&- & exec sleep 1000";
    plant.declare(&json!({"family": with(script(text), json!({"working_dir": plant.root()}))}));
    let mut plant = plant;
    plant.start().await;
    for round in 1..=5 {
        let leader = plant.runs("family", 1).await;
        plant.until("three processes", async |plant| plant.processes().len() == 3).await;
        let children: BTreeSet<u32> = plant.processes().iter().map(|p| p.pid).filter(|p| !leader.contains(p)).collect();
        leader.iter().for_each(|pid| processes::signal(*pid, Signal::KILL));
        plant.service_until("family", "was replaced", |s| s["instances"][0]["restarts"] == round).await;
        plant.runs("family", 1).await;
        assert!(children.iter().all(|pid| !processes::is_alive(*pid)), "{children:?} of {leader:?} are left");
    }
    assert!(!plant.root().join("clashes").exists(), "a replacement met what the one before had left");
    plant.order("family", "stop").await.unwrap().ok();
    plant.until("nothing is left", async |plant| plant.processes().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_deaf_to_sigterm_is_killed_after_its_grace_and_holds_up_nobody() {
    let deaf = script("trap '' TERM; while :; do sleep 0.05; done");
    let services = json!({
        "deaf": with(deaf.clone(), json!({"stop_grace_period": 0.3})),
        "slow": with(deaf, json!({"stop_grace_period": 600})),
        "quick": sleeper(),
    });
    let plant = Plant::running(&services).await;
    for name in ["deaf", "slow", "quick"] {
        plant.runs(name, 1).await;
    }
    plant.order("slow", "stop").await.unwrap().ok();
    plant.order("deaf", "stop").await.unwrap().ok();
    let deaf = plant.service_until("deaf", "stopped", |s| s["instances"][0]["state"] == "stopped").await;
    assert_eq!(deaf["instances"][0]["last_exit"]["signal"], 9);
    assert!(leaders_of(&plant.processes(), "deaf").is_empty());
    // With ten minutes of grace still to go, everybody else is served.
    plant.scale("quick", 3).await.unwrap().ok();
    plant.runs("quick", 3).await;
    plant.order("slow", "restart").await.unwrap().ok();
    let slow = plant.service("slow").await;
    assert_eq!(slow["instances"][0]["state"], "stopping", "{slow:#}");
    assert_eq!(leaders_of(&plant.processes(), "slow").len(), 1);
}

/// A health endpoint in this process, for a service that has none.
struct Endpoint {
    port: u16,
    hangs: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    _task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hangs, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (hang, ask) = (Arc::clone(&hangs), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (hang, ask) = (Arc::clone(&hang), Arc::clone(&ask));
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while let Ok(1..) = socket.read(&mut request).await {
                        ask.fetch_add(1, Ordering::Relaxed);
                        if hang.load(Ordering::Relaxed) {
                            std::future::pending::<()>().await;
                        }
                        if socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, hangs, asked, _task: task }
    }

    fn service(&self) -> Value {
        let check = json!({"interval": 0.1, "timeout": 0.5, "retries": 3, "start_period": 0, "jitter": 0});
        with(
            sleeper(),
            json!({
                "host": "127.0.0.1", "port": self.port, "health_endpoint": "/health", "health_check": check,
            }),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_health_endpoint_has_its_service_restarted_and_delays_nobody_elses_checks() {
    let (hung, well) = (Endpoint::open().await, Endpoint::open().await);
    let plant = Plant::running(&json!({"hung": hung.service(), "well": well.service()})).await;
    let first = plant.runs("hung", 1).await;
    let other = plant.runs("well", 1).await;
    hung.hangs.store(true, Ordering::Relaxed);
    let service =
        plant.service_until("hung", "was restarted", |s| s["instances"][0]["restarts"].as_u64() >= Some(1)).await;
    assert_ne!(running(&service), first.iter().copied().collect::<Vec<_>>());
    // Its checks hang for half a second each; the other's go on, one after another, at their own pace.
    let before = plant.service("well").await["last_health_check"].clone();
    let asked = well.asked.load(Ordering::Relaxed);
    plant
        .until("ten more checks of the other one", async |plant| {
            well.asked.load(Ordering::Relaxed) >= asked + 10
                && plant.service("well").await["last_health_check"].as_str() > before.as_str()
        })
        .await;
    assert_eq!(plant.runs("well", 1).await, other, "it was never touched");
    assert_eq!(plant.service("well").await["instances"][0]["restarts"], 0);
    hung.hangs.store(false, Ordering::Relaxed);
    plant.runs("hung", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_missing_then_not_executable_then_garbage_is_started_once_it_is_right() {
    let mut plant = Plant::new(&json!({}));
    let program = plant.root().join("late");
    plant.declare(&json!({"late": with(sleeper(), json!({"command": [program]}))}));
    plant.start().await;
    plant.service_until("late", "is missing", |s| s["reason_code"] == "CommandNotFound").await;
    fs::write(&program, "\x7fnothing that runs").unwrap();
    plant.service_until("late", "is not executable", |s| s["reason_code"] == "NotExecutable").await;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let service = plant.service_until("late", "is garbage", |s| s["reason_code"] == "ExecFormatError").await;
    assert_eq!(service["status"], "backoff", "{service:#}");
    plant.assert_nothing_runs();
    let good = plant.root().join("good");
    fs::write(&good, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&good, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&good, &program).unwrap();
    plant.runs("late", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_cross_each_other_end_in_what_was_asked_last() {
    let seed = std::env::var("COREDINATOR_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("COREDINATOR_FAULT_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let slow_to_end = "trap 'sleep 0.03; exit 0' TERM; while :; do sleep 0.01; done";
    let kinds = ["exec sleep 1000", "sleep 0.02; exit 1", slow_to_end];
    let plant = Plant::running(&json!({})).await;
    for round in 0..12 {
        let name = format!("s{}", round % 4);
        // What is asked in a hurry: while it starts, while it waits, while it stops.
        for step in 0..12 {
            let document = with(
                script(kinds[rng.usize(..kinds.len())]),
                json!({
                    "name": name, "replicas": rng.u32(1..4), "environment": {"STEP": format!("{round}.{step}")},
                }),
            );
            match rng.u8(..8) {
                0..2 => drop(plant.register(document).await.unwrap()),
                2 => drop(plant.deregister(&name).await.unwrap()),
                3 => drop(plant.order(&name, "restart").await.unwrap()),
                4 => drop(plant.order(&name, "stop").await.unwrap()),
                5 => drop(plant.order(&name, "start").await.unwrap()),
                _ => drop(plant.scale(&name, rng.u32(0..4)).await.unwrap()),
            }
            if rng.bool() {
                let leaders: Vec<u32> = leaders_of(&plant.none_doubled(), &name).into_iter().collect();
                if let Some(pid) = rng.choice(leaders) {
                    processes::signal(pid, Signal::KILL);
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(..25))).await;
        }
        let replicas = rng.u32(0..4);
        let last = json!({"name": name, "replicas": 1, "environment": {"STEP": format!("{round}.last")}});
        plant.register(with(sleeper(), last)).await.unwrap().ok();
        plant.scale(&name, replicas).await.unwrap().ok();
        plant.order(&name, "start").await.unwrap().ok();
        plant.runs(&name, replicas as usize).await;
        let service = plant.service(&name).await;
        assert_eq!(service["instances"].as_array().unwrap().len(), replicas as usize, "{service:#}");
    }
    for name in ["s0", "s1", "s2", "s3"] {
        plant.deregister(name).await.unwrap().ok();
        plant.service_until(name, "is gone", Value::is_null).await;
    }
    plant.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_coredinator_goes_on_where_it_was_and_doubles_nothing() {
    let plant = Plant::running(&json!({"a": with(sleeper(), json!({"replicas": 3}))})).await;
    for _ in 0..3 {
        let before = plant.runs("a", 3).await;
        processes::signal(plant.pid(), Signal::STOP);
        plant.until("it is frozen", async |plant| processes::is_frozen(plant.pid())).await;
        before.iter().take(2).for_each(|pid| processes::signal(*pid, Signal::KILL));
        let scaling = plant.scale("a", 4);
        tokio::pin!(scaling);
        let early = timeout(Duration::from_millis(300), &mut scaling).await;
        assert!(early.is_err(), "it answered while it was frozen: {early:?}");
        plant.until("one is left", async |plant| plant.processes().len() == 1).await;
        processes::signal(plant.pid(), Signal::CONT);
        timeout(PATIENCE, scaling).await.unwrap().unwrap().ok();
        let after = plant.runs("a", 4).await;
        assert_eq!(before.intersection(&after).count(), 1, "what lived goes on");
        plant.scale("a", 3).await.unwrap().ok();
    }
}
