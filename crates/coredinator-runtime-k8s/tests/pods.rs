//! What happens to pods from outside, and what stands beside them: on a double of a cluster, and on a real one where
//! `COREDINATOR_TEST_KUBECONFIG` names it.

#[expect(dead_code, unused_imports, reason = "other tests use more of it")]
mod support;

use std::collections::BTreeSet;

use coredinator_core::{LogQuery, Observation, OutputStream, Runtime, RuntimeError, ServiceName, Signal, StopRequest};
use futures_util::StreamExt;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use support::{PATIENCE, Place, ends, observed, request, request_of, runs, start, started, until};
use tokio::time::timeout;

everywhere! {
    what_others_do_to_a_pod_is_told,
    strangers_are_never_touched,
    a_service_is_found_and_protected_while_it_is_there,
    a_kubelet_may_restart_in_place,
    why_a_pod_waits_is_told,
    what_a_program_finds_inside,
    a_program_that_is_not_there_is_told,
}

const RUNS: &str = "exec sleep 1000";

async fn what_others_do_to_a_pod_is_told(place: Place) {
    let runtime = place.runtime("me");
    let deleted = started(&runtime, RUNS, json!({"stop_grace_period": 1})).await;
    let mut watch = runtime.watch(&deleted.instance);
    runs(&mut watch).await;
    let name = deleted.instance.id.as_str();
    place.api::<Pod>().delete(name, &DeleteParams::default()).await.expect("anybody may delete a pod");
    assert_eq!(ends(&mut watch).await.why.map(|why| why.code).as_deref(), Some("PodDeleted"));
    until("it is gone", async || !place.pods().await.contains(&name.to_owned())).await;
    // Who asks later is told the same, and nothing is left to be stopped.
    ends(&mut runtime.watch(&deleted.instance)).await;
    runtime.stop(&deleted.instance, StopRequest::KILL).await.unwrap();
    assert_eq!(runtime.list(std::slice::from_ref(&deleted.instance)).await.unwrap(), []);

    // One that was forced away is no more, whatever its program does.
    let forced = started(&runtime, RUNS, json!({})).await;
    let mut watch = runtime.watch(&forced.instance);
    runs(&mut watch).await;
    let now = DeleteParams::default().grace_period(0);
    place.api::<Pod>().delete(forced.instance.id.as_str(), &now).await.expect("anybody may delete a pod");
    ends(&mut watch).await;
}

