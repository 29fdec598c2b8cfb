//! What a double and a real cluster can both be put to.

use coredinator_core::{ExecRequest, Observation, ProbeReport, Runtime, RuntimeError, Signal, StopRequest};
use k8s_openapi::api::{
    core::v1::{Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{
    printed,
    support::{PATIENCE, Place, ends, observed, request, request_of, runs, start, started, until},
};
use crate::everywhere;

everywhere! {
    an_eviction_is_told_and_one_that_was_asked_for_is_none,
    a_program_that_is_killed_inside_ends_by_a_signal,
    an_api_server_that_is_cut_off_is_waited_for,
    a_watch_that_breaks_off_misses_nothing,
    what_others_wrote_over_ours_is_taken_back,
    a_file_goes_with_its_pod_and_one_without_a_pod_is_removed,
    what_a_kubelet_says_of_health_is_read,
    a_signal_of_ones_own_is_sent_or_refused,
}

const RUNS: &str = "exec sleep 1000";

async fn an_eviction_is_told_and_one_that_was_asked_for_is_none(place: Place) {
    let runtime = place.runtime("me");
    let evicted = started(&runtime, RUNS, json!({"stop_grace_period": 1})).await;
    let mut watch = runtime.watch(&evicted.instance);
    runs(&mut watch).await;
    let name = evicted.instance.id.as_str();
    place.api::<Pod>().evict(name, &EvictParams::default()).await.expect("anybody may evict a pod");
    let why = ends(&mut watch).await.why.expect("why is told");
    assert_eq!(why.code, "EvictionByEvictionAPI", "{why:?}");
    assert!(why.message.contains("taken off its node"), "{why:?}");
    assert_eq!(runtime.list(&[]).await.unwrap(), []);
    // A stop is no news of that kind.
    let stopped = started(&runtime, RUNS, json!({})).await;
    let mut watch = runtime.watch(&stopped.instance);
    runs(&mut watch).await;
    runtime.stop(&stopped.instance, StopRequest { signal: Signal::Term, grace: PATIENCE }).await.unwrap();
    assert_eq!(ends(&mut watch).await.why, None);
}

async fn a_program_that_is_killed_inside_ends_by_a_signal(place: Place) {
    let runtime = place.runtime("me");
    let killed = started(&runtime, "echo $$; exec sleep 1000", json!({})).await;
    let mut watch = runtime.watch(&killed.instance);
    runs(&mut watch).await;
    until("it says which process it is", async || !printed(&runtime, &killed).await.is_empty()).await;
    let process = printed(&runtime, &killed).await[0].clone();
    let request = ExecRequest { command: ["kill", "-9", &process].map(str::to_owned).to_vec(), max_output: 100 };
    // The connection may go with what was killed.
    let _ = runtime.exec(&killed.instance, request).await;
    let exit = ends(&mut watch).await;
    assert_eq!((exit.signal, exit.code, exit.oom_killed, exit.why), (Some(9), None, false, None));
    assert_eq!(runtime.list(&[]).await.unwrap(), []);
    assert_eq!(printed(&runtime, &killed).await, [process], "what it printed stays");
}

async fn an_api_server_that_is_cut_off_is_waited_for(place: Place) {
    let line = place.line().await;
    let runtime = place.runtime_over(&line, "me").await;
    let lasting = started(&runtime, RUNS, json!({})).await;
    let job = start(&runtime, request_of("job", 0, "sleep 3; exit 7", json!({}))).await;
    let (mut lasts, mut ends_meanwhile) = (runtime.watch(&lasting.instance), runtime.watch(&job.instance));
    runs(&mut lasts).await;
    runs(&mut ends_meanwhile).await;
    line.cut();
    assert!(matches!(runtime.list(&[]).await, Err(RuntimeError::Unavailable { .. })));
    let refused = runtime.start(request_of("late", 0, RUNS, json!({}))).await;
    assert!(matches!(refused, Err(RuntimeError::Unavailable { .. })), "{refused:?}");
    let refused = runtime.stop(&lasting.instance, StopRequest::KILL).await;
    assert!(matches!(refused, Err(RuntimeError::Unavailable { .. })), "{refused:?}");
    until("the job ends meanwhile", async || {
        let pod = place.api::<Pod>().get(job.instance.id.as_str()).await.expect("it is there");
        pod.status.and_then(|status| status.phase).as_deref() == Some("Failed")
    })
    .await;
    line.mend();
    assert_eq!(ends(&mut ends_meanwhile).await.code, Some(7));
    assert_eq!(runtime.list(&[]).await.unwrap(), std::slice::from_ref(&lasting), "nothing was begun meanwhile");
    runtime.stop(&lasting.instance, StopRequest::KILL).await.unwrap();
    ends(&mut lasts).await;
}

async fn a_watch_that_breaks_off_misses_nothing(place: Place) {
    let line = place.line().await;
    let runtime = place.runtime_over(&line, "me").await;
    for round in 0..4 {
        line.break_off();
        let begun = started(&runtime, RUNS, json!({"stop_grace_period": 1})).await;
        let mut watch = runtime.watch(&begun.instance);
        line.break_off();
        runs(&mut watch).await;
        line.break_off();
        if round % 2 == 0 {
            let deleted = place.api::<Pod>().delete(begun.instance.id.as_str(), &DeleteParams::default()).await;
            deleted.expect("anybody may delete a pod");
            line.break_off();
        } else {
            runtime.stop(&begun.instance, StopRequest::KILL).await.unwrap();
        }
        ends(&mut watch).await;
        assert_eq!(runtime.list(&[]).await.unwrap(), [], "round {round}");
    }
}

async fn what_others_wrote_over_ours_is_taken_back(place: Place) {
    let runtime = place.runtime("me");
    let of = |port: u16| json!({"replicas": 2, "container_port": port});
    let mut pair = Vec::new();
    for replica in 0..2 {
        pair.push(start(&runtime, request_of("pair", replica, RUNS, of(9000))).await);
    }
    // Another manager takes fields over by force: what is ours is in conflict from now on.
    let foreign = PatchParams { force: true, ..PatchParams::apply("somebody") };
    let port = json!({"name": "main", "port": 9000, "protocol": "TCP", "targetPort": 1});
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "pair"}, "spec": {"ports": [port]}});
    place.api::<Service>().patch("pair", &foreign, &Patch::Apply(service)).await.expect("anybody may write a Service");
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "pair"}, "spec": {"minAvailable": 0},
    });
    let budgets = place.api::<PodDisruptionBudget>();
    budgets.patch("pair", &foreign, &Patch::Apply(budget)).await.expect("anybody may write a budget");
    // What is written with the next spec and the next start is ours again.
    runtime.stop(&pair[1].instance, StopRequest::KILL).await.unwrap();
    pair[1] = start(&runtime, request_of("pair", 1, RUNS, of(9001))).await;
    let ports = place.api::<Service>().get("pair").await.unwrap().spec.unwrap().ports.unwrap();
    let target = |port: i32| {
        let of = ports.iter().find(|it| it.port == port).and_then(|it| it.target_port.clone());
        serde_json::to_value(of).unwrap()
    };
    assert_eq!(target(9001), json!(9001), "{ports:?}");
    until("its budget is as it was", async || {
        let budget = budgets.get("pair").await.unwrap();
        serde_json::to_value(budget.spec.unwrap().min_available).unwrap() == json!(1)
    })
    .await;
    for started in &pair {
        runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
    }
    runtime.forget(&pair[0].instance.service).await.unwrap();
    assert!(place.api::<Service>().get_opt("pair").await.unwrap().is_none());
}

