//! Finding what runs, and taking it into care.

use serde_json::json;

use super::*;
use crate::Signal;

pub(super) async fn what_has_ended_is_not_listed(subject: &mut Subject) {
    let ended = subject.start("ended", 0, Workload::Exits { code: 0 }).await;
    let running = subject.start("running", 0, Workload::Runs).await;
    ends(subject.watch(&ended)).await;
    assert_eq!(subject.listed(&[&ended, &running]).await, ids(&[&running]));
}

pub(super) async fn known_instances_are_listed(subject: &mut Subject) {
    let started = subject.start("known", 3, Workload::Runs).await;
    let list = within("a list", subject.runtime.list(std::slice::from_ref(&started.instance))).await;
    assert_eq!(list.expect("listing succeeds"), [started]);
}

pub(super) async fn garbage_in_a_handle_finds_nothing(subject: &mut Subject) {
    let mut started = subject.start("garbled", 0, Workload::Exits { code: 0 }).await;
    ends(subject.watch(&started)).await;
    for garbage in [json!(null), json!({}), json!([1, "x"]), json!({"pid": -1, "id": "../.."}), json!("\u{0}")] {
        started.instance.handle = Some(garbage);
        assert_eq!(subject.listed(&[&started]).await, []);
        subject.stop(&started, StopRequest::KILL).await;
    }
}

/// All but what a new runtime cannot know to the instant.
fn same(a: &Started, b: &Started) {
    assert_eq!((&a.instance, a.pid, &a.host, a.port), (&b.instance, b.pid, &b.host, b.port));
}

async fn adopted(subject: &Subject, known: &[&Started]) -> Vec<Started> {
    let known: Vec<_> = known.iter().map(|started| started.instance.clone()).collect();
    within("a list", subject.runtime.list(&known)).await.expect("listing succeeds")
}

pub(super) async fn a_reopened_runtime_finds_what_it_knows(subject: &mut Subject) {
    let started = subject.start("kept", 2, Workload::Runs).await;
    subject.reopen().await;
    let found = adopted(subject, &[&started]).await;
    assert_eq!(found.len(), 1);
    same(&found[0], &started);
}

pub(super) async fn a_reopened_runtime_finds_what_nobody_told_it_of(subject: &mut Subject) {
    let started = subject.start("orphan", 1, Workload::Runs).await;
    runs(&mut subject.watch(&started)).await;
    subject.reopen().await;
    let found = adopted(subject, &[]).await;
    assert_eq!(found.len(), 1);
    let (found, was) = (&found[0].instance, &started.instance);
    assert_eq!((&found.id, &found.service, found.replica), (&was.id, &was.service, was.replica));
    assert_eq!(subject.listed(&[]).await, ids(&[&started]));
}

pub(super) async fn an_adopted_instance_is_not_started_twice(subject: &mut Subject) {
    let request = subject.request("once", 0, Workload::Runs);
    let first = within("a start", subject.runtime.start(request.clone())).await.expect("it starts");
    subject.reopen().await;
    let second = within("a start", subject.runtime.start(request)).await.expect("an id that runs is answered");
    assert_eq!((first.instance.id, first.pid), (second.instance.id.clone(), second.pid));
    assert_eq!(subject.listed(&[]).await, ids(&[&second]));
}

pub(super) async fn an_adopted_instance_is_watched_and_stopped(subject: &mut Subject) {
    let started = subject.start("adopted", 0, Workload::Runs).await;
    runs(&mut subject.watch(&started)).await;
    subject.reopen().await;
    let found = adopted(subject, &[&started]).await;
    let mut watch = subject.watch(&found[0]);
    runs(&mut watch).await;
    subject.stop(&found[0], StopRequest { signal: Signal::Kill, grace: Duration::ZERO }).await;
    let exit = ends(watch).await;
    if subject.runtime.capabilities().exit_of_adopted {
        assert!(exit.signal.is_some() || exit.code.is_some(), "the end of an adopted instance is known: {exit:?}");
    }
    assert_eq!(subject.listed(&[&started]).await, []);
}

pub(super) async fn an_adopted_instance_stops_without_being_listed_first(subject: &mut Subject) {
    let started = subject.start("adopted", 0, Workload::Runs).await;
    runs(&mut subject.watch(&started)).await;
    subject.reopen().await;
    subject.stop(&started, StopRequest { signal: Signal::Term, grace: PATIENCE * 2 }).await;
    assert_eq!(subject.listed(&[&started]).await, []);
}

pub(super) async fn what_ended_meanwhile_is_told_so(subject: &mut Subject) {
    let started = subject.start("ended", 0, Workload::Exits { code: 0 }).await;
    ends(subject.watch(&started)).await;
    subject.reopen().await;
    assert_eq!(subject.listed(&[&started]).await, []);
    ends(subject.watch(&started)).await;
}
