//! What only a real cluster does: memory that runs out, admission, tokens, namespaces that go.

use coredinator_core::{Observation, Runtime, RuntimeError, StopRequest};
use coredinator_runtime_k8s::KubernetesRuntime;
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    printed,
    support::{PATIENCE, Place, ends, observed, options, request, request_of, runs, start, started, until},
};
use crate::on_a_cluster;

on_a_cluster! {
    want_of_memory_is_told,
    a_pod_that_would_run_as_root_says_what_to_write,
    a_namespace_that_allows_little_allows_our_pods,
    a_namespace_without_room_says_so,
    a_namespace_that_goes_is_told,
    the_rights_of_the_table_are_enough,
    a_finished_pod_is_read_and_removed,
}

const RUNS: &str = "exec sleep 1000";

fn why(outcome: Result<coredinator_core::Started, RuntimeError>) -> coredinator_core::Reason {
    match outcome {
        Err(RuntimeError::NotStarted { reason }) => reason,
        other => panic!("expected it to be refused, but saw {other:?}"),
    }
}

async fn want_of_memory_is_told(place: Place) {
    let runtime = place.runtime("me");
    // Twice as much, again and again.
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let more = json!({"resources": {"memory": "32m", "cpus": 0.5}});
    let hungry = start(&runtime, request_of("hungry", 0, script, more)).await;
    let exit = ends(&mut runtime.watch(&hungry.instance)).await;
    assert!(exit.oom_killed, "{exit:?}");
    // Started again in place it is told as that, too.
    let more = json!({"resources": {"memory": "32m"}, "restart_by": "kubelet", "restart_policy": "always"});
    let again = start(&runtime, request_of("again", 0, &format!("sleep 2; {script}"), more)).await;
    let mut watch = runtime.watch(&again.instance);
    loop {
        if let Observation::Restarted { last, .. } = observed(&mut watch).await {
            assert!(last.is_some_and(|last| last.oom_killed), "what ended it is known");
            break;
        }
    }
    runtime.stop(&again.instance, StopRequest::KILL).await.unwrap();
}

async fn a_pod_that_would_run_as_root_says_what_to_write(place: Place) {
    let mut quick = options("me", &place.namespace);
    quick.taken_on_after = std::time::Duration::from_millis(200);
    let runtime = KubernetesRuntime::with_client(quick, place.client.clone());
    let mut as_root = request(RUNS, json!({}));
    std::sync::Arc::make_mut(&mut as_root.spec).options.remove("user");
    let waits = start(&runtime, as_root).await;
    let mut watch = runtime.watch(&waits.instance);
    loop {
        match observed(&mut watch).await {
            Observation::Waiting(reason) if reason.code == "CreateContainerConfigError" => {
                assert!(reason.message.contains("run_as_non_root: false"), "{reason:?}");
                break;
            }
            Observation::Waiting(_) => {}
            other => panic!("expected it to wait, but saw {other:?}"),
        }
    }
    runtime.stop(&waits.instance, StopRequest::KILL).await.unwrap();
}

/// The profile that allows least.
async fn a_namespace_that_allows_little_allows_our_pods(place: Place) {
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    namespaces.patch(&place.namespace, &PatchParams::default(), &Patch::Merge(enforce)).await.expect("a label");
    let runtime = place.runtime("me");
    // Who checks admission sees the label a moment later.
    until("a pod that may be root is refused", async || {
        let refused = runtime.start(request(RUNS, json!({"run_as_non_root": false, "user": 0}))).await;
        match refused {
            Ok(started) => {
                runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
                false
            }
            refused => {
                assert_eq!(why(refused).code, "PodSecurity");
                true
            }
        }
    })
    .await;
    let allowed = started(&runtime, RUNS, json!({})).await;
    runs(&mut runtime.watch(&allowed.instance)).await;
    runtime.stop(&allowed.instance, StopRequest::KILL).await.unwrap();
}

async fn a_namespace_without_room_says_so(place: Place) {
    let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}});
    let quotas = place.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.expect("a quota can be made");
    until("the quota is counted", async || {
        quotas.get("one").await.is_ok_and(|it| it.status.is_some_and(|status| status.used.is_some()))
    })
    .await;
    let runtime = place.runtime("me");
    let first = start(&runtime, request_of("first", 0, RUNS, json!({}))).await;
    let refused = why(runtime.start(request_of("second", 0, RUNS, json!({}))).await);
    assert_eq!(refused.code, "QuotaExceeded", "{refused:?}");
    assert_eq!(place.pods().await, [first.instance.id.as_str()]);
    runtime.stop(&first.instance, StopRequest::KILL).await.unwrap();
}