async fn strangers_are_never_touched(place: Place) {
    let (mine, yours) = (place.runtime("me"), place.runtime("you"));
    let other = started(&yours, RUNS, json!({})).await;
    assert_eq!(mine.list(std::slice::from_ref(&other.instance)).await.unwrap(), []);
    mine.stop(&other.instance, StopRequest::KILL).await.unwrap();
    mine.forget(&other.instance.service).await.unwrap();
    assert_eq!(yours.list(&[]).await.unwrap(), std::slice::from_ref(&other));
    assert!(place.api::<Service>().get_opt("svc").await.unwrap().is_some(), "nor what stands beside them");

    // A Service that is somebody else's is left alone, and so is a pod.
    let refused = mine.start(request(RUNS, json!({}))).await;
    let Err(RuntimeError::NotStarted { reason }) = refused else { panic!("the name is taken: {refused:?}") };
    assert_eq!(reason.code, "NameTaken");
    let request = request_of("other", 0, RUNS, json!({}));
    let pod = json!({
        "metadata": {"name": request.id.as_str()},
        "spec": {"containers": [{"name": "c", "image": support::IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", RUNS]}]},
    });
    let strange: Pod = serde_json::from_value(pod).unwrap();
    let made = place.api::<Pod>().create(&PostParams::default(), &strange).await.expect("anybody may make a pod");
    let refused = mine.start(request.clone()).await;
    let Err(RuntimeError::NotStarted { reason }) = refused else { panic!("the name is taken: {refused:?}") };
    assert_eq!(reason.code, "NameTaken");
    let still = place.api::<Pod>().get(request.id.as_str()).await.expect("it is still there");
    assert_eq!((still.metadata.uid, still.metadata.labels), (made.metadata.uid, None));
    yours.stop(&other.instance, StopRequest::KILL).await.unwrap();
}

async fn a_service_is_found_and_protected_while_it_is_there(place: Place) {
    let runtime = place.runtime("me");
    let more = json!({"replicas": 3, "container_port": 9000});
    let mut fleet = Vec::new();
    for replica in 0..3 {
        fleet.push(start(&runtime, request_of("fleet", replica, RUNS, more.clone())).await);
    }
    let service = place.api::<Service>().get("fleet").await.expect("a Service stands for it");
    let ports = service.spec.unwrap();
    assert_eq!(ports.ports.unwrap()[0].port, 9000);
    let selector = ports.selector.unwrap();
    let pod = place.api::<Pod>().get(fleet[0].instance.id.as_str()).await.unwrap();
    let labels = pod.metadata.labels.unwrap();
    assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)), "{selector:?} chooses {labels:?}");
    let stays = async || {
        let budget = place.api::<PodDisruptionBudget>().get_opt("fleet").await.unwrap()?;
        Some(serde_json::to_value(budget.spec?.min_available?).unwrap())
    };
    assert_eq!(stays().await, Some(json!(2)));

    // Another spec: it is found as that says. What cannot be changed is made anew.
    let headless = json!({"replicas": 3, "container_port": 9001, "expose": "headless"});
    runtime.stop(&fleet[2].instance, StopRequest::KILL).await.unwrap();
    fleet[2] = start(&runtime, request_of("fleet", 2, RUNS, headless)).await;
    let ports = place.api::<Service>().get("fleet").await.unwrap().spec.unwrap();
    assert_eq!((ports.ports.unwrap()[0].port, ports.cluster_ip.as_deref()), (9001, Some("None")));
    // To have an address again is no change that an API server makes in place, and none that it refuses.
    let again = json!({"replicas": 3, "container_port": 9001});
    runtime.stop(&fleet[2].instance, StopRequest::KILL).await.unwrap();
    fleet[2] = start(&runtime, request_of("fleet", 2, RUNS, again)).await;
    let ports = place.api::<Service>().get("fleet").await.unwrap().spec.unwrap();
    assert_ne!(ports.cluster_ip.as_deref(), Some("None"));
    // The budget follows what there is; one replica alone needs none, lest it hold up the draining of nodes.
    runtime.stop(&fleet[2].instance, StopRequest::KILL).await.unwrap();
    until("the budget is fitted to two", async || stays().await == Some(json!(1))).await;
    runtime.stop(&fleet[1].instance, StopRequest::KILL).await.unwrap();
    until("one needs none", async || stays().await.is_none()).await;
    runtime.stop(&fleet[0].instance, StopRequest::KILL).await.unwrap();
    runtime.forget(&fleet[0].instance.service).await.unwrap();
    assert!(place.api::<Service>().get_opt("fleet").await.unwrap().is_none());
    until("nothing is left", async || place.pods().await.is_empty()).await;
}

async fn a_kubelet_may_restart_in_place(place: Place) {
    let runtime = place.runtime("me");
    let more = json!({"restart_by": "kubelet", "restart_policy": "always"});
    // Long enough to be seen to run: a kubelet tells what it does a second late.
    let script = "echo begins; sleep 3; exit 7";
    let restarted = started(&runtime, script, more).await;
    let mut watch = runtime.watch(&restarted.instance);
    // It waits to be started again, and runs again, the same pod; that is told once for each time.
    let name = restarted.instance.id.as_str();
    let mut handle = restarted.instance.clone();
    let mut counted = 0;
    while counted < 2 {
        if let Observation::Restarted { started, times, last } = observed(&mut watch).await {
            counted += times;
            assert_eq!(last.and_then(|last| last.code), Some(7));
            handle = started.instance;
        }
    }
    assert_eq!(place.pods().await, [name]);
    // Who comes later and knows how many were counted is told those that were not.
    let known = coredinator_core::InstanceRef { handle: restarted.instance.handle.clone(), ..handle };
    let found = place.runtime("me").list(std::slice::from_ref(&known)).await.unwrap();
    assert_eq!(found[0].instance.handle, known.handle);
    let mut anew = place.runtime("me").watch(&found[0].instance);
    let told = loop {
        if let Observation::Restarted { times, .. } = observed(&mut anew).await {
            break times;
        }
    };
    assert!(told >= counted, "{told} of at least {counted}");
    // While it runs, its life before is read, too.
    until("both lives are read", async || {
        let service = restarted.instance.service.clone();
        let query = LogQuery { service, replica: None, tail: None, since: None, follow: false };
        let Ok(lines) = runtime.logs(query).await else { return false };
        let lines: Vec<_> = lines.filter_map(async |line| line.ok().map(|line| line.line)).collect().await;
        assert!(lines.iter().all(|line| line == "begins"), "{lines:?}");
        lines.len() == 2
    })
    .await;
    runtime.stop(&restarted.instance, StopRequest::KILL).await.unwrap();
    ends(&mut watch).await;
    assert_eq!(runtime.list(&[]).await.unwrap(), []);
}

