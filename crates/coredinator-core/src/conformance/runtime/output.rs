//! Reading what instances print.

use super::*;
use crate::{LogLine, LogQuery, LogStream, OutputStream, ServiceName};

fn query(started: &Started) -> LogQuery {
    let service = started.instance.service.clone();
    LogQuery { service, replica: Some(started.instance.replica), tail: None, since: None, follow: false }
}

async fn logs(subject: &Subject, query: LogQuery) -> LogStream {
    within("a query for logs", subject.runtime.logs(query)).await.expect("a runtime that declares logs answers them")
}

async fn line(logs: &mut LogStream) -> Option<LogLine> {
    within("a line", logs.next()).await.map(|line| line.expect("a line is read"))
}

async fn all(subject: &Subject, query: LogQuery) -> Vec<String> {
    let mut logs = logs(subject, query).await;
    let mut lines = Vec::new();
    while let Some(read) = line(&mut logs).await {
        assert_eq!(read.stream, OutputStream::Stdout);
        lines.push(read.line);
    }
    lines
}

/// Waits until the newest line of an instance's output is this.
pub(super) async fn wait_for_line(subject: &Subject, started: &Started, wanted: &str) {
    let mut logs = logs(subject, LogQuery { follow: true, tail: Some(1), ..query(started) }).await;
    while let Some(read) = line(&mut logs).await {
        if read.line == wanted {
            return;
        }
    }
    panic!("following ended before {wanted:?}");
}

async fn printed(subject: &Subject, replica: u32, lines: u32) -> Started {
    let started = subject.start("printer", replica, Workload::Prints { lines }).await;
    wait_for_line(subject, &started, &lines.to_string()).await;
    started
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(super) async fn printed_lines_are_read_back_in_order(subject: &mut Subject) {
    let started = printed(subject, 0, 20_000).await;
    assert_eq!(all(subject, query(&started)).await, numbers(1..=20_000));
    subject.stop(&started, StopRequest::KILL).await;
    assert_eq!(all(subject, query(&started)).await, numbers(1..=20_000), "output outlives its instance");
}

pub(super) async fn a_tail_is_the_newest_lines(subject: &mut Subject) {
    let started = printed(subject, 0, 1000).await;
    for (tail, first) in [(1, 1000), (10, 991), (999, 2), (1000, 1), (5000, 1)] {
        assert_eq!(all(subject, LogQuery { tail: Some(tail), ..query(&started) }).await, numbers(first..=1000));
    }
    assert!(all(subject, LogQuery { tail: Some(0), ..query(&started) }).await.is_empty());
}

pub(super) async fn following_goes_on_over_a_restart(subject: &mut Subject) {
    let started = printed(subject, 0, 3).await;
    let mut followed = logs(subject, LogQuery { tail: Some(1), follow: true, ..query(&started) }).await;
    assert_eq!(line(&mut followed).await.map(|read| read.line).as_deref(), Some("3"));
    subject.stop(&started, StopRequest::KILL).await;
    printed(subject, 0, 2).await;
    for wanted in ["1", "2"] {
        assert_eq!(line(&mut followed).await.map(|read| read.line).as_deref(), Some(wanted));
    }
}

pub(super) async fn replicas_are_read_apart_and_together(subject: &mut Subject) {
    let (first, second) = (printed(subject, 0, 5).await, printed(subject, 1, 7).await);
    assert_eq!(all(subject, query(&first)).await, numbers(1..=5));
    assert_eq!(all(subject, query(&second)).await, numbers(1..=7));
    let mut together = logs(subject, LogQuery { replica: None, tail: Some(6), ..query(&first) }).await;
    let mut of_each = [0, 0];
    while let Some(read) = line(&mut together).await {
        of_each[usize::from(read.replica == 1)] += 1;
    }
    assert_eq!(of_each, [5, 6], "a tail counts for each replica by itself");
}

pub(super) async fn a_forgotten_service_has_no_output(subject: &mut Subject) {
    let started = printed(subject, 0, 5).await;
    let other = subject.start("other", 0, Workload::Prints { lines: 2 }).await;
    wait_for_line(subject, &other, "2").await;
    subject.stop(&started, StopRequest::KILL).await;
    let forgotten = within("forgetting", subject.runtime.forget(&started.instance.service)).await;
    forgotten.expect("a service is forgotten");
    assert!(all(subject, query(&started)).await.is_empty());
    assert_eq!(all(subject, query(&other)).await, numbers(1..=2), "other services keep theirs");
    let never = ServiceName::new("never-was").expect("a DNS label");
    within("forgetting", subject.runtime.forget(&never)).await.expect("there is nothing to forget");
}

pub(super) async fn what_is_kept_of_a_service_can_be_forgotten(subject: &mut Subject) {
    let started = printed(subject, 0, 5).await;
    let service = &started.instance.service;
    let kept = async || within("a look at what is kept", subject.runtime.kept()).await.expect("it is told");
    let before = kept().await;
    // What does not say whose it is cannot be told.
    assert!(before.is_empty() || before == std::slice::from_ref(service), "{before:?}");
    subject.stop(&started, StopRequest::KILL).await;
    assert_eq!(kept().await, before, "output outlives its instance");
    within("forgetting", subject.runtime.forget(service)).await.expect("a service is forgotten");
    assert_eq!(kept().await, []);
}
