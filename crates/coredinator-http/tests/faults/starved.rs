//! No file descriptors left.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::{
    processes,
    support::{Plant, sleeper, with},
};

fn limit_descriptors(plant: &Plant, to: u64) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(plant.pid()).unwrap());
    let maximum = prlimit_maximum(plant);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(to), maximum }).unwrap()
}

fn prlimit_maximum(plant: &Plant) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{}/limits", plant.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(4).unwrap().parse().ok()
}

fn descriptors(plant: &Plant) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", plant.pid())).unwrap().count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_starts_fail_with_their_reason_and_succeed_when_there_are_some() {
    let plant = Plant::running(&json!({"a": with(sleeper(), json!({"replicas": 2}))})).await;
    let before = plant.runs("a", 2).await;
    let limit = descriptors(&plant) + 3;
    let old = limit_descriptors(&plant, limit);
    plant.scale("a", 12).await.unwrap().ok();
    let failed = plant
        .service_until("a", "cannot start them all", |service| {
            service["instances"].as_array().unwrap().iter().any(|instance| instance["state"] == "backoff")
        })
        .await;
    assert!(failed.to_string().contains("Too many open files"), "{failed:#}");
    assert_eq!(plant.none_doubled().iter().filter(|process| before.contains(&process.pid)).count(), 2);
    limit_descriptors(&plant, old.current.unwrap());
    let after = plant.runs("a", 12).await;
    assert!(before.is_subset(&after), "those that ran were not touched");
    assert_eq!(plant.processes().len(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_taken_hold_of_for_want_of_descriptors_is_not_taken_for_dead() {
    let mut plant = Plant::running(&json!({"a": with(sleeper(), json!({"replicas": 60}))})).await;
    let before = plant.runs("a", 60).await;
    plant.kill().await;
    // The hard limit too: coredinator raises the other one to it.
    plant.prelude = Some("ulimit -n 45".to_owned());
    plant.launch();
    plant.until("it says what it lacks", async |plant| plant.said().contains("Too many open files")).await;
    for _ in 0..50 {
        let seen = plant.none_doubled();
        assert_eq!(seen.iter().filter(|process| before.contains(&process.pid)).count(), 60, "{}", plant.said());
        tokio::task::yield_now().await;
    }
    plant.kill().await;
    plant.prelude = None;
    plant.start().await;
    assert_eq!(plant.runs("a", 60).await, before);
    assert!(before.iter().all(|pid| processes::is_alive(*pid)));
    assert!(plant.terminate().await.success());
    plant.assert_nothing_runs();
}
