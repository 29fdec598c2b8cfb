//! Ending, by itself and by being stopped.

use super::*;
use crate::{InstanceRef, ServiceName, Signal};

fn gently(grace: Duration) -> StopRequest {
    StopRequest { signal: Signal::Term, grace }
}

pub(super) async fn an_exit_code_is_told(subject: &mut Subject) {
    for code in [0, 1, 42, 255] {
        let started = subject.start("job", 0, Workload::Exits { code }).await;
        let exit = ends(subject.watch(&started)).await;
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (Some(i32::from(code)), None, false));
    }
}

pub(super) async fn a_stop_that_is_heeded_ends_within_the_grace(subject: &mut Subject) {
    let started = subject.start("heeds", 0, Workload::Runs).await;
    runs(&mut subject.watch(&started)).await;
    // The grace is longer than patience: had the signal not been sent, this would fail.
    subject.stop(&started, gently(PATIENCE * 2)).await;
    assert_eq!(subject.listed(&[&started]).await, []);
}

/// Starts what ignores the signal, and waits until it does, where that can be seen.
async fn stubborn(subject: &Subject) -> Started {
    let started = subject.start("stubborn", 0, Workload::IgnoresStop).await;
    runs(&mut subject.watch(&started)).await;
    if subject.runtime.capabilities().logs {
        output::wait_for_line(subject, &started, "ready").await;
    }
    started
}

pub(super) async fn what_ignores_the_signal_is_killed_after_the_grace(subject: &mut Subject) {
    let started = stubborn(subject).await;
    let watch = subject.watch(&started);
    subject.stop(&started, gently(Duration::from_millis(300))).await;
    ends(watch).await;
    assert_eq!(subject.listed(&[&started]).await, []);
}

pub(super) async fn a_kill_waits_for_no_grace(subject: &mut Subject) {
    let started = stubborn(subject).await;
    subject.stop(&started, StopRequest { signal: Signal::Kill, grace: PATIENCE * 2 }).await;
    let started = stubborn(subject).await;
    subject.stop(&started, gently(Duration::ZERO)).await;
    assert_eq!(subject.listed(&[]).await, []);
}

pub(super) async fn a_second_stop_hurries_the_first(subject: &mut Subject) {
    let started = stubborn(subject).await;
    let patient = subject.stop(&started, gently(PATIENCE * 2));
    let hurried = async {
        tokio::task::yield_now().await;
        subject.stop(&started, StopRequest::KILL).await;
    };
    futures_util::future::join(patient, hurried).await;
}

pub(super) async fn stopping_what_is_gone_succeeds(subject: &mut Subject) {
    let started = subject.start("gone", 0, Workload::Exits { code: 0 }).await;
    ends(subject.watch(&started)).await;
    subject.stop(&started, gently(Duration::from_secs(1))).await;
    subject.stop(&started, StopRequest::KILL).await;
}

pub(super) async fn an_end_is_told_to_all_who_watch(subject: &mut Subject) {
    let started = subject.start("watched", 0, Workload::Runs).await;
    let mut watches: Vec<_> = (0..10).map(|_| subject.watch(&started)).collect();
    for watch in &mut watches {
        runs(watch).await;
    }
    subject.stop(&started, StopRequest::KILL).await;
    let exits = futures_util::future::join_all(watches.into_iter().map(ends)).await;
    assert!(exits.windows(2).all(|pair| pair[0] == pair[1]), "all are told the same: {exits:?}");
}

pub(super) async fn an_end_is_told_to_those_who_ask_late(subject: &mut Subject) {
    let started = subject.start("late", 0, Workload::Exits { code: 7 }).await;
    let first = ends(subject.watch(&started)).await;
    assert_eq!(first.code, Some(7));
    assert_eq!(ends(subject.watch(&started)).await.code, Some(7));
}

pub(super) async fn watching_what_never_was_tells_an_end(subject: &mut Subject) {
    let service = ServiceName::new("nobody").expect("a DNS label");
    let id = InstanceId::coin(&service, 0, fastrand::u64(..));
    let exit = ends(subject.runtime.watch(&InstanceRef { id, service, replica: 0, handle: None })).await;
    assert_eq!((exit.code, exit.signal), (None, None));
}

pub(super) async fn dropping_a_watch_touches_nothing(subject: &mut Subject) {
    let started = subject.start("unwatched", 0, Workload::Runs).await;
    let mut watch = subject.watch(&started);
    runs(&mut watch).await;
    drop(watch);
    drop(subject.watch(&started));
    assert_eq!(subject.listed(&[&started]).await, ids(&[&started]));
}

pub(super) async fn a_signal_reaches_what_runs_and_nothing_else(subject: &mut Subject) {
    let (one, other) = (subject.start("one", 0, Workload::Runs).await, subject.start("other", 0, Workload::Runs).await);
    runs(&mut subject.watch(&one)).await;
    let end = subject.watch(&one);
    // Heeded by ending; it was nobody's stop.
    within("a signal", subject.runtime.signal(&one.instance, Signal::Term)).await.expect("is sent");
    ends(end).await;
    assert_eq!(subject.listed(&[&one, &other]).await, ids(&[&other]));
    within("a signal", subject.runtime.signal(&one.instance, Signal::Term))
        .await
        .expect("one that is gone is no error");
    assert_eq!(subject.listed(&[&one, &other]).await, ids(&[&other]));
}
