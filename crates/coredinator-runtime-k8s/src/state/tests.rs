use std::sync::Arc;

use coredinator_core::SystemClock;
use serde_json::{Value, json};

use super::*;

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

#[expect(clippy::needless_pass_by_value, reason = "as `json!` makes them")]
fn pod(status: Value) -> Value {
    json!({
        "metadata": {
            "name": "svc-0-1", "namespace": "plant", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "coredinator.owner": "me", "coredinator.service": "svc", "coredinator.instance": "svc-0-1",
                "coredinator.replica": "0", "coredinator.port": "80",
            },
        },
        "spec": {"containers": [{"name": "main"}], "restartPolicy": "Never"},
        "status": status,
    })
}

fn read(pod: Value) -> Found {
    Found::read(&serde_json::from_value(pod).unwrap(), "me", &clock()).expect("a pod of ours")
}

fn of(status: Value) -> Found {
    read(pod(status))
}

fn waits(status: Value) -> (String, String) {
    match of(status).state {
        State::Waiting(reason) => (reason.code, reason.message),
        other => panic!("expected it to wait, but it is {other:?}"),
    }
}

fn ended_as(status: Value) -> (Option<i32>, Option<i32>, bool, Option<String>) {
    match of(status).state {
        State::Ended(exit) => (exit.code, exit.signal, exit.oom_killed, exit.why.map(|why| why.code)),
        other => panic!("expected it to have ended, but it is {other:?}"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `json!` makes them")]
fn container(state: Value) -> Value {
    json!([{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}

#[test]
fn why_it_waits_is_told_in_plain_words() {
    let waiting = |reason: &str, message: &str| {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        waits(json!({"phase": "Pending", "containerStatuses": container(state)}))
    };
    let unscheduled = json!({"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu.",
    }]});
    let (code, message) = waits(unscheduled);
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("Unschedulable", "no node takes it: 0/3 nodes are available: 3 Insufficient cpu")
    );
    for (reason, said, words) in [
        (
            "ImagePullBackOff",
            "Back-off pulling image \"x\"",
            "its image cannot be fetched; the node waits before it tries again: Back-off pulling image \"x\"",
        ),
        (
            "ErrImageNeverPull",
            "not present",
            "its image is not on the node, and `pull: never` says not to fetch it: not present",
        ),
        (
            "CreateContainerConfigError",
            "secret \"a\" not found",
            "what it refers to is not there: secret \"a\" not found",
        ),
        ("ContainerCreating", "", "its node prepares it"),
    ] {
        let (code, message) = waiting(reason, said);
        assert_eq!((code.as_str(), message.as_str()), (reason, words));
    }
    let (_, message) = waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root");
    assert!(message.contains("run_as_non_root: false"), "{message}");
    let (code, _) = waiting("CreateContainerError", "exec: \"/x\": stat /x: no such file or directory");
    assert_eq!(code, "CommandNotFound", "as some container runtimes tell it");
    let (code, _) = waits(json!({"phase": "Pending"}));
    assert_eq!(code, "Pending");
    let (code, _) = waits(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}));
    assert_eq!(code, "ContainerCreating");
    assert!(is_hopeless(&Reason::new("ErrImageNeverPull", "")) && !is_hopeless(&Reason::new("ImagePullBackOff", "")));
}

#[test]
fn how_it_ended_and_why() {
    let terminated = |code: i32, reason: &str| {
        container(json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-01-01T00:00:05Z"}}))
    };
    let failed = |statuses: Value| json!({"phase": "Failed", "containerStatuses": statuses});
    assert_eq!(ended_as(failed(terminated(3, "Error"))), (Some(3), None, false, None));
    assert_eq!(ended_as(failed(terminated(137, "Error"))), (None, Some(9), false, None));
    assert_eq!(ended_as(failed(terminated(143, "Error"))), (Some(143), None, false, None));
    assert_eq!(ended_as(failed(terminated(137, "OOMKilled"))), (None, Some(9), true, None));
    assert_eq!(ended_as(json!({"phase": "Succeeded", "containerStatuses": terminated(0, "Completed")})).0, Some(0));
    // Its node says that the program has ended before it says so of the pod.
    assert_eq!(ended_as(json!({"phase": "Running", "containerStatuses": terminated(0, "Completed")})).0, Some(0));
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "});
    assert_eq!(ended_as(evicted.clone()), (None, None, false, Some("Evicted".into())));
    let State::Ended(exit) = of(evicted).state else { panic!("it has ended") };
    assert_eq!(exit.why.unwrap().message, "evicted by its node: The node was low on resource: memory");
    let taken = json!({"phase": "Failed", "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting",
    }]});
    assert_eq!(ended_as(taken).3.as_deref(), Some("PreemptionByScheduler"));
    for (message, code) in [
        ("exec: \"x\": executable file not found in $PATH", "CommandNotFound"),
        ("permission denied", "NotExecutable"),
        ("oops", "StartError"),
    ] {
        let state = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": message}});
        let State::Ended(exit) = of(failed(container(state))).state else { panic!("it has ended") };
        assert_eq!(never_started(&exit).unwrap().code, code);
    }
    let State::Ended(exit) = of(failed(terminated(3, "Error"))).state else { panic!("it has ended") };
    assert_eq!(exit.at.to_string(), "2026-01-01T00:00:05Z");
}