async fn a_file_goes_with_its_pod_and_one_without_a_pod_is_removed(place: Place) {
    let runtime = place.runtime("me");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("svc.json");
    std::fs::write(&file, "one").unwrap();
    let mut with_file = request("exec sleep 1000", json!({}));
    with_file.environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), file.display().to_string());
    let begun = start(&runtime, with_file).await;
    runs(&mut runtime.watch(&begun.instance)).await;
    let secrets = place.api::<Secret>();
    let name = begun.instance.id.as_str();
    let made = secrets.get(name).await.expect("its file came with it");
    assert_eq!(made.metadata.owner_references.iter().flatten().count(), 1, "it goes with its pod");
    if place.as_double().is_none() {
        // The double's programs see this machine's files.
        let words = ["sh", "-c", "cat $COREDINATOR_CONFIG_FILE"].map(str::to_owned).to_vec();
        let read = runtime.exec(&begun.instance, ExecRequest { command: words, max_output: 100 }).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&read.output), "one");
    }

    // As a crash leaves them: before its pod was made, and before it was its pod's.
    let labels = |id: &str, owner: &str, service: &str| {
        json!({
            "coredinator.owner": owner, "coredinator.service": service, "coredinator.instance": id, "coredinator.replica": "0",
        })
    };
    let secret = |id: &str, owner: &str, service: &str| -> Secret {
        let metadata = json!({"name": id, "labels": labels(id, owner, service)});
        serde_json::from_value(json!({"metadata": metadata, "stringData": {"svc.json": "x"}})).unwrap()
    };
    let names = async || {
        let listed = secrets.list(&kube::api::ListParams::default()).await.unwrap();
        let mut names: Vec<String> = listed.items.into_iter().filter_map(|it| it.metadata.name).collect();
        names.sort();
        names
    };
    for left in
        [secret("svc-0-left", "me", "svc"), secret("gone-0-left", "me", "gone"), secret("svc-0-yours", "you", "svc")]
    {
        secrets.create(&PostParams::default(), &left).await.expect("a secret can be made");
    }
    let stranger: Secret = serde_json::from_value(json!({"metadata": {"name": "strange"}})).unwrap();
    secrets.create(&PostParams::default(), &stranger).await.expect("a secret can be made");
    let unowned = PatchParams { force: true, ..PatchParams::apply("coredinator") };
    let without = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels(name, "me", "svc"), "ownerReferences": []},
    });
    secrets.patch(name, &unowned, &Patch::Apply(without)).await.expect("a secret can be changed");
    let loose = secrets.get(name).await.unwrap();
    assert_eq!(loose.metadata.owner_references.unwrap_or_default(), [], "its pod's no longer");

    let kept = runtime.kept().await.unwrap();
    assert!(kept.iter().any(|service| service.as_str() == "gone"), "{kept:?}");
    assert_eq!(runtime.list(&[]).await.unwrap().len(), 1);
    let mut left = vec!["strange".to_owned(), name.to_owned(), "svc-0-yours".to_owned()];
    left.sort();
    assert_eq!(names().await, left, "only what is ours and no pod's is removed");
    let owned = secrets.get(name).await.unwrap().metadata.owner_references.unwrap_or_default();
    assert_eq!(owned.len(), 1, "and what has a pod is its pod's again");
    assert_eq!(Some(&owned[0].uid), made.metadata.owner_references.iter().flatten().map(|of| &of.uid).next());

    // Of a service that is gone it is found, too.
    secrets.create(&PostParams::default(), &secret("gone-0-left", "me", "gone")).await.expect("a secret can be made");
    let gone = coredinator_core::ServiceName::new("gone").unwrap();
    assert!(runtime.kept().await.unwrap().contains(&gone));
    runtime.forget(&gone).await.unwrap();
    assert_eq!(names().await, left);
    assert!(!runtime.kept().await.unwrap().contains(&gone));
    runtime.stop(&begun.instance, StopRequest::KILL).await.unwrap();
    if place.as_double().is_none() {
        until("the cluster has taken its file away", async || secrets.get_opt(name).await.unwrap().is_none()).await;
    }
}

