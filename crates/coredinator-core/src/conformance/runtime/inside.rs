//! What can be asked of an instance that runs.

use std::path::Path;

use super::*;
use crate::{ExecOutcome, ExecRequest, InstanceRef, ServiceName};

fn request(subject: &Subject, errand: Errand) -> ExecRequest {
    ExecRequest { command: (subject.errand)(errand), max_output: 4096 }
}

async fn exec(subject: &Subject, started: &Started, errand: Errand) -> Result<ExecOutcome, RuntimeError> {
    within("a command", subject.runtime.exec(&started.instance, request(subject, errand))).await
}

async fn told(subject: &Subject, started: &Started, errand: Errand) -> String {
    let outcome =
        exec(subject, started, errand).await.unwrap_or_else(|error| panic!("{errand:?} is run, but: {error}"));
    assert_eq!(outcome.code, Some(0), "{errand:?}: {}", String::from_utf8_lossy(&outcome.output));
    String::from_utf8_lossy(&outcome.output).trim_end().to_owned()
}

async fn running(subject: &Subject, service: &str) -> Started {
    let started = subject.start(service, 1, Workload::Runs).await;
    runs(&mut subject.watch(&started)).await;
    started
}

fn nobody() -> InstanceRef {
    let service = ServiceName::new("nobody").expect("a DNS label");
    InstanceRef { id: InstanceId::coin(&service, 0, fastrand::u64(..)), service, replica: 0, handle: None }
}

pub(super) async fn what_a_runtime_does_not_do_it_says(subject: &mut Subject) {
    let (runtime, capabilities, nobody) = (&subject.runtime, subject.runtime.capabilities(), nobody());
    let asked = runtime.exec(&nobody, request(subject, Errand::Hangs)).await.err();
    let health = runtime.native_health(&nobody).await.err();
    let inspected = runtime.inspect(&nobody).await.err();
    for (declared, error) in
        [(capabilities.exec, asked), (capabilities.native_health, health), (capabilities.inspects, inspected)]
    {
        let unsupported = matches!(error, Some(RuntimeError::Unsupported { .. }));
        assert_eq!(unsupported, !declared, "what is declared is done, and nothing else: {error:?}");
    }
    runtime.deliver(&nobody, Path::new("/is/not/there")).await.expect("to nobody nothing is to be delivered");
}

pub(super) async fn a_command_runs_inside(subject: &mut Subject) {
    let started = running(subject, "inside").await;
    assert_eq!(told(subject, &started, Errand::Tells("COREDINATOR_SERVICE")).await, "inside");
    assert_eq!(told(subject, &started, Errand::Tells("COREDINATOR_INSTANCE_ID")).await, started.instance.id.as_str());
    assert_eq!(
        told(subject, &started, Errand::Says("{replica} {ports}")).await,
        "1 {ports}",
        "placeholders are expanded"
    );
    for code in [0, 1, 2, 99] {
        let outcome = exec(subject, &started, Errand::Prints { lines: 3, code }).await.expect("it is run");
        assert_eq!((outcome.code, outcome.output.as_slice()), (Some(i32::from(code)), &b"1\n2\n3\n"[..]));
    }
    // Side by side, each gets its own answer.
    let started = &started;
    let runtime = &*subject;
    let all = (0..8).map(|code| async move { exec(runtime, started, Errand::Prints { lines: 1, code }).await });
    for (code, outcome) in within("commands", futures_util::future::join_all(all)).await.into_iter().enumerate() {
        assert_eq!(outcome.expect("it is run").code, i32::try_from(code).ok());
    }
    assert_eq!(subject.listed(&[started]).await, ids(&[started]), "the instance goes on");
}

pub(super) async fn what_a_command_writes_is_bounded(subject: &mut Subject) {
    let started = running(subject, "wordy").await;
    let outcome = exec(subject, &started, Errand::Prints { lines: 200_000, code: 3 }).await.expect("it is run");
    assert_eq!((outcome.code, outcome.output.len()), (Some(3), 4096), "it runs to its end, and its beginning is kept");
    assert!(outcome.output.starts_with(b"1\n2\n3\n"));
}

