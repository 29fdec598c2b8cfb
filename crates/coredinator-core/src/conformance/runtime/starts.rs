//! Starting.

use super::*;

pub(super) async fn what_was_started_runs_until_it_is_stopped(subject: &mut Subject) {
    let started = subject.start("sleeper", 0, Workload::Runs).await;
    let mut watch = subject.watch(&started);
    runs(&mut watch).await;
    assert_eq!(subject.listed(&[&started]).await, ids(&[&started]));
    subject.stop(&started, StopRequest::from_spec(&subject.request("sleeper", 0, Workload::Runs).spec)).await;
    ends(watch).await;
    assert_eq!(subject.listed(&[&started]).await, []);
}

pub(super) async fn an_id_that_runs_is_not_started_twice(subject: &mut Subject) {
    let request = subject.request("once", 0, Workload::Runs);
    let starts = (0..20).map(|_| subject.runtime.start(request.clone()));
    let mut first = None;
    for started in within("parallel starts", futures_util::future::join_all(starts)).await {
        let started = started.expect("an id that runs already is answered");
        let (pid, handle) = first.get_or_insert((started.pid, started.instance.handle.clone())).clone();
        assert_eq!((started.pid, started.instance.handle), (pid, handle), "all starts answer one instance");
    }
    assert_eq!(subject.listed(&[]).await, [request.id]);
}

pub(super) async fn a_failed_start_tells_why_and_leaves_nothing(subject: &mut Subject) {
    let request = subject.request("absent", 0, Workload::CannotStart);
    match within("a start", subject.runtime.start(request)).await {
        Err(error @ RuntimeError::NotStarted { .. }) => {
            assert!(error.is_retryable(), "what is missing may appear");
            let RuntimeError::NotStarted { reason } = error else { unreachable!("matched above") };
            assert!(reason.code.starts_with(char::is_uppercase) && !reason.message.is_empty(), "{reason:?}");
        }
        other => panic!("expected NotStarted, but saw {other:?}"),
    }
    assert_eq!(subject.listed(&[]).await, []);
}

pub(super) async fn many_start_side_by_side(subject: &mut Subject) {
    let starts = (0..30).map(|replica| subject.start("fleet", replica, Workload::Runs));
    let fleet = within("many starts", futures_util::future::join_all(starts)).await;
    assert_eq!(subject.listed(&[]).await, ids(&fleet.iter().collect::<Vec<_>>()));
    let stops = fleet.iter().map(|started| subject.stop(started, StopRequest::KILL));
    within("many stops", futures_util::future::join_all(stops)).await;
    assert_eq!(subject.listed(&[]).await, []);
}

pub(super) async fn a_fresh_runtime_lists_nothing(subject: &mut Subject) {
    assert_eq!(subject.listed(&[]).await, []);
}
