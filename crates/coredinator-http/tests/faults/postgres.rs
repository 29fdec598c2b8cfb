//! The store is a PostgreSQL server, which is killed, stopped, paused, or takes no writes.

use coredinator_test_postgres::Cluster;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    processes,
    store::assert_unavailable,
    support::{Plant, sleeper, with},
};

/// A plant on a database of its own, with two instances of `a`.
async fn plant_on(cluster: &Cluster) -> Plant {
    let mut plant = Plant::new(&json!({"a": with(sleeper(), json!({"replicas": 2}))}));
    let url = format!("{}?connect_timeout=5&statement_timeout=2", cluster.database());
    plant.arguments = vec!["--database-url".to_owned(), url];
    plant.start().await;
    plant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coredinator_that_is_killed_finds_everything_in_postgresql() {
    let Some(cluster) = Cluster::shared() else { return };
    let mut plant = plant_on(cluster).await;
    let before = plant.runs("a", 2).await;
    plant.kill().await;
    plant.start().await;
    assert_eq!(plant.runs("a", 2).await, before, "instances are adopted, not started again");
    plant.scale("a", 3).await.unwrap().ok();
    plant.runs("a", 3).await;
    assert!(plant.terminate().await.success());
    plant.assert_nothing_runs();
    assert!(!plant.store().exists(), "nothing is kept in a file beside it");
}

/// What holds while the server takes no writes, and what is right again as soon as it does.
async fn a_server_that_takes_nothing(plant: &Plant, away: bool, back: impl FnOnce()) {
    let pids = plant.runs("a", 2).await;
    assert_unavailable(&plant.scale("a", 3).await.unwrap());
    assert_unavailable(&plant.order("a", "stop").await.unwrap());
    assert_eq!(plant.services().await.len(), 1, "reads go on from memory");
    if away {
        plant
            .until("it is told how old what is shown may be", async |plant| {
                let listing = plant.get("/api/coredinator/services").await.unwrap();
                listing.status.is_success() && listing.stale.is_some()
            })
            .await;
        let status = plant.get("/api/coredinator/database/status").await.unwrap().ok();
        assert_eq!((&status["reachable"], status["stale_for_ms"].is_number()), (&json!(false), true), "{status}");
    }
    assert_eq!(plant.runs("a", 2).await, pids, "running services are not touched");
    // One that dies now is not started again before that can be written down.
    let died = *pids.first().unwrap();
    processes::signal(died, Signal::KILL);
    plant.until("it is gone", async |_| !processes::is_alive(died)).await;
    assert_unavailable(&plant.scale("a", 4).await.unwrap());
    back();
    // Nobody asks for anything: it comes back by itself.
    let now = plant.runs("a", 2).await;
    assert_eq!(pids.intersection(&now).count(), 1, "{pids:?} {now:?}");
    plant.scale("a", 3).await.unwrap().ok();
    plant.runs("a", 3).await;
    plant
        .until("nothing is stale any more", async |plant| {
            plant.get("/api/coredinator/services").await.unwrap().stale.is_none()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_stopped_paused_or_read_only_refuses_changes_and_touches_no_service() {
    let Some(cluster) = Cluster::start() else { return };
    for fault in ["killed", "stopped", "paused", "read-only"] {
        println!("the server is {fault}");
        let mut plant = plant_on(&cluster).await;
        plant.runs("a", 2).await;
        match fault {
            "killed" => cluster.kill(),
            "stopped" => cluster.stop(),
            "paused" => cluster.pause(),
            // As after a failover that has not ended yet.
            _ => cluster.configure("default_transaction_read_only", "on"),
        }
        a_server_that_takes_nothing(&plant, fault != "read-only", || match fault {
            "paused" => cluster.resume(),
            "read-only" => cluster.configure("default_transaction_read_only", "off"),
            _ => cluster.run().unwrap(),
        })
        .await;
        assert!(plant.terminate().await.success());
        plant.assert_nothing_runs();
    }
}
