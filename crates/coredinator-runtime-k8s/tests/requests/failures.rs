//! Each failure of an API server by itself: what is asked next, and what is concluded.

use std::collections::BTreeSet;

use coredinator_core::{
    InstanceRef, LogQuery, Observation, ObservationStream, Runtime, RuntimeError, StartRequest, Started, StopRequest,
    Timestamp,
};
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_test::mock::SendResponse;

use super::{
    Reply, Server, asked, body, pod, refusal, runtime,
    support::{NAMESPACE, request},
};

type Answer = SendResponse<Response<Reply>>;

/// A request, taken apart.
struct Asked {
    method: Method,
    path: String,
    query: String,
    body: Value,
}

impl Asked {
    async fn read(request: Request<Body>) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let body = request.into_body().collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Self { method, path: uri.path().to_owned(), query: uri.query().unwrap_or_default().to_owned(), body }
    }

    fn is(&self, method: &Method, resource: &str) -> bool {
        let of: Vec<&str> = self.path.rsplit('/').take(2).collect();
        self.method == *method && of.contains(&resource)
    }
}

fn missing() -> Response<Reply> {
    refusal(StatusCode::NOT_FOUND, "NotFound", "there is none")
}

fn later(status: u16, seconds: Option<u64>) -> Response<Reply> {
    let mut refused = refusal(StatusCode::from_u16(status).unwrap(), "Fault", "not now");
    if let Some(seconds) = seconds {
        refused.headers_mut().insert("retry-after", HeaderValue::from(seconds));
    }
    refused
}

/// Answers a start's requests up to the writing of its pod, which is handed over.
async fn until_the_pod_is_written(server: &mut Server) -> (Asked, Answer) {
    loop {
        let (request, answer) = asked(server).await;
        let read = Asked::read(request).await;
        match (read.is(&Method::PATCH, "pods"), read.method.clone()) {
            (true, _) => return (read, answer),
            (false, Method::PATCH) => answer.send_response(body(&read.body)),
            _ => answer.send_response(missing()),
        }
    }
}

/// A start in the background.
fn starting(
    runtime: coredinator_runtime_k8s::KubernetesRuntime,
    request: StartRequest,
) -> tokio::task::JoinHandle<Result<Started, RuntimeError>> {
    tokio::spawn(async move { runtime.start(request).await })
}

#[tokio::test(start_paused = true)]
async fn a_conflict_over_a_pod_is_told_and_not_fought() {
    let (runtime, mut server) = runtime();
    let start = starting(runtime, request("run", json!({})));
    let (written, answer) = until_the_pod_is_written(&mut server).await;
    assert!(!written.query.contains("force"), "a pod that is somebody else's in part is not taken over");
    let message = "Apply failed with 1 conflict: conflict with \"somebody\" using v1: .spec.containers";
    answer.send_response(refusal(StatusCode::CONFLICT, "Conflict", message));
    let refused = start.await.unwrap();
    let Err(RuntimeError::NotStarted { reason }) = refused else { panic!("it is refused: {refused:?}") };
    assert_eq!(reason.code, "Conflict");
    assert!(reason.message.contains("conflict with \"somebody\""), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_over_a_service_by_its_uid_starts_nothing() {
    let (runtime, mut server) = runtime();
    let start = starting(runtime, request("run", json!({})));
    let mut writes = 0;
    let made = loop {
        let (request, answer) = asked(&mut server).await;
        let read = Asked::read(request).await;
        if read.is(&Method::GET, "services") {
            // It is ours, and of an earlier spec.
            answer.send_response(body(&json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "svc", "namespace": NAMESPACE, "uid": "one", "labels": {
                    "coredinator.owner": "me", "coredinator.service": "svc", "coredinator.spec": "old",
                }},
                "spec": {},
            })));
        } else if read.is(&Method::PATCH, "services") {
            writes += 1;
            assert_eq!(read.body["metadata"]["uid"], "one", "only the one that was looked at is changed");
            assert!(read.query.contains("force=true"), "fields of ours that others wrote are taken back");
            let message = "uid mismatch: the provided object specified uid one, and no existing object was found";
            answer.send_response(refusal(StatusCode::CONFLICT, "Conflict", message));
        } else {
            assert!(read.is(&Method::GET, "pods"), "{} {}", read.method, read.path);
            answer.send_response(missing());
        }
        if writes > 0 {
            break start.await.unwrap();
        }
    };
    let Err(RuntimeError::NotStarted { reason }) = made else { panic!("it is refused: {made:?}") };
    assert_eq!((reason.code.as_str(), writes), ("Conflict", 1));
}

