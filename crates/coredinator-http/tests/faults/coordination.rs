//! Two agents, one that comes by itself and one that is asked, coordinated by a coredinator that is killed.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command};

use crate::support::Plant;

/// Decisions that an agent was told, the last at the end.
type Told = Arc<Mutex<Vec<Value>>>;

/// What an agent wants: so much steam of the 10 there are, and less if need be.
fn options() -> Value {
    json!([
        {"id": "full", "demands": {"steam": 6}, "utility": 6, "action": {"valve": 1.0}},
        {"id": "half", "demands": {"steam": 3}, "utility": 3, "action": {"valve": 0.5}},
    ])
}

/// An agent that is asked: where, and what it has been told.
async fn asked_agent(id: &'static str) -> (String, Told) {
    let told = Told::default();
    let router = Router::new()
        .route("/intention", get(move || async move { Json(json!({"agent_id": id, "options": options()})) }))
        .route(
            "/decision",
            post(|State(told): State<Told>, Json(decision): Json<Value>| async move {
                told.lock().unwrap().push(decision);
                StatusCode::NO_CONTENT
            }),
        )
        .with_state(Arc::clone(&told));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (endpoint, told)
}

fn number(decision: &Value, key: &str) -> u64 {
    decision[key].as_u64().unwrap_or_default()
}

/// Runs a command of the command line against the coredinator.
async fn command(plant: &Plant, args: &[&str]) -> (i32, String) {
    let binary = env!("CARGO_BIN_EXE_coredinator");
    let mut command = Command::new(binary);
    command.args(args).env("COREDINATOR_ADDR", plant.address()).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), said)
}

/// Has the agent that comes by itself say what it wants until it has a decision of a cycle in which both took part.
async fn both_take_part(plant: &Plant, told: &Told, seq: &mut u64, epoch: u64) -> (Value, Value) {
    let mut pair = None;
    plant
        .until("both have a decision of one cycle of a later epoch", async |plant| {
            *seq += 1;
            let body = json!({"seq": *seq, "options": options()});
            let path = "/api/coredinator/agents/comes/intention?wait=1s";
            let Some(answer) = plant.call(Method::POST, path, Some(body)).await else { return false };
            let mine = answer.body;
            let theirs = told.lock().unwrap().iter().rfind(|other| other["cycle"] == mine["cycle"]).cloned();
            let fits = |decision: &Value| decision["outcome"] != "defaulted" && number(decision, "epoch") > epoch;
            pair = theirs.filter(|theirs| fits(theirs) && fits(&mine)).map(|theirs| (mine, theirs));
            pair.is_some()
        })
        .await;
    pair.unwrap()
}

#[tokio::test]
async fn agents_outlive_their_coredinator() {
    let mut plant = Plant::new(&json!({}));
    let section =
        json!({"sync_interval": 0.1, "resources": {"steam": {"capacity": 10}}, "agents": {"asked": {"priority": 2}}});
    let config = json!({"coredinator": {"coordination": section}});
    std::fs::write(plant.root().join("plant.yaml"), config.to_string()).unwrap();
    plant.start().await;
    let (endpoint, told) = asked_agent("asked").await;
    for document in [
        json!({"agent_id": "asked", "endpoint": endpoint, "fallback": "release", "ttl_seconds": 600}),
        json!({"agent_id": "comes", "fallback": "release", "ttl_seconds": 600}),
    ] {
        plant.call(Method::POST, "/api/coredinator/agents/register", Some(document)).await.unwrap().ok();
    }
    let mut seq = 0;
    let (mine, theirs) = both_take_part(&plant, &told, &mut seq, 0).await;
    assert_eq!([&mine["grant"]["steam"], &theirs["grant"]["steam"]], [&json!(3.0), &json!(6.0)], "{mine} {theirs}");
    let (cycle, epoch) = (number(&mine, "cycle"), number(&mine, "epoch"));

    let (code, shown) = command(&plant, &["cycle", &cycle.to_string()]).await;
    assert!(code == 0 && shown.contains("capacity:steam"), "{shown}");
    let (code, shown) = command(&plant, &["replay", &cycle.to_string()]).await;
    assert!(code == 0 && shown.contains("the same plan"), "{shown}");
    let (code, shown) = command(&plant, &["agents", "-o", "name"]).await;
    assert_eq!((code, shown.as_str()), (0, "asked\ncomes\n"));
    let (code, shown) = command(&plant, &["cycles", "-n", "2"]).await;
    assert!(code == 0 && shown.contains("priority_based"), "{shown}");
    let (code, shown) = command(&plant, &["strategy", "centralized"]).await;
    assert!(code == 0 && shown.contains("centralized"), "{shown}");
    let (code, shown) = command(&plant, &["strategy", "centralised"]).await;
    assert!(code != 0 && shown.contains("error:") && shown.contains("centralized"), "{shown}");
    let (code, shown) = command(&plant, &["resources", "-o", "json"]).await;
    let there: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let capacity = there["groups"][0]["resources"][0]["capacity"].as_f64().unwrap();
    assert_eq!((code, &there["groups"][0]["resources"][0]["name"]), (0, &json!("steam")), "{shown}");
    let more = format!("steam={}", capacity + 0.5);
    let (code, shown) = command(&plant, &["resources", &more]).await;
    assert!(code == 0 && shown.contains("steam") && shown.contains(&more[6..]), "{shown}");
    let (code, shown) = command(&plant, &["resources", "staem=3"]).await;
    assert!(code != 0 && shown.contains("error:") && shown.contains("staem"), "{shown}");
    let (code, shown) = command(&plant, &["cycle", "999999"]).await;
    assert!(code == 3 && shown.contains("cycle 999999") && shown.contains("has not ended yet"), "{shown}");

    plant.kill().await;
    plant.start().await;
    // Nobody has to register again, and nobody confuses the decisions of two lives.
    let (mine, theirs) = both_take_part(&plant, &told, &mut seq, epoch).await;
    assert!(number(&mine, "cycle") > cycle, "{mine}");
    assert!(
        mine["strategy"] == "centralized" && theirs["strategy"] == "centralized",
        "switched for good: {mine} {theirs}"
    );
    let order: Vec<(u64, u64)> =
        told.lock().unwrap().iter().map(|told| (number(told, "epoch"), number(told, "cycle"))).collect();
    assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
    let (code, shown) = command(&plant, &["resources"]).await;
    assert!(code == 0 && shown.contains(&more[6..]), "changed for good: {shown}");
    let health = plant.get("/api/coredinator/health").await.unwrap().ok();
    assert_eq!(health["system_metrics"]["active_agents"], 2);
    assert!(plant.terminate().await.success());
}