async fn why_a_pod_waits_is_told(place: Place) {
    let runtime = place.runtime("me");
    for (more, code) in [
        (json!({"node_selector": {"there-is-no": "such-node"}}), "Unschedulable"),
        (json!({"image": "localhost:1/is-not:there", "pull": "missing"}), "ImagePullBackOff"),
    ] {
        let mut options = support::options("me", &place.namespace);
        options.taken_on_after = std::time::Duration::from_millis(200);
        let runtime_of = coredinator_runtime_k8s::KubernetesRuntime::with_client(options, place.client.clone());
        let waits = timeout(PATIENCE, runtime_of.start(request(RUNS, more)))
            .await
            .expect("a start ends")
            .expect("it is taken on");
        assert!(!waits.running);
        let mut watch = runtime.watch(&waits.instance);
        loop {
            match observed(&mut watch).await {
                Observation::Waiting(reason) if reason.code == code => break,
                Observation::Waiting(_) => {}
                other => panic!("expected it to wait, but saw {other:?}"),
            }
        }
        assert_eq!(runtime.list(&[]).await.unwrap().len(), 1, "what waits lives");
        runtime.stop(&waits.instance, StopRequest { signal: Signal::Term, grace: PATIENCE }).await.unwrap();
        ends(&mut watch).await;
    }
}

async fn what_a_program_finds_inside(place: Place) {
    let runtime = place.runtime("me");
    let script = "echo $COREDINATOR_SERVICE $PORT $A {port} $COREDINATOR_REPLICA; echo wrong >&2; exec sleep 1000";
    let more = json!({"environment": {"A": "costs $5 $(X) $$"}, "container_port": 9000});
    let started = start(&runtime, request_of("svc", 3, script, more)).await;
    assert_eq!(started.port, 9000);
    assert!(!started.host.is_empty());
    let query =
        LogQuery { service: started.instance.service.clone(), replica: None, tail: None, since: None, follow: true };
    let mut logs = runtime.logs(query).await.unwrap();
    let mut read = BTreeSet::new();
    while read.len() < 2 {
        let line = timeout(PATIENCE, logs.next()).await.expect("a line").expect("more lines").unwrap();
        assert!(line.at.is_some() && line.replica == 3 && line.stream == OutputStream::Stdout);
        read.insert(line.line);
    }
    let wanted = ["svc 9000 costs $5 $(X) $$ 9000 3", "wrong"].map(str::to_owned);
    assert_eq!(read, wanted.into());
    runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
    let missing = ServiceName::new("never-was").unwrap();
    runtime.forget(&missing).await.unwrap();
}

async fn a_program_that_is_not_there_is_told(place: Place) {
    let runtime = place.runtime("me");
    let refused = runtime.start(request(RUNS, json!({"command": ["/is/not/there"]}))).await;
    let Err(RuntimeError::NotStarted { reason }) = refused else { panic!("there is no such program: {refused:?}") };
    assert_eq!(reason.code, "CommandNotFound", "{reason:?}");
    assert_eq!(runtime.list(&[]).await.unwrap(), []);
    assert!(place.pods().await.is_empty(), "nothing of it is left");
}
