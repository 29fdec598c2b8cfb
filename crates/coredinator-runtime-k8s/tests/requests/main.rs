//! Single answers of an API server, and the very requests that follow from them: without a server.

mod failures;
#[expect(dead_code, unused_imports, reason = "other tests use more of it")]
#[path = "../support/mod.rs"]
mod support;

use coredinator_core::{Runtime, RuntimeError, StopRequest};
use coredinator_runtime_k8s::KubernetesRuntime;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use support::{NAMESPACE, options, request};
use tower_test::mock::{self, Handle};

/// What answers are made of: they may come in pieces, and break off.
type Reply = axum::body::Body;
type Server = Handle<Request<Body>, Response<Reply>>;

fn runtime() -> (KubernetesRuntime, Server) {
    let (service, server) = mock::pair();
    let client = Client::new(service, NAMESPACE);
    (KubernetesRuntime::with_client(options("me", NAMESPACE), client), server)
}

/// The next request that is no watch: who watches is answered that nothing happens.
async fn asked(server: &mut Server) -> (Request<Body>, mock::SendResponse<Response<Reply>>) {
    loop {
        let (request, answer) = server.next_request().await.expect("a request");
        let query = request.uri().query().unwrap_or_default();
        let list = request.uri().path().ends_with("/pods");
        if query.contains("watch=true") {
            let nothing = stream::pending::<Result<Vec<u8>, std::io::Error>>();
            answer.send_response(Response::new(Reply::from_stream(nothing)));
        } else if list && query.contains("limit=") {
            // The watch begins with a list of its own, in pages.
            let empty =
                json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
            answer.send_response(Response::new(Reply::from(empty.to_string().into_bytes())));
        } else {
            return (request, answer);
        }
    }
}

fn body(value: &Value) -> Response<Reply> {
    Response::new(Reply::from(value.to_string().into_bytes()))
}

fn refusal(status: StatusCode, reason: &str, message: &str) -> Response<Reply> {
    let mut response = body(&json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(), "reason": reason, "message": message,
    }));
    *response.status_mut() = status;
    response
}

fn pod(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": "2", "labels": {
                "coredinator.owner": "me", "coredinator.service": "svc", "coredinator.instance": name,
                "coredinator.replica": "0", "coredinator.port": "8080",
            },
        },
        "spec": {"containers": [{"name": "main"}], "restartPolicy": "Never"},
        "status": {
            "phase": "Running", "podIP": "10.0.0.9", "containerStatuses": [{
                "name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
            }],
        },
    })
}

#[tokio::test]
async fn a_start_looks_before_it_writes_and_writes_by_apply() {
    let (runtime, mut server) = runtime();
    let request = request("exec sleep 1000", json!({}));
    let name = request.id.to_string();
    let starting = tokio::spawn(async move { runtime.start(request).await });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
    let (get, answer) = asked(&mut server).await;
    assert_eq!((get.method(), get.uri().path()), (&Method::GET, path.as_str()));
    answer.send_response(refusal(StatusCode::NOT_FOUND, "NotFound", "no such pod"));
    let (get, answer) = asked(&mut server).await;
    assert!(get.uri().path().ends_with("/services/svc"));
    answer.send_response(refusal(StatusCode::NOT_FOUND, "NotFound", "no such service"));
    let (patch, answer) = asked(&mut server).await;
    assert_eq!((patch.method(), patch.uri().path().ends_with("/services/svc")), (&Method::PATCH, true));
    answer.send_response(body(&json!({"metadata": {"name": "svc"}})));
    let (patch, answer) = asked(&mut server).await;
    assert_eq!((patch.method(), patch.uri().path()), (&Method::PATCH, path.as_str()));
    assert_eq!(patch.headers()["content-type"], "application/apply-patch+yaml");
    let query = patch.uri().query().unwrap_or_default();
    assert!(query.contains("fieldManager=coredinator") && !query.contains("force=true"), "{query}");
    answer.send_response(body(&pod(&name, "u")));
    let started = starting.await.unwrap().expect("it runs");
    assert_eq!((started.host.as_str(), started.port, started.running), ("10.0.0.9", 8080, true));
}

#[tokio::test]
async fn a_deletion_names_the_pod_that_was_looked_at() {
    let (runtime, mut server) = runtime();
    let request = request("exec sleep 1000", json!({}));
    let (name, service) = (request.id.to_string(), request.spec.name.clone());
    let instance = coredinator_core::InstanceRef { id: request.id, service, replica: 0, handle: None };
    let stopping = tokio::spawn(async move { runtime.stop(&instance, StopRequest::KILL).await });
    let (_, answer) = asked(&mut server).await;
    answer.send_response(body(&pod(&name, "the-one")));
    // What it printed is read, and it is deleted; in either order.
    loop {
        let (request, answer) = asked(&mut server).await;
        if request.uri().path().ends_with("/log") {
            answer.send_response(Response::new(Reply::from(b"2026-01-01T00:00:00Z last words\n".to_vec())));
        } else if request.method() == Method::DELETE {
            let asked = request.into_body().collect_bytes().await.unwrap();
            let asked: Value = serde_json::from_slice(&asked).unwrap();
            assert_eq!(
                (&asked["preconditions"], &asked["gracePeriodSeconds"]),
                (&json!({"uid": "the-one"}), &json!(1))
            );
            // Another pod has the name by now: it is not the one that was to end.
            answer.send_response(refusal(StatusCode::CONFLICT, "Conflict", "Precondition failed: UID"));
        } else {
            answer.send_response(body(&pod(&name, "another")));
            break;
        }
    }
    stopping.await.unwrap().expect("what was to end is gone");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_is_given_it() {
    let (runtime, mut server) = runtime();
    let listing = tokio::spawn(async move { runtime.list(&[]).await });
    let begun = tokio::time::Instant::now();
    for seconds in [3, 7] {
        let (_, answer) = asked(&mut server).await;
        let mut refused = refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "later");
        refused.headers_mut().insert("retry-after", seconds.into());
        answer.send_response(refused);
    }
    let (_, answer) = asked(&mut server).await;
    assert!(begun.elapsed().as_secs() >= 10, "it waited as long as it was asked to");
    answer.send_response(body(&json!({"metadata": {"resourceVersion": "1"}, "items": []})));
    assert_eq!(listing.await.unwrap().unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_not_concluded_from() {
    for (status, body_text) in [(200, "<html>"), (200, "{}"), (502, "<html>bad gateway"), (500, ""), (301, "elsewhere")]
    {
        let (runtime, mut server) = runtime();
        let listing = tokio::spawn(async move { runtime.list(&[]).await });
        let answering = tokio::spawn(async move {
            loop {
                let (_, answer) = asked(&mut server).await;
                let mut response = Response::new(Reply::from(body_text.as_bytes().to_vec()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                answer.send_response(response);
            }
        });
        let listed = listing.await.unwrap();
        assert!(matches!(listed, Err(RuntimeError::Unavailable { .. })), "{status} {body_text:?}: {listed:?}");
        answering.abort();
    }
}