#[test]
fn what_a_kubelet_starts_again_goes_on() {
    let again = |policy: &str, code: i32| {
        let mut pod =
            pod(json!({"phase": "Running", "containerStatuses": container(json!({"terminated": {"exitCode": code}}))}));
        pod["spec"]["restartPolicy"] = json!(policy);
        !matches!(read(pod).state, State::Ended(_))
    };
    assert!(again("Always", 0) && again("Always", 1) && again("OnFailure", 1));
    assert!(!again("OnFailure", 0) && !again("Never", 1));
    let mut looping = container(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}));
    looping[0]["lastState"] = json!({"terminated": {"exitCode": 7}});
    looping[0]["restartCount"] = json!(4);
    let found = of(json!({"phase": "Running", "containerStatuses": looping}));
    assert_eq!((found.restarts, found.last_exit.as_ref().unwrap().code), (4, Some(7)));
    let State::Waiting(reason) = found.state else { panic!("it waits") };
    assert_eq!(
        reason.to_string(),
        "exited with code 7, again and again; its kubelet waits before it starts it once more"
    );
}

#[test]
fn running_is_told_once_and_with_its_place() {
    let mut status = json!({"phase": "Running", "containerStatuses": container(json!({"running": {"startedAt": "2026-01-01T00:00:02Z"}}))});
    let homeless = of(status.clone());
    assert!(matches!(next(None, &homeless, 0), Some(Observation::Waiting(_))), "without an address it is not reached");
    status["podIP"] = json!("10.0.0.9");
    let found = of(status.clone());
    let told = next(None, &found, 0).unwrap();
    let Observation::Running(started) = &told else { panic!("it runs: {told:?}") };
    assert_eq!((started.host.as_str(), started.port, started.running), ("10.0.0.9", 80, true));
    assert_eq!(started.started_at.to_string(), "2026-01-01T00:00:02Z");
    let handle = Handle::read(&started.instance).unwrap();
    assert_eq!((handle.namespace.as_str(), handle.uid.as_str(), handle.counted), ("plant", "u", 0));
    assert_eq!(next(Some(&told), &found, 0), None);
    let again = Found { restarts: 3, ..found.clone() };
    let Some(Observation::Restarted { started, times: 2, .. }) = next(Some(&told), &again, 1) else {
        panic!("two more restarts are told")
    };
    assert_eq!(Handle::read(&started.instance).unwrap().counted, 3);
    // One that is to end runs until it has.
    let mut ending = pod(status);
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    ending["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    let ending = read(ending);
    assert_eq!((ending.ending, &ending.state), (Some(30), &State::Running));
    assert!(ending.lost(&clock()).is_over());
}

#[test]
fn what_a_template_adds_may_outlive_the_program() {
    let mut statuses = container(json!({"terminated": {"exitCode": 0}}));
    let beside = json!({"name": "beside", "image": "b", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}});
    statuses.as_array_mut().unwrap().push(beside);
    let found = of(json!({"phase": "Running", "containerStatuses": statuses}));
    assert!(matches!(found.state, State::Ended(_)) && found.leftovers && !found.is_over());
}

#[test]
fn what_a_kubelets_checks_say() {
    let told = |container: Value, probe: bool| {
        let mut pod = pod(json!({"phase": "Running", "containerStatuses": [container]}));
        if probe {
            pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 1}});
        }
        read(pod).probed
    };
    let of = |ready: bool, started: Option<bool>| json!({"name": "main", "image": "", "imageID": "", "restartCount": 0, "ready": ready, "started": started, "state": {"running": {}}});
    assert_eq!(told(of(true, Some(true)), false), None, "without checks there is nothing to say");
    assert_eq!(told(of(true, Some(true)), true), Some(Probed::Ready));
    assert_eq!(told(of(false, Some(true)), true), Some(Probed::Unready));
    assert_eq!(told(of(false, Some(false)), true), Some(Probed::Starting));
    assert_eq!(told(of(false, None), true), Some(Probed::Starting));
}

#[test]
fn a_pod_that_was_deleted_says_so() {
    let mut pod =
        pod(json!({"phase": "Failed", "containerStatuses": container(json!({"terminated": {"exitCode": 0}}))}));
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    let State::Ended(exit) = read(pod).state else { panic!("it has ended") };
    assert_eq!((exit.code, exit.why.unwrap().code.as_str()), (Some(0), "PodDeleted"));
}

#[test]
fn a_strangers_pod_is_none() {
    let strange = |change: fn(&mut Value)| {
        let mut pod = pod(json!({"phase": "Running"}));
        change(&mut pod);
        Found::read(&serde_json::from_value(pod).unwrap(), "me", &clock())
    };
    assert!(strange(|_| {}).is_some());
    assert_eq!(strange(|pod| pod["metadata"]["labels"]["coredinator.owner"] = json!("you")), None);
    assert_eq!(strange(|pod| pod["metadata"]["labels"] = Value::Null), None);
    assert_eq!(strange(|pod| pod["metadata"]["uid"] = Value::Null), None);
}
