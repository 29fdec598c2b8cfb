//! What happens to containers from outside, and to the engine under them; against a real engine.

#[path = "support/kit.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod kit;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::{collections::BTreeMap, time::Duration};

use coredinator_core::{LogQuery, OutputStream, Runtime, RuntimeError, Signal, StopRequest};
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
use futures_util::StreamExt;
use kit::{container, ends, request, runs, runtime, started};
use serde_json::json;
use support::{Engine, IMAGE, PATIENCE};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_a_container_is_told() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");

    let killed = started(&runtime, "exec sleep 1000", json!({})).await;
    let mut watch = runtime.watch(&killed.instance);
    runs(&mut watch).await;
    engine.asked(&["kill", &container(&killed)]);
    assert_eq!(ends(&mut watch).await.signal, Some(9));

    let removed = started(&runtime, "exec sleep 1000", json!({})).await;
    let mut watch = runtime.watch(&removed.instance);
    runs(&mut watch).await;
    engine.asked(&["rm", "--force", &container(&removed)]);
    ends(&mut watch).await;

    // One that is frozen lives, and can be stopped: by its own signal, not by the kill.
    let paused = started(&runtime, "exec sleep 1000", json!({})).await;
    engine.asked(&["pause", &container(&paused)]);
    assert_eq!(runtime.list(&[]).await.unwrap().len(), 1);
    let how = StopRequest { signal: Signal::Term, grace: PATIENCE * 2 };
    timeout(PATIENCE, runtime.stop(&paused.instance, how)).await.expect("a stop ends").expect("it stops");
    assert_eq!(ends(&mut runtime.watch(&paused.instance)).await.code, Some(143));

    // A container renamed is the same.
    let renamed = started(&runtime, "exec sleep 1000", json!({})).await;
    engine.asked(&["rename", &container(&renamed), "somebody"]);
    assert_eq!(runtime.list(&[]).await.unwrap()[0].instance, renamed.instance);
    runtime.stop(&renamed.instance, StopRequest::KILL).await.unwrap();
}

