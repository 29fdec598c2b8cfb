//! An API on a registry in memory, and ways to ask it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::{HeaderMap, Request, StatusCode},
};
use coredinator_coord::{
    CoordinationConfig, Coordinator, CoordinatorOptions, EveryService, HttpTransport, LeadView, Strategies, UnknownHost,
};
use coredinator_core::{
    Epoch, FieldError, InstanceRef, LogLine, LogQuery, LogStream, ObservationStream, OutputStream, Runtime,
    RuntimeCapabilities, RuntimeError, RuntimeName, ServiceName, ServiceSpec, StartRequest, Started, StopRequest,
    Store, SystemClock, unknown_options,
};
use coredinator_http::api::{ApiOptions, ApiState, Readiness, ServerInfo, router};
use coredinator_registry::{Registry, RegistryOptions, health::ProbeRegistry, store::MemoryStore};
use coredinator_supervisor::Runtimes;
use futures_util::{FutureExt, StreamExt, stream, stream::BoxStream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::described::assert_described;

/// Nothing here takes as long; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime that starts nothing, and has three lines of output of every service.
pub(crate) struct Paper;

#[async_trait]
impl Runtime for Paper {
    fn name(&self) -> RuntimeName {
        RuntimeName::new("paper").unwrap()
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities { logs: true, ..RuntimeCapabilities::default() }
    }

    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        unknown_options(spec, &[])
    }

    async fn start(&self, _: StartRequest) -> Result<Started, RuntimeError> {
        Err(RuntimeError::not_started("Paper", "paper does not run"))
    }

    async fn list(&self, _: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        Ok(vec![])
    }

    fn watch(&self, _: &InstanceRef) -> ObservationStream {
        stream::empty().boxed()
    }

    async fn stop(&self, _: &InstanceRef, _: StopRequest) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError> {
        let line = |n: usize| LogLine { replica: 0, stream: OutputStream::Stdout, at: None, line: format!("line {n}") };
        let lines: Vec<_> = (0..3).map(|n| Ok(line(n))).skip(3 - query.tail.unwrap_or(3).min(3)).collect();
        let more = if query.follow { stream::pending().boxed() } else { stream::empty().boxed() };
        Ok(stream::iter(lines).chain(more).boxed())
    }

    async fn forget(&self, _: &ServiceName) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// An API, and what it stands on.
pub(crate) struct Plant {
    pub(crate) registry: Registry,
    pub(crate) coordinator: Coordinator,
    pub(crate) router: Router,
    pub(crate) ready: watch::Sender<Readiness>,
    pub(crate) shutdown: CancellationToken,
}

/// Nobody else is there.
struct Alone;

impl LeadView for Alone {
    fn lease(&self) -> Option<&str> {
        None
    }

    fn leading(&self) -> Result<Epoch, String> {
        Ok(Epoch(1))
    }

    fn doubt(&self) {}

    fn changes(&self) -> BoxStream<'static, ()> {
        Box::pin(stream::pending())
    }
}

impl Plant {
    pub(crate) async fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new()), ApiOptions::default()).await
    }

    pub(crate) async fn with(store: Arc<dyn Store>, options: ApiOptions) -> Self {
        Self::coordinating(store, options, &coordination()).await
    }

    /// One whose agents are coordinated as this section of the configuration says.
    pub(crate) async fn coordinating(store: Arc<dyn Store>, options: ApiOptions, section: &Value) -> Self {
        let strategies = Strategies::builtin();
        let config = CoordinationConfig::parse("", section, &strategies).unwrap();
        let coordinator = Coordinator::start(CoordinatorOptions {
            store: Arc::clone(&store),
            clock: Arc::new(SystemClock),
            strategies,
            config,
            services: Arc::new(EveryService),
            host: Arc::new(UnknownHost),
            transport: Arc::new(HttpTransport::new()),
            lead: Arc::new(Alone),
        })
        .await
        .unwrap();
        let registry = Registry::open(RegistryOptions {
            store,
            clock: Arc::new(SystemClock),
            probes: ProbeRegistry::builtin(),
            check_concurrency: 16,
            seed: 1,
        })
        .await
        .unwrap();
        let (ready, readiness) = watch::channel(Readiness::Ready);
        let shutdown = CancellationToken::new();
        let started_at = registry.clock().now();
        let info = ServerInfo { version: "1.2.3".to_owned(), started_at, address: None };
        let runtimes = Runtimes::new([Arc::new(Paper) as Arc<dyn Runtime>]);
        let state = ApiState::new(registry.clone(), runtimes, coordinator.clone(), info, readiness, shutdown.clone());
        Self { registry, coordinator, router: router(state, options), ready, shutdown }
    }

    /// Asks from this machine.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.send(request(method, path, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    /// Sends a request as it is. The answer is one that the description promises.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = tokio::time::timeout(PATIENCE, self.router.clone().oneshot(request)).await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, to_bytes(body, usize::MAX)).await.unwrap().unwrap();
        let answer = Answer { status: parts.status, headers: parts.headers, body: body.to_vec() };
        let kind = answer.header("content-type");
        assert_described(method.as_str(), &path, answer.status.as_u16(), kind, &answer.body);
        answer
    }

    /// Registers an external service that is told of by heartbeats, so that no test depends on an endpoint.
    pub(crate) async fn external(&self, name: &str) -> Value {
        let document = json!({"name": name, "health_check": {"ttl": 600}});
        let answer = self.ask("POST", "/api/coredinator/services/register", Some(document)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()
    }

    /// Registers a service that the paper runtime would run.
    pub(crate) async fn managed(&self, name: &str) -> Value {
        let document = json!({"name": name, "runtime": "paper", "command": ["x"]});
        let answer = self.ask("POST", "/api/coredinator/services/register", Some(document)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()
    }
}

/// Two groups. Cycles take place only when they are asked for; nothing is waited for in them for long.
pub(crate) fn coordination() -> Value {
    json!({
        "sync_interval": 36000, "collect": 1e-5, "distribute": 1e-5, "negotiate": 1e-5,
        "resources": {"steam": {"capacity": 10, "unit": "t/h"}},
        "variables": {"level": {"min": 0, "max": 10}},
        "max_priority": 5,
        "groups": {"other": {}},
    })
}

/// A request from this machine.
pub(crate) fn request(method: &str, path: &str, body: Option<Value>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header("host", "localhost:8002");
    let builder = builder.extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
    match body {
        Some(body) => builder.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap(),
        None => builder.body(Body::empty()).unwrap(),
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is a problem of this status and code with all that a problem has, and answers it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        for (key, expected) in [("status", json!(status)), ("code", json!(code))] {
            assert_eq!(problem[key], expected, "{problem}");
        }
        assert_eq!(problem["type"], format!("urn:coredinator:problem:{code}"));
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        for key in ["title", "detail", "instance"] {
            assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {problem}");
        }
        assert!(problem["retryable"].is_boolean());
        problem
    }
}

/// The pointers of a problem's errors, with their hints.
pub(crate) fn pointers(problem: &Value) -> BTreeMap<String, String> {
    let text = |error: &Value, key: &str| error[key].as_str().unwrap_or_default().to_owned();
    problem["errors"].as_array().unwrap().iter().map(|e| (text(e, "pointer"), text(e, "hint"))).collect()
}

/// Whether a future is still waiting after everything else that can run has run.
pub(crate) async fn is_waiting<F: Future + Unpin>(future: &mut F) -> bool {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    future.now_or_never().is_none()
}
