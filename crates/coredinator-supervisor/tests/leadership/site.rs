//! Replicas on one store, within this process, with real processes.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{
    Batch, ChangeStream, Epoch, FieldError, InstanceRef, InstanceState, Key, Lease, LeaseOperation, Listing, LogQuery,
    LogStream, NodeName, ObservationStream, Origin, Record, Revision, Runtime, RuntimeCapabilities, RuntimeError,
    RuntimeName, Scope, ServiceName, ServiceSpec, SpecDefaults, StartRequest, Started, StopRequest, Store,
    StoreCapabilities, StoreError, StoreStatus, SystemClock, Timestamp,
};
use coredinator_registry::{
    Registry, RegistryOptions, ServiceView,
    health::ProbeRegistry,
    leadership::{Leadership, LeadershipOptions, LeaseTiming, NodeIdentity, Post},
    store::MemoryStore,
};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use coredinator_supervisor::{Runtimes, Shutdown, Supervisor, SupervisorOptions};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::away::Away;

/// An upper bound for a loaded machine, never waited for in full.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Short, so that a test does not take long; long enough for a loaded machine to renew in time.
pub(crate) const TIMING: LeaseTiming = LeaseTiming {
    lease: Duration::from_millis(3000),
    renew_deadline: Duration::from_millis(2000),
    retry: Duration::from_millis(100),
};

/// The line of one replica to a store that all share. When it is cut, nothing comes through, and nobody is told.
pub(crate) struct Line {
    pub(crate) store: MemoryStore,
    pub(crate) cut: AtomicBool,
    /// What has changed is told later.
    pub(crate) behind: Arc<AtomicBool>,
    /// It breaks off at the next write about an instance, before the store has it or after.
    pub(crate) breaks: Mutex<Option<Breaks>>,
    /// How many writes were refused because somebody else had written.
    pub(crate) refused: AtomicUsize,
}

/// When a line breaks off.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Breaks {
    Before,
    After,
}

impl Line {
    async fn through(&self) {
        while self.cut.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait]
impl Store for Line {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { shared: true, ..self.store.capabilities() }
    }
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.through().await;
        self.store.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.through().await;
        self.store.list(prefix).await
    }
    async fn write(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.through().await;
        let about_instance = batch.operations.iter().any(|operation| operation.key.as_str().starts_with("instances/"));
        let breaks = if about_instance { self.breaks.lock().unwrap().take() } else { None };
        let broken = || StoreError::Unavailable { message: "broken off".to_owned(), source: None };
        if breaks == Some(Breaks::Before) {
            return Err(broken());
        }
        let written = self.store.write(batch).await;
        if breaks == Some(Breaks::After) {
            return Err(broken());
        }
        if matches!(written, Err(StoreError::Conflict { .. })) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        written
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
        self.through().await;
        let behind = Arc::clone(&self.behind);
        let late = move |change| {
            let behind = Arc::clone(&behind);
            async move {
                while behind.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                change
            }
        };
        Ok(self.store.watch(prefix, after).await?.then(late).boxed())
    }
    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError> {
        self.through().await;
        self.store.lease(name, holder, operation).await
    }
    async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.store.compact(up_to).await
    }
    async fn check(&self) -> Result<StoreStatus, StoreError> {
        self.store.check().await
    }
}

/// Processes that every replica reaches alike: all are on this machine.
struct Anywhere(ProcessRuntime);

#[async_trait]
impl Runtime for Anywhere {
    fn name(&self) -> RuntimeName {
        RuntimeName::new("anywhere").unwrap()
    }
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities { scope: Scope::Cluster, ..self.0.capabilities() }
    }
    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        self.0.validate(spec)
    }
    async fn start(&self, request: StartRequest) -> Result<Started, RuntimeError> {
        self.0.start(request).await
    }
    async fn list(&self, known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        self.0.list(known).await
    }
    fn watch(&self, instance: &InstanceRef) -> ObservationStream {
        self.0.watch(instance)
    }
    async fn stop(&self, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError> {
        self.0.stop(instance, how).await
    }
    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError> {
        self.0.logs(query).await
    }
    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        self.0.forget(service).await
    }
}

/// What replicas share.
pub(crate) struct Site {
    pub(crate) store: MemoryStore,
    dir: tempfile::TempDir,
    owner: String,
}

impl Drop for Site {
    fn drop(&mut self) {
        for pid in self.alive() {
            kill(pid);
        }
    }
}

pub(crate) struct Replica {
    pub(crate) line: Arc<Line>,
    pub(crate) registry: Registry,
    pub(crate) supervisor: Supervisor,
    pub(crate) leadership: Leadership,
}