/// What was started before the store was shared carries the owner without the node.
#[tokio::test(flavor = "multi_thread")]
async fn what_carries_a_former_owner_is_ours_and_nothing_is_started_under_it() {
    let Some(engine) = Engine::start().await else { return };
    let before = runtime(&engine, "me");
    let old = started(&before, "exec sleep 1000", json!({})).await;
    let options = DockerRuntimeOptions::new("me.node-a").with_former_owner("me").with_host(engine.host());
    let now = DockerRuntime::new(options);
    assert_eq!(now.list(&[]).await.unwrap(), std::slice::from_ref(&old));
    assert_eq!(now.kept().await.unwrap(), std::slice::from_ref(&old.instance.service));
    let mut watch = now.watch(&old.instance);
    runs(&mut watch).await;
    let new = started(&now, "exec sleep 1000", json!({})).await;
    assert_eq!(before.list(&[]).await.unwrap(), std::slice::from_ref(&old), "the new one is not the former owner's");
    assert_eq!(now.list(&[]).await.unwrap().len(), 2);
    engine.asked(&["kill", &container(&old)]);
    assert_eq!(ends(&mut watch).await.signal, Some(9), "its end is told");
    now.stop(&new.instance, StopRequest::KILL).await.unwrap();
    now.forget(&old.instance.service).await.unwrap();
    assert_eq!(now.list(&[]).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_never_touched() {
    let Some(engine) = Engine::start().await else { return };
    let (mine, yours) = (runtime(&engine, "me"), runtime(&engine, "you"));
    let other = started(&yours, "exec sleep 1000", json!({})).await;
    assert_eq!(mine.list(std::slice::from_ref(&other.instance)).await.unwrap(), []);
    mine.stop(&other.instance, StopRequest::KILL).await.unwrap();
    mine.forget(&other.instance.service).await.unwrap();
    assert_eq!(yours.list(&[]).await.unwrap(), [other]);

    // A name that is a stranger's, and a start that met a crash between making and starting.
    let request = request("exec sleep 1000", json!({}));
    let probe = mine.start(request.clone()).await.unwrap();
    let name = engine.asked(&["inspect", "--format", "{{.Name}}", &container(&probe)]);
    let name = name.trim_start_matches('/');
    engine.asked(&["rm", "--force", name]);
    engine.asked(&["create", "--name", name, "--network=none", IMAGE, "sh"]);
    match mine.start(request.clone()).await {
        Err(RuntimeError::NotStarted { reason }) => assert_eq!(reason.code, "NameTaken"),
        other => panic!("expected NameTaken, but saw {other:?}"),
    }
    assert_eq!(engine.asked(&["inspect", "--format", "{{.State.Status}}", name]), "created");
    engine.asked(&["rm", name]);
    let id = format!("coredinator.instance={}", request.id);
    let labels = ["coredinator.owner=me", "coredinator.service=svc", "coredinator.replica=0", &id];
    let made = |labels: [&str; 4]| {
        let labels = labels.map(|label| ["--label", label]).concat();
        let rest = ["--network=none", "--init", IMAGE, "sleep", "1000"];
        engine.asked(&[&["create", "--name", name], labels.as_slice(), rest.as_slice()].concat())
    };
    let half = made(labels);
    let resumed = mine.start(request.clone()).await.expect("a start that met a crash is brought to its end");
    assert_eq!(container(&resumed), half);
    mine.stop(&resumed.instance, StopRequest::KILL).await.unwrap();
    engine.asked(&["rm", name]);
    made(labels);
    assert_eq!(mine.list(&[]).await.unwrap(), []);
    assert!(!engine.docker(&["inspect", name]).status.success(), "what never ran is no left-over");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_may_go_and_come() {
    let Some(mut engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    let lasting = started(&runtime, "exec sleep 1000", json!({})).await;
    let ending = started(&runtime, "sleep 2; exit 7", json!({})).await;
    let (mut lasts, mut ends_meanwhile) = (runtime.watch(&lasting.instance), runtime.watch(&ending.instance));
    runs(&mut lasts).await;
    runs(&mut ends_meanwhile).await;
    engine.halt();
    assert!(matches!(runtime.list(&[]).await, Err(RuntimeError::Unavailable { .. })));
    let refused = runtime.start(request("exit 0", json!({}))).await;
    assert!(matches!(refused, Err(RuntimeError::Unavailable { .. })), "{refused:?}");
    assert!(matches!(runtime.stop(&lasting.instance, StopRequest::KILL).await, Err(RuntimeError::Unavailable { .. })));
    // Long enough that the end falls into the engine's absence, on any machine; nothing hangs on it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    engine.run().await.expect("the engine starts again");
    ends(&mut ends_meanwhile).await;
    assert_eq!(runtime.list(&[]).await.unwrap(), std::slice::from_ref(&lasting));
    // The stream of events goes on as well.
    engine.asked(&["kill", &container(&lasting)]);
    assert_eq!(ends(&mut lasts).await.signal, Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_is_waited_for() {
    let runtime = DockerRuntime::new(DockerRuntimeOptions::new("me").with_host("unix:///nowhere/docker.sock"));
    for error in [
        runtime.list(&[]).await.err(),
        runtime.start(request("exit 0", json!({}))).await.err(),
        runtime.forget(&coredinator_core::ServiceName::new("svc").unwrap()).await.err(),
    ] {
        let error = error.expect("nothing is known without an engine");
        assert!(matches!(error, RuntimeError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_finds_inside() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    let script = "echo $COREDINATOR_SERVICE $PORT $A {port}; echo wrong >&2; touch /x || echo sealed; cat /keep/x; exec sleep 1000";
    let more = json!({
        "network_mode": "host", "environment": {"A": "b"}, "read_only": true, "logs": {"max_files": 2},
        "resources": {"memory": "32m", "pids": 20}, "mounts": ["/keep"],
    });
    let first = started(&runtime, script, more.clone()).await;
    assert_ne!(first.port, 0, "a port of the machine is allocated");
    let query =
        LogQuery { service: first.instance.service.clone(), replica: None, tail: None, since: None, follow: true };
    let mut logs = runtime.logs(query.clone()).await.unwrap();
    let mut read: BTreeMap<OutputStream, Vec<String>> = BTreeMap::new();
    // Five lines are written, three of them errors; which stream's come first is the engine's affair.
    while read.values().map(Vec::len).sum::<usize>() < 5 {
        let line = timeout(PATIENCE, logs.next()).await.expect("a line").expect("more lines").unwrap();
        assert!(line.at.is_some());
        read.entry(line.stream).or_default().push(line.line);
    }
    let port = first.port;
    assert_eq!(read[&OutputStream::Stdout], [format!("svc {port} b {port}"), "sealed".to_owned()]);
    assert!(read[&OutputStream::Stderr].contains(&"wrong".to_owned()), "{read:?}");
    let asked = |format: &str| engine.asked(&["inspect", "--format", format, &container(&first)]);
    assert_eq!(asked("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}}"), "no 33554432");

    // Of a replica's earlier lives the newest is kept, and nothing of their anonymous volumes.
    let volumes = || engine.asked(&["volume", "ls", "--quiet"]).lines().count();
    let mut last = first;
    for _ in 0..3 {
        runtime.stop(&last.instance, StopRequest::KILL).await.unwrap();
        last = started(&runtime, script, more.clone()).await;
    }
    assert_eq!((engine.asked(&["ps", "--all", "--quiet"]).lines().count(), volumes()), (2, 2));
    runtime.stop(&last.instance, StopRequest::KILL).await.unwrap();
    runtime.forget(&last.instance.service).await.unwrap();
    assert_eq!((engine.asked(&["ps", "--all", "--quiet"]).lines().count(), volumes()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn want_of_memory_is_told() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    let greedy = "x=0123456789; while :; do x=$x$x; done";
    let started = started(&runtime, greedy, json!({"resources": {"memory": "16m"}, "init": false})).await;
    let exit = ends(&mut runtime.watch(&started.instance)).await;
    assert!(exit.oom_killed, "{exit:?}");
}