async fn a_namespace_that_goes_is_told(place: Place) {
    let runtime = place.runtime("me");
    // Its end is held up for as long as this pod takes to end.
    let stubborn = started(&runtime, "trap '' TERM; sleep 1000", json!({"stop_grace_period": 60})).await;
    runs(&mut runtime.watch(&stubborn.instance)).await;
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    namespaces.delete(&place.namespace, &DeleteParams::default()).await.expect("it can be deleted");
    until("nothing more is made there", async || {
        let outcome = runtime.start(request_of("late", 0, RUNS, json!({"expose": "none"}))).await;
        outcome.is_err_and(
            |error| matches!(&error, RuntimeError::NotStarted { reason } if reason.code == "NamespaceTerminating"),
        )
    })
    .await;
    runtime.stop(&stubborn.instance, StopRequest::KILL).await.unwrap();
}

/// With the rights of `rbac::CALLS` in two namespaces, and no others, all that the runtime does can be done in both.
async fn the_rights_of_the_table_are_enough(place: Place) {
    let beside = place.beside().await;
    let token = place.token(&[&beside]).await;
    let client = place.client_with(&token).await;
    let runtime = KubernetesRuntime::with_client(options("me", &place.namespace), client);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.json");
    std::fs::write(&file, "one").unwrap();
    // Whoever was given rights a moment ago may be refused for a moment.
    until("its rights are known", async || runtime.list(&[]).await.is_ok()).await;
    for of in [&place, &beside] {
        let mut fleet = Vec::new();
        for replica in 0..2 {
            let more = json!({"replicas": 2, "namespace": of.namespace});
            let mut request = request_of("fleet", replica, "echo one; exec sleep 1000", more);
            request.environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), file.display().to_string());
            fleet.push(start(&runtime, request).await);
        }
        let mut watch = runtime.watch(&fleet[0].instance);
        runs(&mut watch).await;
        until("its output is read", async || printed(&runtime, &fleet[0]).await.contains(&"one".to_owned())).await;
        let request = coredinator_core::ExecRequest { command: vec!["true".to_owned()], max_output: 0 };
        assert_eq!(runtime.exec(&fleet[0].instance, request).await.unwrap().code, Some(0));
        runtime.deliver(&fleet[0].instance, &file).await.unwrap();
        assert!(runtime.inspect(&fleet[0].instance).await.unwrap().is_some());
        assert_eq!(runtime.list(&[]).await.unwrap().len(), 2);
        for started in &fleet {
            runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
        }
        ends(&mut watch).await;
        runtime.forget(&fleet[0].instance.service).await.unwrap();
        until("nothing is left", async || of.pods().await.is_empty()).await;
    }
    // And nothing beyond: it may not even look elsewhere.
    let elsewhere = runtime.start(request(RUNS, json!({"namespace": "kube-system"}))).await;
    let reason = why(elsewhere);
    assert_eq!(reason.code, "Forbidden", "{reason:?}");
    assert!(reason.message.contains("lacks the right to get pods in namespace kube-system"), "{reason:?}");
}

async fn a_finished_pod_is_read_and_removed(place: Place) {
    let runtime = place.runtime("me");
    let script = "echo $COREDINATOR_REPLICA; echo again; exit 3";
    let mut last = None;
    for _ in 0..3 {
        let begun = started(&runtime, script, json!({})).await;
        assert_eq!(ends(&mut runtime.watch(&begun.instance)).await.code, Some(3));
        last = Some(begun);
    }
    let last = last.unwrap();
    // Of those that ended the newest alone is kept beside the last, for its output.
    until("earlier ones are gone", async || place.pods().await.len() <= 2).await;
    let lines = printed(&runtime, &last).await;
    assert_eq!(lines.last().map(String::as_str), Some("again"), "{lines:?}");
    assert!(lines.len() >= 2 && lines.len() % 2 == 0, "{lines:?}");
    runtime.forget(&last.instance.service).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while place.api::<Pod>().get_opt(last.instance.id.as_str()).await.unwrap().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("what has ended is removed at once");
}