/// Whatever is refused, the right that is missing is named by its verb and resource.
#[tokio::test(start_paused = true)]
async fn every_right_that_is_missing_is_named() {
    let forbidden = || refusal(StatusCode::FORBIDDEN, "Forbidden", "User \"me\" cannot do this");
    for (method, resource, right) in [
        (Method::GET, "pods", "get pods"),
        (Method::GET, "services", "get services"),
        (Method::PATCH, "services", "patch services"),
        (Method::PATCH, "secrets", "patch secrets"),
        (Method::PATCH, "pods", "patch pods"),
    ] {
        let (runtime, mut server) = runtime();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("svc.json");
        std::fs::write(&file, "{}").unwrap();
        let mut wanted = request("run", json!({}));
        wanted.environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), file.display().to_string());
        let start = starting(runtime, wanted);
        let serving = tokio::spawn(async move {
            loop {
                let (request, answer) = asked(&mut server).await;
                let read = Asked::read(request).await;
                if read.is(&method, resource) {
                    answer.send_response(forbidden());
                } else if read.method == Method::GET {
                    answer.send_response(missing());
                } else {
                    answer.send_response(body(&read.body));
                }
            }
        });
        let refused = start.await.unwrap();
        serving.abort();
        let Err(RuntimeError::NotStarted { reason }) = refused else { panic!("{right}: {refused:?}") };
        assert_eq!(reason.code, "Forbidden");
        assert!(reason.message.contains(&format!("lacks the right to {right} in namespace")), "{reason:?}");
    }
}

/// What does not pass by waiting is not waited for, and what may is asked with the very same words.
#[tokio::test(start_paused = true)]
async fn a_write_is_asked_again_word_for_word() {
    for (status, seconds) in [(429, Some(5)), (429, None), (500, None), (502, None), (503, Some(2)), (504, None)] {
        let (runtime, mut server) = runtime();
        let wanted = request("run", json!({}));
        let name = wanted.id.to_string();
        let start = starting(runtime, wanted);
        let (first, answer) = until_the_pod_is_written(&mut server).await;
        let begun = Instant::now();
        answer.send_response(later(status, seconds));
        let (second, answer) = until_the_pod_is_written(&mut server).await;
        assert!(begun.elapsed().as_secs() >= seconds.unwrap_or(0), "{status}: it waits as long as it is asked to");
        assert_eq!((first.path, first.query, first.body), (second.path, second.query, second.body), "{status}");
        answer.send_response(body(&pod(&name, "u")));
        assert!(start.await.unwrap().is_ok(), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_overloaded_is_told_to_be_away() {
    for (status, seconds) in [(429, Some(3600)), (503, None)] {
        let (runtime, mut server) = runtime();
        let start = starting(runtime, request("run", json!({})));
        let serving = tokio::spawn(async move {
            let mut writes = 0_u32;
            loop {
                let (_, answer) = until_the_pod_is_written(&mut server).await;
                answer.send_response(later(status, seconds));
                writes += 1;
                assert!(writes < 10, "it gives up");
            }
        });
        let refused = start.await.unwrap();
        assert!(matches!(refused, Err(RuntimeError::Unavailable { .. })), "{status}: {refused:?}");
        assert!(refused.unwrap_err().to_string().contains(&status.to_string()), "{status}");
        serving.abort();
    }
}

// --- Watches.

/// An instance whose pod is known by its handle, so that it is watched at once.
fn known(name: &str) -> InstanceRef {
    let wanted = request("run", json!({}));
    let handle = json!({"namespace": NAMESPACE, "uid": "u", "restarts": 0});
    InstanceRef {
        id: coredinator_core::InstanceId::new(name).unwrap(),
        service: wanted.spec.name.clone(),
        replica: 0,
        handle: Some(handle),
    }
}

const NAME: &str = "svc-0-0000000000007";

/// A pod of a version, in a phase.
fn version(of: u64, phase: &str, code: Option<i64>) -> Value {
    let mut pod = pod(NAME, "u");
    pod["metadata"]["resourceVersion"] = json!(of.to_string());
    pod["status"]["phase"] = json!(phase);
    if let Some(code) = code {
        pod["status"]["containerStatuses"][0]["state"] =
            json!({"terminated": {"exitCode": code, "finishedAt": "2026-01-02T03:04:05Z"}});
    }
    pod
}

fn list(version: u64, more: &str, items: &[Value]) -> Response<Reply> {
    body(&json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string(), "continue": more},
        "items": items,
    }))
}

