//! Managed services: commands, output, taking leave. What the supervisor would write is written by the test.

use coredinator_core::{InstanceId, InstanceRecord, InstanceState, Reason, RuntimeName, ServiceName};
use coredinator_registry::Recording;
use serde_json::{Value, json};

use crate::support::{Plant, is_waiting, pointers, request};

/// Writes replica 0 of `name` as a supervisor that has followed every command would.
async fn observe(plant: &Plant, name: &str, state: InstanceState) {
    let view = plant.registry.service(name).unwrap();
    let now = plant.registry.clock().now();
    let record = InstanceRecord {
        service: ServiceName::new(name).unwrap(),
        replica: 0,
        id: InstanceId::new("a-0-x").ok(),
        state,
        reason: Reason::new("Test", "by the test"),
        since: now,
        generation: view.record.generation,
        runtime: RuntimeName::new("paper").unwrap(),
        node: None,
        handle: None,
        pid: Some(4711),
        host: "localhost".to_owned(),
        port: 8123,
        started_at: Some(now),
        restarts: 2,
        attempts: 0,
        restart_times: vec![],
        last_exit: Some(coredinator_core::Exit { code: Some(3), signal: None, oom_killed: false, why: None, at: now }),
        next_restart_at: None,
        followed: view.intent.command,
        config_revision: 0,
        config_at: None,
    };
    let recording = Recording { instances: vec![record], ..Recording::default() };
    plant.registry.record(view.name(), recording, None).await.unwrap();
}

fn path(rest: &str) -> String {
    format!("/api/coredinator/services/a{rest}")
}

#[tokio::test]
async fn commands_are_taken_at_once() {
    let plant = Plant::new().await;
    plant.managed("a").await;
    for (command, desired) in [("stop", "stopped"), ("start", "running"), ("restart", "running")] {
        let answer = plant.ask("POST", &path(&format!("/{command}")), None).await;
        assert_eq!((answer.status.as_u16(), answer.json()["desired"].clone()), (202, json!(desired)), "{command}");
    }
    let scaled = plant.ask("PUT", &path("/scale"), Some(json!({"replicas": 3}))).await;
    assert_eq!((scaled.status.as_u16(), scaled.json()["replicas"].clone()), (202, json!(3)));
    let problem = plant.ask("PUT", &path("/scale"), Some(json!({"replicas": 10001}))).await.problem(422, "Invalid");
    assert!(pointers(&problem).contains_key("/replicas"));
    let problem = plant.ask("PUT", &path("/scale"), Some(json!({}))).await.problem(422, "Invalid");
    assert!(pointers(&problem).contains_key("/replicas"));
    plant.ask("POST", &path("/start?wiat=1"), None).await.problem(400, "InvalidParameter");

    plant.external("e").await;
    for command in ["start", "stop", "restart"] {
        let of = |name: &str| format!("/api/coredinator/services/{name}/{command}");
        plant.ask("POST", &of("e"), None).await.problem(409, "External");
        plant.ask("POST", &of("nobody"), None).await.problem(404, "NotFound");
    }
    let scale = Some(json!({"replicas": 1}));
    plant.ask("PUT", "/api/coredinator/services/e/scale", scale).await.problem(409, "External");
}

#[tokio::test]
async fn an_instance_is_told_with_all_that_is_known() {
    let plant = Plant::new().await;
    plant.managed("a").await;
    observe(&plant, "a", InstanceState::Running).await;
    let service = plant.get(&path("?index=1&wait=10s")).await.json();
    let found = plant.get(&path("")).await.json();
    assert_eq!(service["name"], found["name"]);
    assert_eq!((&found["status"], &found["port"], &found["ready"]), (&json!("healthy"), &json!(8123), &json!(1)));
    let instance = &found["instances"][0];
    for (key, expected) in [
        ("id", json!("a-0-x")),
        ("replica", json!(0)),
        ("state", json!("running")),
        ("pid", json!(4711)),
        ("host", json!("localhost")),
        ("port", json!(8123)),
        ("restarts", json!(2)),
        ("ready", json!(true)),
        ("health", Value::Null),
    ] {
        assert_eq!(instance[key], expected, "{key}");
    }
    assert_eq!((&instance["last_exit"]["code"], &instance["last_exit"]["signal"]), (&json!(3), &Value::Null));
    assert!(instance["uptime_seconds"].is_u64() && instance["started_at"].is_string());
    let typed: coredinator_http::api::model::Service = serde_json::from_value(found.clone()).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), found);
}

