//! Whatever is sent, the answer is a problem that says what to do.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Request},
};
use coredinator_core::{Store, StoreError};
use coredinator_http::api::ApiOptions;
use coredinator_registry::store::MemoryStore;
use serde_json::{Value, json};

use crate::support::{Plant, pointers, request};

const REGISTER: &str = "/api/coredinator/services/register";

fn raw(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = request(method, path, None);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    *request.body_mut() = body.into();
    request
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let plant = Plant::new().await;
    plant.send(raw("POST", REGISTER, "{\"name\":")).await.problem(400, "MalformedJson");
    plant.send(raw("POST", REGISTER, "{} {}")).await.problem(400, "MalformedJson");
    plant.send(raw("POST", REGISTER, vec![b'"', 0xff, b'"'])).await.problem(400, "MalformedJson");
    plant.send(raw("POST", REGISTER, "[".repeat(100_000))).await.problem(400, "MalformedJson");
    plant.send(raw("POST", REGISTER, "")).await.problem(400, "MalformedJson");
    plant.send(raw("POST", REGISTER, "[1]")).await.problem(422, "Invalid");
    plant.send(raw("POST", REGISTER, vec![b' '; 1024 * 1024 + 1])).await.problem(413, "TooLarge");
    let mut text = raw("POST", REGISTER, "{}");
    text.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    plant.send(text).await.problem(415, "UnsupportedMediaType");
    let mut untyped = raw("POST", REGISTER, "{}");
    untyped.headers_mut().remove("content-type");
    plant.send(untyped).await.problem(415, "UnsupportedMediaType");
}

#[tokio::test]
async fn paths_methods_and_parameters_that_are_not_there() {
    let plant = Plant::new().await;
    plant.get("/nowhere").await.problem(404, "NoSuchPath");
    plant.get("/api/coredinator/services/a/b/c").await.problem(404, "NoSuchPath");
    plant.get("/docs/nowhere").await.problem(404, "NoSuchPath");
    plant.ask("PATCH", "/api/coredinator/services", None).await.problem(405, "MethodNotAllowed");
    let status = plant.get("/api/coredinator/services/%FF%FE").await.status;
    assert!(status.is_client_error(), "{status}");
    for path in ["/health", "/livez", "/version", "/sd/prometheus", "/api/coredinator/health"] {
        let found = pointers(&plant.get(&format!("{path}?verbos=1")).await.problem(400, "InvalidParameter"));
        assert_eq!(found.len(), 1, "{path}");
    }
    let found = pointers(&plant.get("/readyz?verbos").await.problem(400, "InvalidParameter"));
    assert_eq!(found["?verbos"], "did you mean \"verbose\"?");
    let long = format!("/api/coredinator/services?{}", "a=1&".repeat(10_000));
    assert_eq!(pointers(&plant.get(&long).await.problem(400, "InvalidParameter")).len(), 1);
}

#[tokio::test]
async fn request_ids_are_taken_over_or_made() {
    let plant = Plant::new().await;
    let mut request = request("GET", "/livez", None);
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("mine-1"));
    assert_eq!(plant.send(request).await.header("x-request-id"), "mine-1");
    let (one, other) = (plant.get("/livez").await, plant.get("/nowhere").await);
    assert_eq!((one.header("x-request-id").len(), other.header("x-request-id").len()), (16, 16));
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
}

#[tokio::test]
async fn what_runs_something_is_taken_from_this_machine_alone() {
    let plant = Plant::new().await;
    let from = async |peer: Option<[u8; 4]>, forwarded: bool, document: Value| {
        let mut request = request("POST", REGISTER, Some(document));
        request.extensions_mut().remove::<ConnectInfo<SocketAddr>>();
        request.extensions_mut().extend(
            peer.map(|ip| {
                let mut extensions = axum::http::Extensions::new();
                extensions.insert(ConnectInfo(SocketAddr::from((ip, 1))));
                extensions
            })
            .unwrap_or_default(),
        );
        if forwarded {
            request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        }
        plant.send(request).await
    };
    let managed = |name: &str| json!({"name": name, "runtime": "paper", "command": "x"});
    let checked = json!({"name": "c", "port": 1, "health_check": {"command": "x"}});
    from(Some([192, 0, 2, 1]), false, managed("a")).await.problem(403, "RemoteCommand");
    from(None, false, managed("a")).await.problem(403, "RemoteCommand");
    from(Some([127, 0, 0, 1]), true, managed("a")).await.problem(403, "RemoteCommand");
    from(Some([192, 0, 2, 1]), false, checked.clone()).await.problem(403, "RemoteCommand");
    assert_eq!(from(Some([127, 0, 0, 1]), false, managed("a")).await.status, 201);
    assert_eq!(from(Some([127, 0, 0, 1]), false, checked).await.status, 201);
    let external = json!({"name": "e", "health_check": {"ttl": 60}});
    assert_eq!(from(Some([192, 0, 2, 1]), false, external).await.status, 201);
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let plant = Plant::new().await;
    let from = async |origin: &str, host: &str| {
        let document = json!({"name": "a", "health_check": {"ttl": 60}});
        let mut request = request("POST", REGISTER, Some(document));
        request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
        request.headers_mut().insert("host", HeaderValue::from_str(host).unwrap());
        plant.send(request).await
    };
    for (origin, host) in [
        ("http://evil.example", "localhost:8002"),
        ("null", "localhost:8002"),
        ("http://localhost:3000", "localhost:8002"),
        // A name that somebody's name server made point here.
        ("http://evil.example:8002", "evil.example:8002"),
    ] {
        from(origin, host).await.problem(403, "CrossOrigin");
    }
    assert_eq!(from("http://localhost:8002", "localhost:8002").await.status, 201);
    assert_eq!(from("http://[::1]:8002", "[::1]:8002").await.status, 200);
}