fn event(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string() + "\n"
}

/// A watch that tells this and then breaks off, or (`goes_on`) stays silent.
fn told(text: &str, goes_on: bool) -> Response<Reply> {
    let first = stream::iter([Ok::<_, std::io::Error>(text.to_owned().into_bytes())]);
    let rest = if goes_on {
        stream::pending().boxed()
    } else {
        stream::iter([Err(std::io::Error::other("the connection was cut"))]).boxed()
    };
    Response::new(Reply::from_stream(first.chain(rest)))
}

/// The next list or watch of pods; what else is asked is missing.
async fn of_pods(server: &mut Server) -> (Asked, Answer) {
    loop {
        let (request, answer) = server.next_request().await.expect("a request");
        let read = Asked::read(request).await;
        if read.method == Method::GET && read.path.ends_with("/pods") {
            return (read, answer);
        }
        answer.send_response(if read.path.ends_with(NAME) { body(&version(2, "Running", None)) } else { missing() });
    }
}

async fn a_list(server: &mut Server) -> (Asked, Answer) {
    let (read, answer) = of_pods(server).await;
    assert!(!read.query.contains("watch=true"), "expected a list: {}", read.query);
    (read, answer)
}

async fn a_watch(server: &mut Server) -> (Asked, Answer) {
    let (read, answer) = of_pods(server).await;
    assert!(read.query.contains("watch=true"), "expected a watch: {}", read.query);
    (read, answer)
}

fn from(read: &Asked) -> Option<&str> {
    read.query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="))
}