impl Site {
    pub(crate) fn new() -> Self {
        let owner = format!("leadership-{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self { store: MemoryStore::new(), dir: tempfile::tempdir().unwrap(), owner }
    }

    pub(crate) fn line(&self) -> Arc<Line> {
        let store = self.store.clone();
        let (cut, behind) = (AtomicBool::new(false), Arc::default());
        Arc::new(Line { store, cut, behind, breaks: Mutex::new(None), refused: AtomicUsize::new(0) })
    }

    pub(crate) async fn join(&self, node: &str) -> Replica {
        let line = self.line();
        let leadership = Leadership::join(options(&line, node, node, true)).await.unwrap();
        let anywhere = RuntimeName::new("anywhere").unwrap();
        let options = RegistryOptions {
            store: Arc::clone(&line) as _,
            clock: Arc::new(SystemClock),
            probes: ProbeRegistry::builtin(),
            check_concurrency: 64,
            seed: 1,
        };
        let registry = Registry::open_at(options, leadership.place(BTreeSet::from([anywhere]))).await.unwrap();
        let process = |owner: String| {
            ProcessRuntime::new(ProcessRuntimeOptions::new(self.dir.path().join("logs"), owner)).unwrap()
        };
        let local = process(format!("{}.{node}", self.owner));
        let anywhere = Anywhere(process(self.owner.clone()));
        let supervisor = Supervisor::start(SupervisorOptions {
            registry: registry.clone(),
            // One that no service uses is away, as Docker's engine is on most machines.
            runtimes: Runtimes::new([Arc::new(local) as _, Arc::new(anywhere) as _, Arc::new(Away) as _]),
            clock: Arc::new(SystemClock),
            seed: fastrand::u64(..),
            url: None,
            document_dir: None,
        });
        Replica { line, registry, supervisor, leadership }
    }

    /// Every process of this site, by the kernel's account.
    pub(crate) fn alive(&self) -> Vec<u32> {
        let mark = format!("COREDINATOR_OWNER={}", self.owner);
        let pids =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let mut alive: Vec<u32> = pids.filter(|pid| is_marked(*pid, &mark)).collect();
        alive.sort_unstable();
        alive
    }
}

pub(crate) fn options(line: &Arc<Line>, node: &str, id: &str, chosen: bool) -> LeadershipOptions {
    LeadershipOptions {
        store: Arc::clone(line) as _,
        identity: NodeIdentity { name: NodeName::new(node).unwrap(), id: id.to_owned(), chosen },
        timing: TIMING,
        above: Epoch::ZERO,
        address: Some(format!("http://{node}")),
        version: "1".to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
    }
}

fn is_marked(pid: u32, mark: &str) -> bool {
    let at = Path::new("/proc").join(pid.to_string());
    let environ = std::fs::read(at.join("environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
}

pub(crate) fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

impl Replica {
    pub(crate) fn leads(&self) -> bool {
        self.registry.place().tenure(Post::Leader).grant().is_some()
    }

    pub(crate) async fn until_it_leads(&self) {
        until("it leads", || self.leads()).await;
    }

    pub(crate) async fn declare(&self, document: Value) {
        let spec = ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap();
        self.registry.declare(spec, Origin::Api, true).await.unwrap();
    }

    /// Waits until `holds`, and tells the last state seen if it never does.
    pub(crate) async fn sees(&self, name: &str, what: &str, holds: impl Fn(&ServiceView) -> bool) -> Arc<ServiceView> {
        let mut index = self.registry.index();
        let wait = async {
            loop {
                if let Ok(view) = self.registry.service(name)
                    && holds(&view)
                {
                    return view;
                }
                index.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(view) => view,
            Err(_) => panic!("{name} was never {what}: {:#?}", self.registry.service(name)),
        }
    }

    pub(crate) async fn pids(&self, name: &str, replicas: usize) -> Vec<u32> {
        let view = self
            .sees(name, "running", |view| {
                let running = view.instances.iter().filter(|i| i.record.state == InstanceState::Running);
                running.count() == replicas && view.instances.len() == replicas
            })
            .await;
        view.instances.iter().map(|instance| instance.record.pid.unwrap()).collect()
    }

    /// As a clean exit does it, services stopped.
    pub(crate) async fn end(self) {
        self.supervisor.shutdown(Shutdown::StopServices, CancellationToken::new()).await;
        self.leadership.leave().await;
        self.registry.close();
    }

    /// As a clean exit does it, services left running.
    pub(crate) async fn leave(self) {
        self.supervisor.step_down().await;
        self.leadership.resign().await;
        self.supervisor.shutdown(Shutdown::Detach, CancellationToken::new()).await;
        self.leadership.leave().await;
        self.registry.close();
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) fn sleeper(name: &str, runtime: &str) -> Value {
    json!({"name": name, "runtime": runtime, "command": ["sleep", "1000"], "backoff": {"initial": 0.01, "jitter": 0}})
}
