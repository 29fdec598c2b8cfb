//! Replicas on one PostgreSQL server: the leader is killed, stopped, cut off, or leaves; what it looked after goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use coredinator_core::{Revision, Store};
use coredinator_registry::store::PostgresStore;
use coredinator_test_postgres::Cluster;
use futures_util::StreamExt;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    site::Site,
    support::{script, sleeper, with},
};

/// How many faults the leader meets; `COREDINATOR_REPLICA_ROUNDS` asks for more.
const ROUNDS: u32 = 5;
/// A lease that ends while a test waits for it, and one that does not.
pub(crate) const SHORT: [f64; 3] = [3.0, 2.0, 0.2];
const LONG: [f64; 3] = [600.0, 500.0, 0.2];

pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Every change of the store, as it was told.
#[derive(Clone, Default)]
pub(crate) struct Watched(Arc<Mutex<Vec<Revision>>>);

impl Watched {
    pub(crate) async fn from_now_on(url: &str) -> Self {
        let store = PostgresStore::open(url).await.unwrap();
        let start = store.list("").await.unwrap().revision;
        let mut changes = store.watch("", start).await.unwrap();
        let watched = Self(Arc::new(Mutex::new(vec![start])));
        let told = watched.clone();
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                told.0.lock().unwrap().push(change.unwrap().revision);
            }
            drop(store);
        });
        watched
    }

    /// Each one once, and in order.
    pub(crate) fn check(&self) -> usize {
        let told = self.0.lock().unwrap();
        let broken = told.windows(2).find(|two| two[1] != two[0].next());
        assert_eq!(broken, None, "of {} changes", told.len());
        told.len()
    }
}

/// How many instances of a service may be wanted, by what was asked and acknowledged.
type Ledger = BTreeMap<String, BTreeSet<u32>>;

/// Asks a replica for a number of instances, and notes what came of it.
async fn scale(site: &Site, at: usize, ledger: &mut Ledger, name: &str, replicas: u32) {
    let path = format!("/api/coredinator/services/{name}/scale");
    let answer = site.ask(at, Method::PUT, &path, Some(json!({"replicas": replicas})));
    let answer = tokio::time::timeout(Duration::from_secs(8), answer).await.ok().flatten();
    let possible = ledger.get_mut(name).unwrap();
    if answer.is_some_and(|(status, _)| status < 300) {
        possible.clear();
    }
    possible.insert(replicas);
}

async fn register(site: &Site, at: usize, name: &str, document: Value) {
    let body = with(document, json!({"name": name}));
    let answer = site.ask(at, Method::POST, "/api/coredinator/services/register", Some(body)).await.unwrap();
    assert_eq!(answer.0, 201, "{answer:?}");
}

pub(crate) fn anywhere(document: Value) -> Value {
    with(document, json!({"runtime": "anywhere"}))
}

