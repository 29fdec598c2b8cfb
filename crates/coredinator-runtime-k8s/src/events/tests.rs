use std::sync::Arc;

use coredinator_core::ServiceName;
use serde_json::{Value, json};

use super::*;
use crate::{KubernetesRuntimeOptions, engine::Engine};

fn sight() -> Arc<Sight> {
    let mut options = KubernetesRuntimeOptions::new("me");
    options.lost_after = Duration::from_secs(60);
    Events::new(Engine::new(options)).seen.clone()
}

fn id() -> InstanceId {
    InstanceId::coin(&ServiceName::new("svc").unwrap(), 0, 1)
}

fn pod(more: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": id().as_str(), "namespace": "plant", "uid": "u",
            "labels": {
                "coredinator.owner": "me", "coredinator.service": "svc", "coredinator.instance": id().as_str(),
                "coredinator.replica": "0",
            },
        },
        "spec": {"containers": [], "restartPolicy": "Never"}, "status": {"phase": "Pending"},
    });
    for (path, value) in more.as_object().unwrap() {
        let (parent, key) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn take(sight: &Sight, events: Vec<Event<Pod>>) {
    let mut listed = BTreeMap::new();
    for event in events {
        sight.take(event, &mut listed, "plant");
    }
}

fn gone_as(sight: &Sight) -> Option<String> {
    match sight.look(&id()) {
        Look::Gone(exit) => Some(exit.why.map_or_else(String::new, |why| why.code)),
        Look::Seen { .. } | Look::Unseen => None,
    }
}

#[test]
fn a_pod_that_was_deleted_is_remembered_with_its_end() {
    let sight = sight();
    take(&sight, vec![Event::Apply(pod(&json!({})))]);
    assert!(matches!(sight.look(&id()), Look::Seen { .. }));
    take(&sight, vec![Event::Delete(pod(&json!({})))]);
    assert_eq!(gone_as(&sight).as_deref(), Some("PodDeleted"));
    take(
        &sight,
        vec![
            Event::Apply(pod(&json!({}))),
            Event::Delete(pod(&json!({"/status/phase": "Failed", "/status/reason": "Evicted"}))),
        ],
    );
    assert_eq!(gone_as(&sight).as_deref(), Some("Evicted"));
}

#[test]
fn that_coredinator_deletes_a_pod_is_no_news() {
    let events = Events::new(Engine::new(KubernetesRuntimeOptions::new("me")));
    take(&events.seen, vec![Event::Apply(pod(&json!({})))]);
    events.note_asked(&id());
    take(&events.seen, vec![Event::Delete(pod(&json!({})))]);
    assert_eq!(gone_as(&events.seen).as_deref(), Some(""));
}

#[test]
fn what_a_list_lacks_is_asked_for_and_not_concluded() {
    let sight = sight();
    take(&sight, vec![Event::Apply(pod(&json!({}))), Event::Init, Event::InitDone]);
    assert!(matches!(sight.look(&id()), Look::Unseen), "it may have been made after the list was");
    let ended = json!({"/status/phase": "Failed", "/status/reason": "Evicted"});
    take(&sight, vec![Event::Apply(pod(&ended)), Event::Init, Event::InitDone]);
    assert_eq!(gone_as(&sight).as_deref(), Some("Evicted"), "what has ended does not begin again");
    take(&sight, vec![Event::Init, Event::InitApply(pod(&json!({}))), Event::InitDone]);
    assert!(matches!(sight.look(&id()), Look::Seen { .. }));
}

#[test]
fn an_answer_is_no_newer_than_what_was_seen() {
    let events = Events::new(Engine::new(KubernetesRuntimeOptions::new("me")));
    let old = events.seen.engine.read(&pod(&json!({}))).unwrap();
    events.note(old.clone());
    assert!(matches!(events.look(&id()), Look::Seen { .. }));
    take(&events.seen, vec![Event::Delete(pod(&json!({})))]);
    events.note(old);
    assert!(matches!(events.look(&id()), Look::Gone(_)), "an old answer brings nothing back");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_end_in_time_is_lost_with_its_node() {
    let sight = sight();
    let running = json!({
        "/status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [
            {"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}},
        ]},
        "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z", "/metadata/deletionGracePeriodSeconds": 10,
    });
    take(&sight, vec![Event::Apply(pod(&running))]);
    let Look::Seen { found, due: Some(due) } = sight.look(&id()) else {
        panic!("it is seen, and to be looked at again")
    };
    assert_eq!(found.state, State::Running);
    assert_eq!(due - Instant::now(), Duration::from_secs(70));
    time::sleep_until(due).await;
    // What its node says now, however late, is not counted anew.
    take(&sight, vec![Event::Apply(pod(&running))]);
    let Look::Seen { found, .. } = sight.look(&id()) else { panic!("it is seen") };
    let State::Ended(exit) = found.state else { panic!("it is lost") };
    assert_eq!(exit.why.unwrap().code, "NodeLost");
}

#[test]
fn only_so_many_ends_are_remembered() {
    let mut kept = Kept::default();
    let exit =
        || Exit { code: None, signal: None, oom_killed: false, why: None, at: coredinator_core::Timestamp::UNIX_EPOCH };
    for number in 0..REMEMBERED as u64 + 10 {
        kept.remember(InstanceId::coin(&ServiceName::new("svc").unwrap(), 0, number), exit());
    }
    assert_eq!((kept.gone.len(), kept.order.len()), (REMEMBERED, REMEMBERED));
}
