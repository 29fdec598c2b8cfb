//! An API server that is away, slow, overloaded, forgetful or unwilling, and nodes that are lost: on a double of a cluster,
//! over real HTTP.

#[expect(dead_code, unused_imports, reason = "other tests use more of it")]
mod support;

use std::{collections::BTreeSet, time::Duration};

use coredinator_core::{ExecRequest, LogQuery, Runtime, RuntimeError, StopRequest};
use coredinator_runtime_k8s::{KubernetesRuntime, rbac};
use futures_util::StreamExt;
use serde_json::json;
use support::{
    Double, Fault, NAMESPACE, PATIENCE, Then, client, ends, options, request, request_of, runs, runtime, start,
    started, until,
};
use tokio::time::timeout;

const RUNS: &str = "exec sleep 1000";

fn fault(resource: &'static str, verb: &'static str, times: usize, then: Then) -> Fault {
    Fault { resource, verb, times, then }
}

async fn one_pod_runs(double: &Double, runtime: &KubernetesRuntime) {
    assert_eq!(runtime.list(&[]).await.unwrap().len(), 1);
    assert_eq!(double.names("pods", NAMESPACE).len(), 1);
    until("one program runs", async || double.processes() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_waited_for_and_nothing_is_doubled() {
    for then in [
        Then::Answer(429, Some(1)),
        Then::Answer(503, None),
        Then::Answer(500, None),
        Then::Cut,
        Then::DoneAndCut,
        Then::Slow(Duration::from_millis(300)),
    ] {
        let double = Double::start().await;
        let runtime = runtime(&double, "me");
        for resource in ["pods", "services"] {
            for verb in ["get", "patch"] {
                double.fault(fault(resource, verb, 2, then.clone()));
            }
        }
        let begun = started(&runtime, RUNS, json!({})).await;
        one_pod_runs(&double, &runtime).await;
        double.heal();
        for verb in ["get", "delete"] {
            double.fault(fault("pods", verb, 2, then.clone()));
        }
        timeout(PATIENCE, runtime.stop(&begun.instance, StopRequest::KILL))
            .await
            .expect("a stop ends")
            .expect("it stops");
        double.heal();
        assert_eq!(runtime.list(&[]).await.unwrap(), [], "{then:?}");
        until("nothing runs", async || double.processes() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_told_and_nothing_is_concluded() {
    let double = Double::start().await;
    let runtime = runtime(&double, "me");
    let lasting = started(&runtime, RUNS, json!({})).await;
    let mut watch = runtime.watch(&lasting.instance);
    runs(&mut watch).await;
    for (verb, then) in [("list", Then::Answer(503, Some(3600))), ("get", Then::Answer(429, Some(3600)))] {
        double.fault(fault("pods", verb, usize::MAX, then));
    }
    let listed = runtime.list(&[]).await;
    assert!(matches!(listed, Err(RuntimeError::Unavailable { .. })), "{listed:?}");
    let refused = runtime.start(request(RUNS, json!({}))).await;
    assert!(matches!(refused, Err(RuntimeError::Unavailable { .. })), "{refused:?}");
    let stopped = runtime.stop(&lasting.instance, StopRequest::KILL).await;
    assert!(matches!(stopped, Err(RuntimeError::Unavailable { .. })), "{stopped:?}");
    double.heal();
    assert_eq!(runtime.list(&[]).await.unwrap(), [lasting]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_printed_outlives_it_although_reading_is_slow() {
    let double = Double::start().await;
    let runtime = runtime(&double, "me");
    let begun = started(&runtime, "echo here; exec sleep 1000", json!({})).await;
    let printed = async || {
        let service = begun.instance.service.clone();
        let query = LogQuery { service, replica: None, tail: None, since: None, follow: false };
        let Ok(lines) = runtime.logs(query).await else { return Vec::new() };
        lines.filter_map(async |line| line.ok().map(|line| line.line)).collect::<Vec<_>>().await
    };
    until("it has printed", async || printed().await == ["here"]).await;
    double.fault(fault("pods/log", "get", 1, Then::Slow(Duration::from_millis(500))));
    runtime.stop(&begun.instance, StopRequest::KILL).await.unwrap();
    assert_eq!(double.names("pods", NAMESPACE).len(), 0);
    assert_eq!(printed().await, ["here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named() {
    let double = Double::start().await;
    let runtime = runtime(&double, "me");
    let begun = started(&runtime, RUNS, json!({})).await;
    for (resource, verb) in [("pods", "get"), ("pods", "patch"), ("services", "get"), ("services", "patch")] {
        double.fault(fault(resource, verb, usize::MAX, Then::Answer(403, None)));
        let refused = runtime.start(request_of(&format!("{verb}-{resource}"), 0, RUNS, json!({}))).await;
        let Err(RuntimeError::NotStarted { reason }) = refused else { panic!("it is forbidden: {refused:?}") };
        assert_eq!(reason.code, "Forbidden");
        let right = format!("lacks the right to {verb} {resource} in namespace {NAMESPACE}");
        assert!(reason.message.contains(&right), "{}", reason.message);
        double.heal();
    }
    double.fault(fault("pods", "list", usize::MAX, Then::Answer(403, None)));
    let Err(error) = runtime.list(&[]).await else { panic!("it is forbidden") };
    assert!(matches!(error, RuntimeError::Unavailable { .. }) && error.to_string().contains("list pods"), "{error}");
    double.heal();
    double.fault(fault("pods", "delete", usize::MAX, Then::Answer(403, None)));
    let Err(error) = runtime.stop(&begun.instance, StopRequest::KILL).await else { panic!("it is forbidden") };
    assert!(error.to_string().contains("delete pods"), "{error}");
    double.heal();
    runtime.stop(&begun.instance, StopRequest::KILL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_may_go_and_come() {
    let mut double = Double::start().await;
    let runtime = runtime(&double, "me");
    let lasting = started(&runtime, RUNS, json!({})).await;
    let ending = start(&runtime, request_of("job", 0, "sleep 1; exit 7", json!({}))).await;
    let (mut lasts, mut ends_meanwhile) = (runtime.watch(&lasting.instance), runtime.watch(&ending.instance));
    runs(&mut lasts).await;
    runs(&mut ends_meanwhile).await;
    double.halt().await;
    assert!(matches!(runtime.list(&[]).await, Err(RuntimeError::Unavailable { .. })));
    until("the job ends meanwhile", async || double.processes() == 1).await;
    double.resume().await;
    assert_eq!(ends(&mut ends_meanwhile).await.code, Some(7));
    assert_eq!(runtime.list(&[]).await.unwrap(), std::slice::from_ref(&lasting));
    // What happens from now on is told as well.
    double.alter("pods", NAMESPACE, lasting.instance.id.as_str(), |pod| {
        pod["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."});
    });
    assert_eq!(ends(&mut lasts).await.to_string(), "evicted by its node: The node was low on memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_cut_or_too_old_goes_on() {
    let double = Double::start().await;
    let runtime = runtime(&double, "me");
    for round in 0..6 {
        let begun = started(&runtime, RUNS, json!({})).await;
        let mut watch = runtime.watch(&begun.instance);
        runs(&mut watch).await;
        if round % 2 == 0 {
            // It ends while nobody watches, and what came in between is forgotten: all is listed anew.
            double.fault(fault("pods", "watch", 2, Then::Answer(503, None)));
            double.cut();
            let name = begun.instance.id.as_str();
            double.alter("pods", NAMESPACE, name, |pod| {
                pod["status"] = json!({"phase": "Failed", "reason": "Preempting"});
            });
            double.compact();
            ends(&mut watch).await;
        } else {
            double.cut();
            runtime.stop(&begun.instance, StopRequest::KILL).await.unwrap();
            ends(&mut watch).await;
        }
        assert_eq!(runtime.list(&[]).await.unwrap(), []);
    }
    assert!(double.count("pods", "list") >= 2, "what is too old is listed anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_a_lost_node_is_replaced_and_one_that_only_takes_long_is_not() {
    let double = Double::start().await;
    let mut quick = options("me", NAMESPACE);
    quick.lost_after = Duration::from_millis(500);
    let runtime = KubernetesRuntime::with_client(quick, client(&double));
    let begun = started(&runtime, RUNS, json!({"stop_grace_period": 1})).await;
    let mut watch = runtime.watch(&begun.instance);
    runs(&mut watch).await;
    let name = begun.instance.id.as_str();
    double.lose(NAMESPACE, name);
    // What the cluster does about a node that is silent: it says that its pods are not ready, and later asks them to end.
    double.alter("pods", NAMESPACE, name, |pod| {
        pod["status"]["conditions"] = json!([
            {"type": "Ready", "status": "False"},
            {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"},
        ]);
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    });
    assert_eq!(ends(&mut watch).await.why.map(|why| why.code).as_deref(), Some("NodeLost"));
    assert_eq!(runtime.list(&[]).await.unwrap(), [], "it is held to be lost");
    let next = started(&runtime, RUNS, json!({})).await;
    assert_eq!(runtime.list(&[]).await.unwrap(), [next], "and another takes its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_changes_nothing() {
    for skew in [-86_400, 86_400] {
        let double = Double::start().await;
        double.skew(skew);
        let runtime = runtime(&double, "me");
        let begun = started(&runtime, "echo one; exec sleep 1000", json!({"stop_grace_period": 5})).await;
        let mut watch = runtime.watch(&begun.instance);
        runs(&mut watch).await;
        let how = StopRequest { signal: coredinator_core::Signal::Term, grace: PATIENCE };
        timeout(PATIENCE, runtime.stop(&begun.instance, how)).await.expect("a stop ends").expect("it stops");
        ends(&mut watch).await;
        assert_eq!(runtime.list(&[]).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_called_that_the_table_of_rights_lacks() {
    let double = Double::start().await;
    let runtime = runtime(&double, "me");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.json");
    std::fs::write(&file, "one").unwrap();
    let mut fleet = Vec::new();
    for replica in 0..2 {
        let mut request = request_of("fleet", replica, "echo one; exec sleep 1000", json!({"replicas": 2}));
        request.environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), file.display().to_string());
        fleet.push(start(&runtime, request).await);
    }
    let secret = || double.get("secrets", NAMESPACE, fleet[0].instance.id.as_str()).expect("its file came with it");
    assert_eq!(secret()["data"]["fleet.json"], "b25l", "one");
    let uid = &double.get("pods", NAMESPACE, fleet[0].instance.id.as_str()).unwrap()["metadata"]["uid"];
    assert_eq!(secret()["metadata"]["ownerReferences"][0]["uid"], *uid, "it goes with its pod");
    std::fs::write(&file, "two").unwrap();
    runtime.deliver(&fleet[0].instance, &file).await.unwrap();
    assert_eq!(secret()["data"]["fleet.json"], "dHdv", "two");
    let request = ExecRequest { command: vec!["true".to_owned()], max_output: 0 };
    assert_eq!(runtime.exec(&fleet[0].instance, request).await.unwrap().code, Some(0));
    let mut bad = request_of("bad", 0, RUNS, json!({}));
    bad.environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), file.display().to_string());
    double.fault(fault("pods", "patch", 1, Then::Answer(422, None)));
    let name = bad.spec.name.clone();
    assert!(matches!(runtime.start(bad).await, Err(RuntimeError::NotStarted { .. })));
    assert_eq!(runtime.kept().await.unwrap(), [name.clone(), fleet[0].instance.service.clone()]);
    runtime.forget(&name).await.unwrap();
    assert_eq!(double.names("secrets", NAMESPACE).len(), 2, "of a start that failed nothing is left");
    runtime.stop(&fleet[1].instance, StopRequest::KILL).await.unwrap();
    until("its budget is gone", async || double.names("poddisruptionbudgets", NAMESPACE).is_empty()).await;
    runtime.stop(&fleet[0].instance, StopRequest::KILL).await.unwrap();
    assert_eq!(runtime.kept().await.unwrap(), std::slice::from_ref(&fleet[0].instance.service));
    runtime.forget(&fleet[0].instance.service).await.unwrap();
    let called = double.calls();
    let text = |call: &rbac::Call| [call.group, call.resource, call.verb].map(str::to_owned);
    let table: BTreeSet<_> =
        rbac::CALLS.iter().map(text).map(|[group, resource, verb]| (group, resource, verb)).collect();
    let beyond: Vec<_> = called.difference(&table).collect();
    assert!(beyond.is_empty(), "calls without a right: {beyond:?}");
    // The other way round: each right is used. `create` is what the server asks for where apply makes what is not there.
    let unused: Vec<_> = table.difference(&called).filter(|(_, _, verb)| verb != "create").collect();
    assert!(unused.is_empty(), "rights without a call: {unused:?}");
}

/// A service that names a namespace of which coredinator may not see anything costs only itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_rights_holds_up_no_other() {
    let double = Double::start().await;
    let runtime = runtime(&double, "me");
    let here = started(&runtime, RUNS, json!({})).await;
    let there = start(&runtime, request_of("other", 0, RUNS, json!({"namespace": "elsewhere"}))).await;
    double.forbid("elsewhere");
    let anew = support::runtime(&double, "me");
    anew.declared(&request_of("other", 0, RUNS, json!({"namespace": "elsewhere"})).spec);
    assert_eq!(anew.list(&[]).await.unwrap(), std::slice::from_ref(&here));
    assert_eq!(anew.kept().await.unwrap(), std::slice::from_ref(&here.instance.service));
    let refused = anew.start(request_of("other", 1, RUNS, json!({"namespace": "elsewhere"}))).await;
    let Err(RuntimeError::NotStarted { reason }) = refused else { panic!("it is forbidden: {refused:?}") };
    assert!(reason.code == "Forbidden" && reason.message.contains("namespace elsewhere"), "{reason:?}");
    // Where a record says that something runs nothing is concluded.
    let unknown = anew.list(std::slice::from_ref(&there.instance)).await;
    assert!(matches!(unknown, Err(RuntimeError::Unavailable { .. })), "{unknown:?}");
    double.heal();
    assert_eq!(anew.list(&[]).await.unwrap().len(), 2);
}

/// Of a service that is declared, what a start left in its namespace is found although no record tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_declared_service_is_looked_for_in_its_namespace() {
    let double = Double::start().await;
    let request = request_of("other", 0, RUNS, json!({"namespace": "elsewhere"}));
    let left = start(&runtime(&double, "me"), request.clone()).await;
    let anew = runtime(&double, "me");
    assert_eq!(anew.list(&[]).await.unwrap(), [], "nobody has told it where to look");
    anew.declared(&request.spec);
    assert_eq!(anew.list(&[]).await.unwrap(), [left]);
}

/// The double refuses what a real API server would, so that what passes here passes there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_server_would_refuse_the_double_refuses() {
    let double = Double::start().await;
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client(&double), NAMESPACE);
    let of = |more: serde_json::Value| {
        let mut pod = json!({
            "metadata": {"name": "a", "labels": {"coredinator.owner": "me"}},
            "spec": {"containers": [{"name": "main", "image": "i"}]},
        });
        for (path, value) in more.as_object().unwrap() {
            let (parent, key) = path.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(pod).unwrap()
    };
    let twice = |key: &str, value: serde_json::Value| json!([{key: value}, {key: value}]);
    for bad in [
        json!({"/metadata/name": "A"}),
        json!({"/metadata/labels": {"a b": "c"}}),
        json!({"/metadata/labels": {"a": "x".repeat(64)}}),
        json!({"/spec/hostAliases": twice("ip", json!("10.0.0.1"))}),
        json!({"/spec/imagePullSecrets": twice("name", json!("a"))}),
        json!({"/spec/containers/0/env": twice("name", json!("A"))}),
        json!({"/spec/containers/0/volumeMounts": [{"name": "none", "mountPath": "/a"}]}),
        json!({"/spec/containers/0/resources": {"limits": {"cpu": "much"}}}),
        json!({"/spec/containers/0/livenessProbe": {"successThreshold": 2, "tcpSocket": {"port": 80}}}),
        json!({"/spec/containers/0/readinessProbe": {"tcpSocket": {"port": 0}}}),
        json!({"/spec/containers/0/startupProbe": {"periodSeconds": 1}}),
        json!({"/spec/restartPolicy": "Sometimes"}),
        json!({"/spec/terminationGracePeriodSeconds": -1}),
    ] {
        let refused = pods.create(&kube::api::PostParams::default(), &of(bad.clone())).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422), "{bad}: {refused:?}");
    }
    pods.create(&kube::api::PostParams::default(), &of(json!({}))).await.expect("what is right is taken");
}