async fn what_a_kubelet_says_of_health_is_read(place: Place) {
    let runtime = place.runtime("me");
    let words = |file: &str| json!({"command": ["test", "-e", file], "interval": 1, "retries": 2});
    // On the double this is this machine's folder, so it has to be nobody else's.
    let dir = tempfile::tempdir().unwrap();
    let folder = if place.as_double().is_some() { dir.path().display().to_string() } else { "/tmp".to_owned() };
    let (alive, ready) = (format!("{folder}/alive"), format!("{folder}/ready"));
    let script = format!("touch {alive}; exec sleep 1000");
    let more = json!({"probe_by": "kubelet", "health_check": words(&alive), "readiness_check": words(&ready)});
    let begun = started(&runtime, &script, more).await;
    let mut watch = runtime.watch(&begun.instance);
    runs(&mut watch).await;
    let run = async |words: [&str; 2]| {
        let command = words.map(str::to_owned).to_vec();
        let ran = runtime.exec(&begun.instance, ExecRequest { command, max_output: 100 }).await.expect("it runs");
        assert_eq!(ran.code, Some(0), "{}", String::from_utf8_lossy(&ran.output));
    };
    let says = async |passed: bool| {
        let report: Option<ProbeReport> = runtime.native_health(&begun.instance).await.expect("it runs");
        report.is_some_and(|report| report == ProbeReport::pass("its kubelet says that it is ready")) == passed
    };
    until("it is not ready", async || says(false).await).await;
    run(["touch", &ready]).await;
    until("it is ready", async || says(true).await).await;
    run(["rm", &ready]).await;
    until("it is not ready again", async || says(false).await).await;
    run(["rm", &alive]).await;
    // Of one that is not alive its kubelet makes an end, and coredinator starts another.
    let exit = ends(&mut watch).await;
    assert_ne!(exit.code, Some(0), "{exit:?}");
}

async fn a_signal_of_ones_own_is_sent_or_refused(place: Place) {
    let runtime = place.runtime("me");
    let script = "trap 'exit 42' INT; echo ready; while :; do sleep 0.1; done";
    let request = request(script, json!({"stop_signal": "SIGINT", "stop_grace_period": 20}));
    match runtime.start(request).await {
        Ok(begun) => {
            let mut watch = runtime.watch(&begun.instance);
            loop {
                if let Observation::Running(_) = observed(&mut watch).await {
                    break;
                }
            }
            until("it listens", async || printed(&runtime, &begun).await == ["ready"]).await;
            runtime.stop(&begun.instance, StopRequest { signal: Signal::Int, grace: PATIENCE }).await.unwrap();
            let exit = ends(&mut watch).await;
            // The double's node sends SIGTERM alone.
            assert!(place.as_double().is_some() || exit.code == Some(42), "{exit:?}");
        }
        Err(RuntimeError::NotStarted { reason }) => {
            assert_eq!(reason.code, "StopSignalUnsupported", "{reason:?}");
            assert!(place.pods().await.is_empty(), "nothing of it is left");
        }
        other => panic!("it starts, or is refused: {other:?}"),
    }
}