#[tokio::test]
async fn a_command_may_wait_until_it_is_done() {
    let plant = Plant::new().await;
    plant.managed("a").await;
    let start = path("/start?wait=10m");
    let mut starting = std::pin::pin!(plant.ask("POST", &start, None));
    assert!(is_waiting(&mut starting).await);
    observe(&plant, "a", InstanceState::Starting).await;
    assert!(is_waiting(&mut starting).await);
    observe(&plant, "a", InstanceState::Running).await;
    let started = starting.await;
    assert_eq!((started.status.as_u16(), started.json()["status"].clone()), (200, json!("healthy")));

    let stop = path("/stop?wait=10m");
    let mut stopping = std::pin::pin!(plant.ask("POST", &stop, None));
    assert!(is_waiting(&mut stopping).await, "the instance lives still");
    assert_eq!(plant.get("/api/coredinator/services").await.status, 200, "a slow stop holds nobody else up");
    observe(&plant, "a", InstanceState::Stopped).await;
    let stopped = stopping.await;
    assert_eq!((stopped.status.as_u16(), stopped.json()["status"].clone()), (200, json!("stopped")));

    let restart = path("/restart?wait=10m");
    let mut restarting = std::pin::pin!(plant.ask("POST", &restart, None));
    assert!(is_waiting(&mut restarting).await);
    plant.shutdown.cancel();
    restarting.await.problem(503, "Draining");
}

#[tokio::test(start_paused = true)]
async fn waiting_in_vain_tells_what_it_was_at_last() {
    let plant = Plant::new().await;
    plant.managed("a").await;
    let problem = plant.ask("POST", &path("/start?wait=3s"), None).await.problem(504, "Timeout");
    assert!(problem["detail"].as_str().unwrap().contains("still starting"), "{problem}");
    assert_eq!(plant.ask("DELETE", &path(""), None).await.status, 202);
    plant.ask("DELETE", &path("?wait=3s"), None).await.problem(504, "Timeout");
}

#[tokio::test]
async fn a_managed_service_is_gone_when_it_has_stopped() {
    let plant = Plant::new().await;
    plant.managed("a").await;
    let answer = plant.ask("DELETE", &path(""), None).await;
    assert_eq!((answer.status.as_u16(), answer.json()["deleting"].clone()), (202, json!(true)));
    plant.ask("POST", &path("/start"), None).await.problem(409, "Deleting");
    let delete = path("?wait=10m");
    let mut deleting = std::pin::pin!(plant.ask("DELETE", &delete, None));
    assert!(is_waiting(&mut deleting).await);
    plant.registry.forget_service(&ServiceName::new("a").unwrap(), None).await.unwrap();
    assert_eq!(deleting.await.status, 204);
    plant.get(&path("")).await.problem(404, "NotFound");
}

#[tokio::test]
async fn output_is_told_as_text_or_as_events() {
    let plant = Plant::new().await;
    plant.managed("a").await;
    let all = plant.get(&path("/logs")).await;
    assert_eq!(
        (all.text().as_str(), all.header("content-type")),
        ("line 0\nline 1\nline 2\n", "text/plain; charset=utf-8")
    );
    assert_eq!(plant.get(&path("/logs?tail=1&since=5m")).await.text(), "line 2\n");
    assert_eq!(plant.get(&path("/logs?tail=1&since=2026-01-31T12:00:00Z&replica=0")).await.text(), "line 2\n");
    let mut events = request("GET", &path("/logs?tail=1"), None);
    events.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let events = plant.send(events).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert_eq!(events.text(), "data: {\"replica\":0,\"stream\":\"stdout\",\"line\":\"line 2\"}\n\n");

    let follow = path("/logs?follow=true");
    let mut following = std::pin::pin!(plant.get(&follow));
    assert!(is_waiting(&mut following).await);
    plant.shutdown.cancel();
    assert_eq!(following.await.text(), "line 0\nline 1\nline 2\n", "the end of the server ends it");

    plant.external("e").await;
    plant.get("/api/coredinator/services/e/logs").await.problem(409, "External");
    plant.get("/api/coredinator/services/nobody/logs").await.problem(404, "NotFound");
    let found =
        pointers(&plant.get(&path("/logs?tail=x&since=y&replica=-1&follow=2")).await.problem(400, "InvalidParameter"));
    assert_eq!(found.len(), 4, "{found:?}");
}