/// The end, after whatever is told before it.
async fn end(watch: &mut ObservationStream) -> coredinator_core::Exit {
    loop {
        match watch.next().await.expect("an end is told before the end") {
            Observation::Exited(exit) => return exit,
            Observation::Running(_) | Observation::Waiting(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_within_a_line_goes_on_from_the_last_whole_one() {
    let (runtime, mut server) = runtime();
    let mut watch = runtime.watch(&known(NAME));
    let (_, answer) = a_list(&mut server).await;
    answer.send_response(list(10, "", &[version(9, "Running", None)]));
    let (read, answer) = a_watch(&mut server).await;
    assert_eq!(from(&read), Some("10"));
    let whole = event("MODIFIED", &version(11, "Running", None));
    let cut = event("MODIFIED", &version(12, "Failed", Some(1)));
    answer.send_response(told(&(whole + &cut[..cut.len() / 2]), false));
    let (read, answer) = a_watch(&mut server).await;
    assert_eq!(from(&read), Some("11"), "half a line is none");
    answer.send_response(told(&event("MODIFIED", &version(12, "Failed", Some(3))), true));
    let exit = end(&mut watch).await;
    assert_eq!(exit.code, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_too_old_lists_anew() {
    // Told within the watch, or as the answer to it.
    for within in [true, false] {
        let (runtime, mut server) = runtime();
        let mut watch = runtime.watch(&known(NAME));
        let (_, answer) = a_list(&mut server).await;
        answer.send_response(list(10, "", &[version(9, "Running", None)]));
        let (_, answer) = a_watch(&mut server).await;
        if within {
            let gone = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired",
                "message": "too old resource version: 10 (99)",
            });
            answer.send_response(told(&event("ERROR", &gone), true));
        } else {
            answer.send_response(refusal(StatusCode::GONE, "Expired", "too old resource version"));
        }
        // What came in between is in the list: it ended.
        let (read, answer) = a_list(&mut server).await;
        assert!(from(&read).is_none_or(|version| version != "10"), "{}", read.query);
        answer.send_response(list(100, "", &[version(99, "Failed", Some(7))]));
        assert_eq!(end(&mut watch).await.code, Some(7), "within: {within}");
        let (read, answer) = a_watch(&mut server).await;
        assert_eq!(from(&read), Some("100"));
        drop(answer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_next_page_is_too_old_begins_anew() {
    let (runtime, mut server) = runtime();
    let mut watch = runtime.watch(&known(NAME));
    let (_, answer) = a_list(&mut server).await;
    answer.send_response(list(10, "more", &[version(9, "Running", None)]));
    let (read, answer) = a_list(&mut server).await;
    assert!(read.query.contains("continue=more"), "{}", read.query);
    answer.send_response(refusal(StatusCode::GONE, "Expired", "The provided continue parameter is too old"));
    let (read, answer) = a_list(&mut server).await;
    assert!(!read.query.contains("continue="), "{}", read.query);
    // Nothing of the first page is concluded from: it is not there any more, and is asked for.
    answer.send_response(list(20, "", &[version(19, "Failed", Some(5))]));
    assert_eq!(end(&mut watch).await.code, Some(5));
}

/// The same once for each thing that a watch can be answered by.
#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_concludes_nothing_and_is_begun_again() {
    for trouble in ["429", "500", "503", "403", "garbage", "html", "empty"] {
        let (runtime, mut server) = runtime();
        let mut watch = runtime.watch(&known(NAME));
        let (_, answer) = a_list(&mut server).await;
        answer.send_response(list(10, "", &[version(9, "Running", None)]));
        for _ in 0..3 {
            let (read, answer) = of_pods(&mut server).await;
            match trouble {
                _ if !read.query.contains("watch=true") => {
                    answer.send_response(list(10, "", &[version(9, "Running", None)]));
                }
                "garbage" => answer.send_response(told("{\"type\": \"MODIFIED\", \"object\": 7}\n", false)),
                "html" => answer.send_response(told("<html>\n", false)),
                "empty" => answer.send_response(told("", false)),
                status => answer.send_response(later(status.parse().unwrap(), None)),
            }
        }
        let serving = tokio::spawn(async move {
            loop {
                let (read, answer) = of_pods(&mut server).await;
                if read.query.contains("watch=true") {
                    answer.send_response(told(&event("MODIFIED", &version(30, "Failed", Some(9))), true));
                } else {
                    answer.send_response(list(10, "", &[version(9, "Running", None)]));
                }
            }
        });
        assert_eq!(end(&mut watch).await.code, Some(9), "{trouble}");
        serving.abort();
    }
}

// --- Clocks.

/// A cluster whose clock runs far ahead or behind: its times are told as they are, and nothing is decided by them.
#[tokio::test(start_paused = true)]
async fn a_clock_that_differs_decides_nothing() {
    for when in ["1999-12-31T23:59:59Z", "2099-01-01T00:00:00Z"] {
        let (runtime, mut server) = runtime();
        let mut stamped = version(9, "Running", None);
        stamped["metadata"]["creationTimestamp"] = json!(when);
        stamped["status"]["containerStatuses"][0]["state"] = json!({"running": {"startedAt": when}});
        let listed = {
            let runtime = runtime.clone();
            let listing = tokio::spawn(async move { runtime.list(&[]).await });
            let (request, answer) = asked(&mut server).await;
            assert!(request.uri().path().ends_with("/pods"));
            answer.send_response(list(10, "", std::slice::from_ref(&stamped)));
            let (request, answer) = asked(&mut server).await;
            assert!(request.uri().path().ends_with("/secrets"));
            answer.send_response(body(&json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": [],
            })));
            listing.await.unwrap().unwrap()
        };
        let at: Timestamp = when.parse().unwrap();
        assert_eq!((listed.len(), listed[0].started_at, listed[0].running), (1, at, true), "{when}");

        // It is to end, by a clock that says it should have long since, or not for a long time: it is neither lost nor waited for
        // beyond its grace and what is added to that, by the clock of here.
        let mut watch = runtime.watch(&known(NAME));
        let (_, answer) = a_list(&mut server).await;
        answer.send_response(list(10, "", std::slice::from_ref(&stamped)));
        let (_, answer) = a_watch(&mut server).await;
        let mut ending = stamped.clone();
        ending["metadata"]["deletionTimestamp"] = json!(when);
        ending["metadata"]["deletionGracePeriodSeconds"] = json!(10);
        ending["metadata"]["resourceVersion"] = json!("11");
        let begun = Instant::now();
        answer.send_response(told(&event("MODIFIED", &ending), true));
        let exit = end(&mut watch).await;
        assert_eq!(exit.why.map(|why| why.code).as_deref(), Some("NodeLost"), "{when}");
        assert_eq!(begun.elapsed().as_secs(), 70, "{when}: its grace, and a minute");
    }
}

/// Output since a time of ours, of a node whose clock differs: what it stamps is compared with what was asked for, no more.
#[tokio::test(start_paused = true)]
async fn output_is_told_by_the_clock_that_stamped_it() {
    let (runtime, mut server) = runtime();
    let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let service = known(NAME).service;
    let query = LogQuery { service, replica: None, tail: None, since: Some(since), follow: false };
    let reading = tokio::spawn(async move {
        let lines = runtime.logs(query).await.unwrap();
        lines.map(|line| line.unwrap().line).collect::<BTreeSet<_>>().await
    });
    let serving = tokio::spawn(async move {
        let mut asked_since = None;
        loop {
            let Some((request, answer)) = server.next_request().await else { return asked_since };
            let read = Asked::read(request).await;
            if read.path.ends_with("/log") {
                asked_since = read.query.split('&').find_map(|pair| pair.strip_prefix("sinceTime=").map(str::to_owned));
                // Kubelets count in seconds, so that one before comes, too.
                let lines = "2025-12-31T23:59:59.9Z before\n2026-01-01T00:00:00.1Z after\n2099-01-01T00:00:00Z ahead\n";
                answer.send_response(Response::new(Reply::from(lines.as_bytes().to_vec())));
            } else if read.query.contains("watch=true") {
                answer.send_response(told("", true));
            } else {
                answer.send_response(list(10, "", &[version(9, "Running", None)]));
            }
        }
    });
    let lines = reading.await.unwrap();
    assert_eq!(lines, BTreeSet::from(["after".to_owned(), "ahead".to_owned()]));
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_asked_again_for_the_same_pod_alone() {
    let (runtime, mut server) = runtime();
    let instance = known(NAME);
    let stopping = tokio::spawn(async move { runtime.stop(&instance, StopRequest::KILL).await });
    let serving = tokio::spawn(async move {
        let mut deletions = Vec::new();
        loop {
            let (request, answer) = asked(&mut server).await;
            let read = Asked::read(request).await;
            if read.method == Method::DELETE {
                deletions.push(read.body.clone());
                // Done, and its answer lost; so that it is missing when it is asked again.
                let refused = if deletions.len() == 1 { later(503, None) } else { missing() };
                answer.send_response(refused);
            } else if read.path.ends_with("/log") {
                answer.send_response(Response::new(Reply::empty()));
            } else if deletions.len() == 2 {
                answer.send_response(missing());
                return deletions;
            } else {
                answer.send_response(body(&version(9, "Running", None)));
            }
        }
    });
    stopping.await.unwrap().expect("what is gone has ended");
    let deletions = serving.await.unwrap();
    assert_eq!(deletions.len(), 2);
    assert_eq!(deletions[0], deletions[1]);
    assert_eq!(deletions[0]["preconditions"], json!({"uid": "u"}));
}
