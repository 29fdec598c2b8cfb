//! Replicas on one PostgreSQL server, and a new configuration document on its way to instances: the leader is killed, frozen or
//! cut off in the midst of it.

use std::{collections::BTreeMap, time::Duration};

use coredinator_test_postgres::Cluster;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    replicas::{SHORT, Watched, anywhere, number},
    site::Site,
};

/// How many faults the leader meets; `COREDINATOR_REPLICA_ROUNDS` asks for more.
const ROUNDS: u32 = 4;
/// How many instances each service has.
const REPLICAS: u32 = 3;

/// A service that writes down which document it has, at its start and whenever it is told that there is a new one.
fn reader(site: &Site, action: &str) -> Value {
    let log = site.folder().join(format!("{action}.log"));
    let script = format!(
        r#"note() {{ echo "$COREDINATOR_INSTANCE_ID $(tr -d '\n' < "$COREDINATOR_CONFIG_FILE")" >> '{}'; }}
trap note HUP
note
while :; do sleep 1000 & wait $!; kill $! 2>/dev/null; done"#,
        log.display()
    );
    anywhere(json!({
        "command": ["sh", "-c", script], "replicas": REPLICAS, "stop_grace_period": 1,
        "backoff": {"initial": 0.02, "max": 0.1},
        "config": {}, "config_change": {"action": action, "settle": 0.1, "timeout": 120},
    }))
}

const ACTIONS: [&str; 2] = ["signal", "restart"];

/// What instances of a service have read, each in order. A document that was read while it was written in part is none.
fn reads(site: &Site, action: &str) -> BTreeMap<String, Vec<u64>> {
    let log = std::fs::read_to_string(site.folder().join(format!("{action}.log"))).unwrap_or_default();
    let mut reads: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in log.lines() {
        let (id, document) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let document: Value = serde_json::from_str(document).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        reads.entry(id.to_owned()).or_default().push(document["n"].as_u64().unwrap());
    }
    reads
}

/// Asks a replica for the document `n` of both services; whether it was acknowledged.
async fn update(site: &Site, at: usize, n: u64) -> bool {
    let services: BTreeMap<&str, Value> = ACTIONS.iter().map(|action| (*action, reader(site, action))).collect();
    let body = json!({"coredinator": {"config": {"n": n}, "services": services}});
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(8)).build().unwrap();
    let request = client.put(format!("{}/api/coredinator/config/update", site.address(at))).header("if-match", "*");
    match request.json(&body).send().await {
        Ok(answer) if answer.status().is_success() => true,
        Ok(answer) => {
            let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap_or_default());
            assert!(status == 503 || status == 412 || status == 504, "{status}: {text}");
            false
        }
        Err(_) => false,
    }
}

/// Asks for the document after `newest`, and notes which may be in force by what came of it.
async fn ask(site: &Site, at: usize, newest: &mut u64, possible: &mut Vec<u64>) {
    *newest += 1;
    if update(site, at, *newest).await {
        possible.clear();
    }
    possible.push(*newest);
}

/// The newest document, which is one of `possible`, once it is in force in every instance of both services, by every replica's
/// account and by the instances' own.
async fn in_force(site: &Site, possible: &[u64]) -> u64 {
    let mut agreed = 0;
    site.until(&format!("one of the documents {possible:?} is in force everywhere"), async |site| {
        let (pids, mut seen) = (site.pids(), Vec::new());
        for at in 0..site.replicas.len() {
            for action in ACTIONS {
                let service = site.service(at, action).await;
                let config = &service["config"];
                let Some(document) = config["stable"].as_u64().filter(|stable| config["revision"] == *stable) else {
                    return false;
                };
                let well = config["drifted"] == 0 && service["ready"] == REPLICAS && document > 0;
                let instances = service["instances"].as_array().into_iter().flatten();
                let ids: Vec<&str> = instances.filter_map(|instance| instance["id"].as_str()).collect();
                if !well || ids.len() as u32 != REPLICAS || pids.get(action).map_or(0, |p| p.len()) as u32 != REPLICAS {
                    return false;
                }
                let read = reads(site, action);
                seen.extend(ids.iter().map(|id| read.get(*id).and_then(|read| read.last().copied())));
            }
        }
        agreed = seen.first().copied().flatten().unwrap_or(0);
        seen.iter().all(|one| *one == Some(agreed)) && possible.contains(&agreed)
    })
    .await;
    agreed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_the_leader_a_roll_out_ends_at_what_was_acknowledged_and_nothing_is_doubled() {
    let Some(cluster) = Cluster::shared() else { return };
    let seed = number("COREDINATOR_FAULT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("COREDINATOR_REPLICA_ROUNDS").map_or(ROUNDS, |rounds| u32::try_from(rounds).unwrap());
    println!("COREDINATOR_FAULT_SEED={seed} COREDINATOR_REPLICA_ROUNDS={rounds}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut site = Site::new(cluster, &["a", "b", "c"], SHORT).await;
    for at in 0..3 {
        site.start(at).await;
    }
    let watched = Watched::from_now_on(site.url()).await;
    assert!(update(&site, 1, 1).await);
    let (mut newest, mut possible) = (1, vec![1]);
    in_force(&site, &possible).await;
    let mut untouched = site.pids();
    let mut epoch = 0;
    for round in 0..rounds {
        let leader = site.leader().await;
        let says = site.says(leader).await.unwrap_or_else(|| panic!("round {round}: the leader is gone by itself"));
        assert!(says.epoch > epoch, "round {round}: epoch {} after {epoch}", says.epoch);
        epoch = says.epoch;
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        ask(&site, others[rng.usize(..2)], &mut newest, &mut possible).await;
        // In the midst of the way to six instances, one after the other.
        sleep(Duration::from_millis(rng.u64(..1200))).await;
        let fault = ["killed", "frozen", "cut off"][(round as usize + rng.usize(..2)) % 3];
        println!(
            "round {round}: {} is {fault} in epoch {epoch}, document {newest} on its way",
            site.replicas[leader].node
        );
        match fault {
            "killed" => {
                site.signal(leader, Signal::KILL);
                site.ended(leader).await;
            }
            "frozen" => site.signal(leader, Signal::STOP),
            _ => site.replicas[leader].line.cut(),
        }
        if rng.bool() {
            ask(&site, others[rng.usize(..2)], &mut newest, &mut possible).await;
        }
        site.until("another leads", async |site| {
            for at in &others {
                if site.says(*at).await.is_some_and(|says| says.leads && says.epoch > epoch) {
                    return true;
                }
            }
            false
        })
        .await;
        // The one that leads now is in the midst of it, and the old one comes back.
        sleep(Duration::from_millis(rng.u64(..600))).await;
        match fault {
            "killed" => site.start(leader).await,
            "frozen" => site.signal(leader, Signal::CONT),
            _ => site.replicas[leader].line.mend(),
        }
        let agreed = in_force(&site, &possible).await;
        (newest, possible) = (newest.max(agreed), vec![agreed]);
        // Who is only told goes on; nobody was given an older document after a newer one.
        let pids = site.pids();
        assert_eq!(pids["signal"], untouched["signal"], "round {round}: {fault}");
        assert!(pids["restart"].is_disjoint(&untouched["restart"]), "round {round}: each was replaced");
        untouched = pids;
        for action in ACTIONS {
            for (id, read) in reads(&site, action) {
                assert!(read.is_sorted(), "round {round}: {id} had {read:?}");
            }
        }
        watched.check();
    }
    println!("{} changes were told, each once and in order", watched.check());
}
