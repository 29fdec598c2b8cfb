//! A runtime that never answers does not hold up the end of coredinator for ever, nor its start where it is not needed.

#[path = "kit/away.rs"]
mod away;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use away::Away;
use coredinator_core::{
    FieldError, InstanceRef, InstanceState, LogQuery, LogStream, ObservationStream, Origin, Runtime,
    RuntimeCapabilities, RuntimeError, RuntimeName, ServiceName, ServiceSpec, SpecDefaults, StartRequest, Started,
    StopRequest, SystemClock,
};
use coredinator_registry::{Registry, RegistryOptions, health::ProbeRegistry, store::MemoryStore};
use coredinator_supervisor::{Runtimes, Shutdown, Supervisor, SupervisorOptions};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Finds nothing, and neither starts nor stops anything in finite time.
struct Hung;

#[async_trait]
impl Runtime for Hung {
    fn name(&self) -> RuntimeName {
        RuntimeName::new("hung").unwrap()
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::default()
    }

    fn validate(&self, _: &ServiceSpec) -> Vec<FieldError> {
        Vec::new()
    }

    async fn start(&self, _: StartRequest) -> Result<Started, RuntimeError> {
        std::future::pending().await
    }

    async fn list(&self, _: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        Ok(Vec::new())
    }

    fn watch(&self, _: &InstanceRef) -> ObservationStream {
        Box::pin(futures_util::stream::pending())
    }

    async fn stop(&self, _: &InstanceRef, _: StopRequest) -> Result<(), RuntimeError> {
        std::future::pending().await
    }

    async fn logs(&self, _: LogQuery) -> Result<LogStream, RuntimeError> {
        std::future::pending().await
    }

    async fn forget(&self, _: &ServiceName) -> Result<(), RuntimeError> {
        Ok(())
    }
}

async fn registry() -> Registry {
    let options = RegistryOptions {
        store: Arc::new(MemoryStore::new()),
        clock: Arc::new(SystemClock),
        probes: ProbeRegistry::builtin(),
        check_concurrency: 1,
        seed: 1,
    };
    Registry::open(options).await.unwrap()
}

fn supervisor(registry: &Registry, runtimes: Runtimes) -> Supervisor {
    Supervisor::start(SupervisorOptions {
        registry: registry.clone(),
        runtimes,
        clock: Arc::new(SystemClock),
        seed: 1,
        url: None,
        document_dir: None,
    })
}

/// Whether coredinator gets ready, within an hour, with a service of this runtime and one that is away.
async fn gets_ready(runtime: &str) -> bool {
    let registry = registry().await;
    let document = json!({"name": "a", "runtime": runtime, "command": ["true"]});
    let spec = ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap();
    registry.declare(spec, Origin::Api, true).await.unwrap();
    let supervisor = supervisor(&registry, Runtimes::new([Arc::new(Hung) as _, Arc::new(Away) as _]));
    let mut adopted = supervisor.adopted();
    tokio::time::timeout(Duration::from_secs(3600), adopted.wait_for(|adopted| *adopted)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_away_is_waited_for_where_it_is_needed() {
    assert!(gets_ready("hung").await, "no service needs the one that is away");
    assert!(!gets_ready("away").await, "a service may run there already");
}

#[tokio::test(start_paused = true)]
async fn who_asks_twice_need_not_wait_for_a_runtime_that_hangs() {
    let registry = registry().await;
    let supervisor = supervisor(&registry, Runtimes::new([Arc::new(Hung) as _]));
    let documents = [
        json!({"name": "a", "runtime": "hung", "command": ["true"]}),
        json!({"name": "b", "runtime": "hung", "command": ["true"], "depends_on": ["a"]}),
    ];
    for document in documents {
        let spec = ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap();
        registry.declare(spec, Origin::Api, true).await.unwrap();
    }
    let mut index = registry.index();
    let starting = |registry: &Registry| {
        let view = registry.service("a").unwrap();
        view.instances.iter().any(|instance| instance.record.state == InstanceState::Starting)
    };
    while !starting(&registry) {
        index.changed().await.unwrap();
    }
    let force = CancellationToken::new();
    let ending = supervisor.shutdown(Shutdown::StopServices, force.clone());
    tokio::pin!(ending);
    // On paused time an hour is over at once if nothing else is to come.
    let orderly = tokio::time::timeout(Duration::from_secs(3600), &mut ending).await;
    assert!(orderly.is_err(), "an orderly stop waits for what it was asked to stop");
    force.cancel();
    tokio::time::timeout(Duration::from_secs(60), ending).await.expect("it waits although it was asked twice");
}
