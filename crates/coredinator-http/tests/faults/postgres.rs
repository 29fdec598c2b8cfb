//! The store is a PostgreSQL server, which is killed, stopped, paused, cut off, takes no writes, or whose disk is slow.

use coredinator_test_postgres::Cluster;
use rustix::process::Signal;
use serde_json::json;
use sqlx::{ConnectOptions, Executor, postgres::PgConnectOptions};

use crate::{
    processes,
    site::Line,
    store::assert_unavailable,
    support::{Plant, sleeper, with},
};

/// A plant on a database of its own, with two instances of `a`.
async fn plant_on(cluster: &Cluster) -> Plant {
    plant_at(&cluster.database()).await
}

async fn plant_at(url: &str) -> Plant {
    let mut plant = Plant::new(&json!({"a": with(sleeper(), json!({"replicas": 2}))}));
    let url = format!("{url}?connect_timeout=5&statement_timeout=2");
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
async fn a_server_that_takes_nothing_or_nothing_in_time_refuses_changes_and_touches_no_service() {
    let Some(cluster) = Cluster::start() else { return };
    for fault in ["killed", "stopped", "paused", "read-only", "cut off", "slow"] {
        println!("the server is {fault}");
        let (line, url) = (Line::to(cluster.port()).await, cluster.database());
        let mut plant = plant_at(&line.url(&url)).await;
        plant.runs("a", 2).await;
        let mut slow = None;
        match fault {
            "cut off" => line.cut(),
            "slow" => {
                // Whose disk is slow has somebody's transaction wait for it, and with it everybody who writes.
                let mut one = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
                one.execute("BEGIN; SELECT revision FROM coredinator.meta FOR UPDATE").await.unwrap();
                slow = Some(one);
            }
            "killed" => cluster.kill(),
            "stopped" => cluster.stop(),
            "paused" => cluster.pause(),
            // As after a failover that has not ended yet.
            _ => cluster.configure("default_transaction_read_only", "on"),
        }
        a_server_that_takes_nothing(&plant, !["read-only", "slow"].contains(&fault), || match fault {
            "cut off" => line.mend(),
            "slow" => drop(slow),
            "paused" => cluster.resume(),
            "read-only" => cluster.configure("default_transaction_read_only", "off"),
            _ => cluster.run().unwrap(),
        })
        .await;
        assert!(plant.terminate().await.success());
        plant.assert_nothing_runs();
    }
}

/// A store that was begun before can be started on while its server takes no writes: what is in force is told, nothing is
/// doubled or lost, and everything that a start does is done when it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coredinator_starts_while_the_server_takes_no_writes_and_acts_when_it_does() {
    let Some(cluster) = Cluster::start() else { return };
    let mut plant = plant_on(&cluster).await;
    let before = plant.runs("a", 2).await;
    plant.order("a", "stop").await.unwrap().ok();
    plant.service_until("a", "is stopped", |service| service["status"] == "stopped").await;
    plant.order("a", "start").await.unwrap().ok();
    let pids = plant.runs("a", 2).await;
    assert!(before.is_disjoint(&pids));
    plant.kill().await;
    cluster.configure("default_transaction_read_only", "on");
    plant.declare(
        &json!({"a": with(sleeper(), json!({"replicas": 2, "labels": {"of": "the new file"}})), "b": sleeper()}),
    );
    plant.launch();
    assert!(plant.listens().await, "it ended:\n{}", plant.said());
    let listing = plant.get("/api/coredinator/services").await.unwrap().ok();
    assert_eq!(listing["services"].as_array().unwrap().len(), 1, "reads are answered, as it was");
    assert_unavailable(&plant.scale("a", 3).await.unwrap());
    let leadership = plant.get("/api/coredinator/leadership").await.unwrap().ok();
    assert_eq!(leadership["role"], "follower", "{leadership}");
    plant.until("it says why", async |plant| plant.said().contains("the store takes no writes")).await;
    let running = || crate::processes::leaders_of(&plant.none_doubled(), "a");
    assert_eq!(running(), pids, "what runs goes on");
    cluster.configure("default_transaction_read_only", "off");
    plant.service_until("a", "is as the file says", |service| service["labels"]["of"] == "the new file").await;
    assert_eq!(plant.runs("a", 2).await, pids, "instances were adopted");
    plant.runs("b", 1).await;
    assert!(plant.terminate().await.success());
    plant.assert_nothing_runs();
}

/// Who moves from a store of its own to one that is shared finds what runs by marks that name no node, in records that name
/// none: it goes on under the same pids, and is looked after as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_marked_before_nodes_were_told_apart_is_adopted_and_never_doubled() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let mut plant = Plant::new(&json!({"a": with(sleeper(), json!({"replicas": 2})), "b": sleeper()}));
    plant.arguments = vec!["--detach".to_owned()];
    plant.start().await;
    let (a, b) = (plant.runs("a", 2).await, plant.runs("b", 1).await);
    let marks = |pid: &u32| {
        let read = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let text = String::from_utf8_lossy(&read).into_owned();
        text.split('\0')
            .find(|one| one.starts_with("COREDINATOR_OWNER="))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    let mark = marks(a.first().unwrap());
    assert!(plant.terminate().await.success());
    let from = format!("sqlite:{}", plant.store().display());
    let migrated = crate::config::cli(&plant, &["db", "migrate", "--from", &from, "--to", &url]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    // One ends while nobody watches.
    let died = *a.first().unwrap();
    processes::signal(died, Signal::KILL);
    plant.arguments.extend(["--database-url".to_owned(), url]);
    for _ in 0..2 {
        plant.start().await;
        let now = plant.runs("a", 2).await;
        assert_eq!(plant.runs("b", 1).await, b, "adopted");
        assert_eq!(now.intersection(&a).count(), 1, "{now:?}, before {a:?}");
        let kept = *now.intersection(&a).next().unwrap();
        assert_eq!(marks(&kept), mark, "as it was marked");
        let new = *now.difference(&a).next().unwrap();
        assert!(marks(&new).starts_with(&format!("{mark}.")), "what is new names the node: {}", marks(&new));
        plant.kill().await;
    }
    plant.start().await;
    // It is looked after as any other: an exit is seen, a stop reaches it.
    let kept = *b.first().unwrap();
    processes::signal(kept, Signal::KILL);
    plant.until("another takes its place", async |plant| !plant.runs("b", 1).await.contains(&kept)).await;
    for name in ["a", "b"] {
        plant.deregister(name).await.unwrap();
    }
    plant
        .until("nothing of them is left", async |plant| {
            plant.services().await.is_empty() && plant.none_doubled().iter().all(|process| process.service.is_empty())
        })
        .await;
}