#[tokio::test]
async fn random_garbage_is_refused_everywhere() {
    let plant = Plant::new().await;
    plant.external("a").await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let garbage: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1024 * 1024).collect();
    for (method, path) in [
        ("POST", "/api/coredinator/services/register"),
        ("PUT", "/api/coredinator/services/a/scale"),
        ("POST", "/api/coredinator/services/a/heartbeat"),
    ] {
        plant.send(raw(method, path, garbage.clone())).await.problem(400, "MalformedJson");
    }
    for wrong in
        [json!(null), json!([]), json!("x"), json!({"replicas": "x"}), json!({"replicas": -1}), json!({"a": 1})]
    {
        let body = wrong.to_string();
        plant.send(raw("PUT", "/api/coredinator/services/a/scale", body)).await.problem(422, "Invalid");
    }
    for wrong in [json!([]), json!({"status": "well"}), json!({"instance_id": "A"}), json!({"mesage": "x"})] {
        let body = wrong.to_string();
        plant.send(raw("POST", "/api/coredinator/services/a/heartbeat", body)).await.problem(422, "Invalid");
    }
    for (method, path, status) in [
        ("GET", "/api/coredinator/services", 200),
        ("GET", "/api/coredinator/services/a", 200),
        ("POST", "/api/coredinator/services/a/start", 409),
        ("GET", "/api/coredinator/health", 200),
        ("DELETE", "/api/coredinator/services/a", 204),
        ("POST", "/health", 405),
    ] {
        let answer = plant.send(raw(method, path, garbage.clone())).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

/// A store that reads, and cannot write, or does not answer.
struct Broken {
    inner: MemoryStore,
    hangs: bool,
}

#[async_trait::async_trait]
impl Store for Broken {
    fn capabilities(&self) -> coredinator_core::StoreCapabilities {
        self.inner.capabilities()
    }
    async fn get(&self, key: &coredinator_core::Key) -> Result<Option<coredinator_core::Record>, StoreError> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<coredinator_core::Listing, StoreError> {
        self.inner.list(prefix).await
    }
    async fn write(&self, _: coredinator_core::Batch) -> Result<coredinator_core::Revision, StoreError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(StoreError::unavailable("the disk is full", std::io::Error::other("ENOSPC")))
    }
    async fn watch(
        &self,
        prefix: &str,
        after: coredinator_core::Revision,
    ) -> Result<coredinator_core::ChangeStream, StoreError> {
        self.inner.watch(prefix, after).await
    }
    async fn lease(
        &self,
        name: &str,
        holder: &str,
        operation: coredinator_core::LeaseOperation,
    ) -> Result<coredinator_core::Lease, StoreError> {
        self.inner.lease(name, holder, operation).await
    }
    async fn compact(&self, up_to: coredinator_core::Revision) -> Result<(), StoreError> {
        self.inner.compact(up_to).await
    }
    async fn check(&self) -> Result<coredinator_core::StoreStatus, StoreError> {
        self.inner.check().await
    }
}

#[tokio::test]
async fn a_store_that_does_not_take_it_is_told_as_such() {
    let store = Broken { inner: MemoryStore::new(), hangs: false };
    let plant = Plant::with(Arc::new(store), ApiOptions::default()).await;
    let document = json!({"name": "a", "port": 1});
    let answer = plant.ask("POST", REGISTER, Some(document)).await;
    let problem = answer.problem(503, "StoreUnavailable");
    assert_eq!((problem["retryable"].clone(), answer.header("retry-after")), (json!(true), "1"));
    assert!(problem["detail"].as_str().unwrap().contains("disk is full"));
    assert_eq!(plant.get("/api/coredinator/services").await.status, 200, "reading goes on");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_is_given_up() {
    let store = Broken { inner: MemoryStore::new(), hangs: true };
    let options = ApiOptions { timeout: Duration::from_secs(5), ..ApiOptions::default() };
    let plant = Plant::with(Arc::new(store), options).await;
    let document = json!({"name": "a", "port": 1});
    let problem = plant.ask("POST", REGISTER, Some(document)).await.problem(504, "Timeout");
    assert_eq!(problem["retryable"], true);
    // A body that never comes.
    let never = Body::from_stream(futures_util::stream::pending::<Result<&'static [u8], std::io::Error>>());
    plant.send(raw("POST", REGISTER, never)).await.problem(504, "Timeout");
}

#[tokio::test]
async fn a_document_that_says_a_thing_twice_is_refused() {
    let plant = Plant::new().await;
    let mut request = request("POST", REGISTER, Some(json!(null)));
    *request.body_mut() = r#"{"name": "a", "port": 1, "port": 2}"#.into();
    let problem = plant.send(request).await.problem(400, "MalformedJson");
    assert!(problem["detail"].as_str().unwrap().contains("\"port\" is there twice"), "{problem}");
    plant.get("/api/coredinator/services/a").await.problem(404, "NotFound");
}