pub(super) async fn a_command_that_is_not_there_is_told(subject: &mut Subject) {
    let started = running(subject, "bare").await;
    match exec(subject, &started, Errand::CannotRun).await {
        Err(RuntimeError::NotStarted { reason }) => assert_eq!(reason.code, "CommandNotFound", "{reason:?}"),
        other => panic!("expected NotStarted, but saw {other:?}"),
    }
}

pub(super) async fn a_command_given_up_holds_up_nothing(subject: &mut Subject) {
    let started = running(subject, "patient").await;
    for _ in 0..6 {
        let hangs = subject.runtime.exec(&started.instance, request(subject, Errand::Hangs));
        let given_up = tokio::time::timeout(Duration::from_millis(300), hangs).await;
        assert!(given_up.is_err(), "what runs until it is killed has no outcome: {given_up:?}");
    }
    assert_eq!(told(subject, &started, Errand::Says("yes")).await, "yes");
    subject.stop(&started, StopRequest::KILL).await;
    assert_eq!(subject.listed(&[&started]).await, []);
}

pub(super) async fn a_command_runs_inside_what_was_adopted(subject: &mut Subject) {
    if !subject.runtime.capabilities().adopts {
        return;
    }
    let started = running(subject, "kept").await;
    subject.reopen().await;
    assert_eq!(told(subject, &started, Errand::Tells("COREDINATOR_REPLICA")).await, "1");
}

pub(super) async fn in_what_is_gone_no_command_runs(subject: &mut Subject) {
    let started = subject.start("gone", 0, Workload::Exits { code: 0 }).await;
    ends(subject.watch(&started)).await;
    for instance in [started.instance, nobody()] {
        let asked = subject.runtime.exec(&instance, request(subject, Errand::Says("no")));
        match within("a command", asked).await {
            Err(RuntimeError::NotStarted { reason }) => assert_eq!(reason.code, "NotRunning", "{reason:?}"),
            other => panic!("expected NotStarted, but saw {other:?}"),
        }
    }
}

pub(super) async fn health_of_its_own_is_told_while_there_is_something(subject: &mut Subject) {
    let started = running(subject, "checked").await;
    let asked = within("its health", subject.runtime.native_health(&started.instance)).await;
    asked.expect("what runs has a health, or none yet");
    subject.stop(&started, StopRequest::KILL).await;
    for instance in [started.instance, nobody()] {
        let asked = within("its health", subject.runtime.native_health(&instance)).await;
        assert!(matches!(asked, Err(RuntimeError::NotStarted { .. })), "what is gone has no health: {asked:?}");
    }
}

pub(super) async fn what_was_asked_is_shown_without_secrets(subject: &mut Subject) {
    let mut request = subject.request("shown", 0, Workload::Runs);
    let mut spec = (*request.spec).clone();
    spec.environment.insert("PLANT".to_owned(), "visible".to_owned());
    spec.environment.insert("PLANT_PASSWORD".to_owned(), "hunter2".to_owned());
    request.spec = Arc::new(spec);
    let started = within("a start", subject.runtime.start(request)).await.expect("it starts");
    runs(&mut subject.watch(&started)).await;
    let shown = within("an inspection", subject.runtime.inspect(&started.instance)).await.expect("it is shown");
    let shown = shown.expect("what runs can be shown");
    assert!(shown.is_object(), "{shown}");
    let text = shown.to_string();
    assert!(text.contains("visible") && text.contains("PLANT_PASSWORD"), "{text}");
    assert!(!text.contains("hunter2"), "secrets are not shown: {text}");
    assert_eq!(within("an inspection", subject.runtime.inspect(&nobody())).await.expect("it is answered"), None);
}