/// Waits until all replicas follow the same leader, and runs what they say, which is what was asked for.
async fn settled(site: &Site, ledger: &mut Ledger, untouched: &BTreeMap<String, BTreeSet<u32>>) {
    let what = format!("all is as it was asked for, which by what was acknowledged is one of {ledger:?}");
    site.until(&what, async |site| {
        let mut leaders = BTreeSet::new();
        for at in 0..site.replicas.len() {
            leaders.insert(site.says(at).await.map(|says| (says.leader, says.epoch)));
        }
        if leaders.len() != 1 || leaders.contains(&None) {
            return false;
        }
        let pids = site.pids();
        for (name, possible) in ledger.iter() {
            for at in 0..site.replicas.len() {
                let service = site.service(at, name).await;
                let Some(wanted) = service["replicas"].as_u64() else { return false };
                // One that has only just been reached again may tell what was; what was acknowledged and is lost never comes.
                if !possible.contains(&u32::try_from(wanted).unwrap()) {
                    return false;
                }
                let running = pids.get(name).map_or(0, BTreeSet::len);
                if running as u64 != wanted || service["ready"].as_u64() != Some(wanted) {
                    return false;
                }
            }
        }
        true
    })
    .await;
    let pids = site.pids();
    for (name, expected) in untouched {
        assert_eq!(pids.get(name), Some(expected), "{name} was touched");
    }
    for (name, possible) in ledger {
        let now = u32::try_from(pids.get(name).map_or(0, BTreeSet::len)).unwrap();
        *possible = BTreeSet::from([now]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_the_leader_nothing_is_doubled_lost_or_interrupted() {
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
    register(&site, 1, "stays", with(anywhere(sleeper()), json!({"replicas": 2}))).await;
    register(
        &site,
        2,
        "crashes",
        with(anywhere(script("sleep 0.2; exit 1")), json!({"restart_budget": {"attempts": 0}})),
    )
    .await;
    for at in 0..3 {
        register(&site, at, &format!("local-{at}"), sleeper()).await;
    }
    let mut ledger = Ledger::new();
    for name in ["s0", "s1"] {
        register(&site, 0, name, with(anywhere(sleeper()), json!({"replicas": 1}))).await;
        ledger.insert(name.to_owned(), BTreeSet::from([1]));
    }
    let mut untouched = BTreeMap::new();
    site.until("all run", async |site| {
        let mut pids = site.pids();
        pids.retain(|name, _| name == "stays" || name.starts_with("local-"));
        untouched = pids;
        untouched.len() == 4 && untouched["stays"].len() == 2
    })
    .await;
    settled(&site, &mut ledger, &untouched).await;

    let mut epoch = 0;
    for round in 0..rounds {
        let leader = site.leader().await;
        let says = site.says(leader).await.unwrap_or_else(|| panic!("round {round}: the leader is gone by itself"));
        assert!(says.epoch > epoch, "round {round}: epoch {} after {epoch}", says.epoch);
        epoch = says.epoch;
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        // In the midst of starts and stops.
        let (first, second) = (rng.u32(0..4), rng.u32(0..4));
        scale(&site, others[rng.usize(..2)], &mut ledger, "s0", first).await;
        sleep(Duration::from_millis(rng.u64(..150))).await;
        let fault = ["killed", "stopped", "cut off"][(round as usize + rng.usize(..2)) % 3];
        println!("round {round}: {} is {fault} in epoch {epoch}", site.replicas[leader].node);
        match fault {
            "killed" => {
                site.signal(leader, Signal::KILL);
                site.ended(leader).await;
            }
            "stopped" => site.signal(leader, Signal::STOP),
            _ => site.replicas[leader].line.cut(),
        }
        scale(&site, others[rng.usize(..2)], &mut ledger, "s1", second).await;
        site.until("another leads", async |site| {
            for at in &others {
                if site.says(*at).await.is_some_and(|says| says.leads && says.epoch > epoch) {
                    return true;
                }
            }
            false
        })
        .await;
        scale(&site, others[rng.usize(..2)], &mut ledger, "s0", rng.u32(0..4)).await;
        sleep(Duration::from_millis(rng.u64(..300))).await;
        match fault {
            "killed" => site.start(leader).await,
            "stopped" => site.signal(leader, Signal::CONT),
            _ => site.replicas[leader].line.mend(),
        }
        settled(&site, &mut ledger, &untouched).await;
        watched.check();
    }
    let restarts = site.service(0, "crashes").await["instances"][0]["restarts"].as_u64().unwrap();
    assert!(restarts > 0, "what crashes was looked after all the while");
    println!("{} changes were told, each once and in order; {restarts} restarts", watched.check());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_hands_over_at_once_and_interrupts_nothing() {
    let Some(cluster) = Cluster::shared() else { return };
    // Nobody waits for a lease to run out here: the test would give up before.
    let mut site = Site::new(cluster, &["a", "b"], LONG).await;
    site.start(0).await;
    site.start(1).await;
    assert_eq!(site.leader().await, 0);
    register(&site, 1, "one", anywhere(sleeper())).await;
    register(
        &site,
        1,
        "tired",
        anywhere(with(script("exit 1"), json!({"backoff": {"initial": 500, "max": 500, "jitter": 0}}))),
    )
    .await;
    register(&site, 0, "idle", anywhere(with(sleeper(), json!({"restart_policy": "always"})))).await;
    site.until("they run, and the other knows", async |site| site.service(1, "idle").await["status"] == "healthy")
        .await;
    let stopped = site.ask(1, Method::POST, "/api/coredinator/services/idle/stop", None).await.unwrap();
    assert_eq!(stopped.0, 202, "{stopped:?}");
    let waits = async |site: &Site, at| {
        let service = site.service(at, "tired").await;
        let of = |key: &str| service["instances"][0][key].clone();
        (service["status"] == "backoff").then(|| (of("attempts"), of("restarts"), of("next_restart_at")))
    };
    let mut before = None;
    site.until("one waits, and one is stopped", async |site| {
        before = waits(site, 1).await;
        before.is_some() && site.pids().len() == 1 && site.service(1, "idle").await["status"] == "stopped"
    })
    .await;
    let pids = site.pids();
    for (leaves, takes_over) in [(0, 1), (1, 0)] {
        site.signal(leaves, Signal::TERM);
        site.until("the other leads", async |site| site.says(takes_over).await.is_some_and(|says| says.leads)).await;
        site.ended(leaves).await;
        assert_eq!(site.pids(), pids, "nothing was touched");
        // What was counted, waited for and asked by hand holds on.
        assert_eq!(waits(&site, takes_over).await, before);
        assert_eq!(site.service(takes_over, "idle").await["desired"], "stopped");
        site.start(leaves).await;
    }
    assert_eq!(site.pids(), pids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_replica_answers_and_passes_on_what_is_anothers_to_answer() {
    let Some(cluster) = Cluster::shared() else { return };
    let mut site = Site::new(cluster, &["a", "b"], LONG).await;
    site.start(0).await;
    site.start(1).await;
    assert_eq!(site.leader().await, 0);
    site.until("the other knows", async |site| {
        site.says(1).await.is_some_and(|says| says.leader.as_deref() == Some("a"))
    })
    .await;
    // Agents are the leader's.
    let agent = json!({"agent_id": "x", "fallback": "release"});
    let told = site.ask(1, Method::POST, "/api/coredinator/agents/register", Some(agent.clone())).await.unwrap();
    assert_eq!(told.0, 201, "{told:?}");
    for at in 0..2 {
        let (status, agents) = site.ask(at, Method::GET, "/api/coredinator/agents", None).await.unwrap();
        assert_eq!((status, agents["agents"].as_array().unwrap().len()), (200, 1), "{agents}");
    }
    let (status, cycle) =
        site.ask(1, Method::POST, "/api/coredinator/coordination/step", Some(json!({}))).await.unwrap();
    assert_eq!((status, &cycle["cycle"]), (200, &json!(1)), "{cycle}");
    // Refusals are the leader's own words.
    let (status, refused) = site.ask(1, Method::GET, "/api/coredinator/agents/nobody", None).await.unwrap();
    assert_eq!((status, &refused["code"]), (404, &json!("NotFound")), "{refused}");

    // What instances wrote is on their node, and so is what checks say in full.
    let check = json!({"health_check": {"command": ["true"], "beside": true, "interval": 0.1}});
    register(&site, 0, "here", with(script("echo hello from a; exec sleep 1000"), check.clone())).await;
    register(&site, 0, "there", anywhere(with(sleeper(), check))).await;
    site.until("they are known to be well", async |site| {
        let (here, there) = (site.service(1, "here").await, site.service(1, "there").await);
        here["status"] == "healthy" && there["status"] == "healthy"
    })
    .await;
    let (status, lines) = site.ask(1, Method::GET, "/api/coredinator/services/here/logs", None).await.unwrap();
    assert_eq!((status, lines), (200, json!("hello from a\n")));
    let (_, health) = site.ask(1, Method::GET, "/api/coredinator/services/here/health?fresh", None).await.unwrap();
    assert!(health["checks"][0]["checks"].as_u64().unwrap() > 0, "{health}");
    // The health page tells the newest results, whoever has them.
    let page = async |site: &Site| site.ask(1, Method::GET, "/api/coredinator/health", None).await.unwrap().1;
    let first = page(&site).await;
    let last = |page: &Value| {
        ["here", "there"].map(|name| page["services"][name]["last_check"].as_str().unwrap_or_default().to_owned())
    };
    site.until("there are newer results", async |site| {
        let now = page(site).await;
        last(&now).iter().zip(&last(&first)).all(|(now, before)| now > before)
    })
    .await;
    assert_eq!((&first["leadership"]["role"], &first["leadership"]["leader"]), (&json!("follower"), &json!("a")));
    assert_eq!(first["system_metrics"]["active_agents"], json!(0), "{first}");
    let (_, ready) = site.ask(1, Method::GET, "/readyz?verbose", None).await.unwrap();
    assert!(ready.as_str().unwrap().contains("[+]leadership follower of a, epoch"), "{ready}");

    // Two that each believe in the other do not send a request to and fro.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = site.address(1);
    let passed = client.get(format!("{url}/api/coredinator/agents")).header("x-coredinator-passed-on-by", "c");
    let answer = passed.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));

    // The leader is gone, and its lease runs on: what needs it says so, all else is answered.
    site.signal(0, Signal::KILL);
    site.ended(0).await;
    let (status, refused) = site.ask(1, Method::POST, "/api/coredinator/agents/register", Some(agent)).await.unwrap();
    assert_eq!((status, &refused["retryable"]), (503, &json!(true)), "{refused}");
    assert!(["NoLeader", "NodeUnreachable"].contains(&refused["code"].as_str().unwrap()), "{refused}");
    let (status, _) = site.ask(1, Method::GET, "/api/coredinator/services/here/health", None).await.unwrap();
    assert_eq!(status, 200, "what was told of it has to do");
    let (status, _) =
        site.ask(1, Method::PUT, "/api/coredinator/services/there/scale", Some(json!({"replicas": 2}))).await.unwrap();
    assert_eq!(status, 202, "the store takes it, and whoever leads next follows it");
    assert_eq!(site.ask(1, Method::GET, "/readyz", None).await.unwrap().0, 200);
    site.start(0).await;
    site.until("it was followed", async |site| site.pids()["there"].len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_one_of_the_same_name_does_not_start_and_says_what_to_do() {
    let Some(cluster) = Cluster::shared() else { return };
    let mut site = Site::new(cluster, &["a", "a"], SHORT).await;
    site.start(0).await;
    site.keep_apart(1);
    site.launch(1);
    site.ended(1).await;
    let said = site.said(1);
    assert!(said.contains("is node a of this store already") && said.contains("--node"), "{said}");
    // Killed and started again, the first is the same as before, and waits for nothing.
    site.signal(0, Signal::KILL);
    site.ended(0).await;
    site.start(0).await;
    assert_eq!(site.leader().await, 0);
}
