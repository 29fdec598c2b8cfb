//! A wall clock that jumps: scheduling does not follow it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use coredinator_core::{Clock, InstanceState, Origin, ServiceSpec, SpecDefaults, SystemClock, Timestamp};
use coredinator_registry::{
    Registry, RegistryOptions, ServiceView,
    health::ProbeRegistry,
    store::{SqliteOptions, SqliteStore},
};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use coredinator_supervisor::{Runtimes, Shutdown, Supervisor, SupervisorOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    processes,
    support::{PATIENCE, script, sleeper, with},
};

const DAY: i64 = 24 * 60 * 60;

/// The machine's clock, off by some seconds.
#[derive(Debug, Default)]
struct Jumping(AtomicI64);

impl Jumping {
    fn jump(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        let micros = SystemClock.now().as_microsecond() + self.0.load(Ordering::Relaxed) * 1_000_000;
        Timestamp::from_microsecond(micros).unwrap()
    }
}

/// Registry and supervisor in this process, on a clock of the test's own.
struct Plant {
    registry: Registry,
    supervisor: Option<Supervisor>,
    store: SqliteStore,
    owner: String,
}

impl Drop for Plant {
    fn drop(&mut self) {
        if self.supervisor.is_some() {
            processes::kill_all("COREDINATOR_OWNER", &self.owner);
        }
    }
}

impl Plant {
    async fn open(dir: &Path, clock: &Arc<Jumping>) -> Self {
        let options = SqliteOptions::default().clock(Arc::clone(clock) as _);
        let store = SqliteStore::open_with(dir.join("store.sqlite"), options).await.unwrap();
        let registry = Registry::open(RegistryOptions {
            store: Arc::new(store.clone()),
            clock: Arc::clone(clock) as _,
            probes: ProbeRegistry::builtin(),
            check_concurrency: 64,
            seed: 1,
        })
        .await
        .unwrap();
        let owner = format!("faults-of-{}", dir.display());
        let options = ProcessRuntimeOptions::new(dir.join("logs"), &owner).with_clock(Arc::clone(clock) as _);
        let supervisor = Supervisor::start(SupervisorOptions {
            registry: registry.clone(),
            runtimes: Runtimes::new([Arc::new(ProcessRuntime::new(options).unwrap()) as _]),
            clock: Arc::clone(clock) as _,
            seed: fastrand::u64(..),
            url: None,
            document_dir: None,
        });
        Self { registry, supervisor: Some(supervisor), store, owner }
    }

    async fn declare(&self, name: &str, document: Value) {
        let document = with(document, json!({"name": name}));
        let spec = ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap();
        self.registry.declare(spec, Origin::Api, true).await.unwrap();
    }

    async fn until(&self, name: &str, what: &str, holds: impl Fn(&ServiceView) -> bool) -> Arc<ServiceView> {
        let mut index = self.registry.index();
        let wait = async {
            loop {
                match self.registry.service(name) {
                    Ok(view) if holds(&view) => return view,
                    // Results of checks do not count as changes.
                    _ => drop(tokio::time::timeout(Duration::from_millis(20), index.changed()).await),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(view) => view,
            Err(_) => panic!("{name} never {what}: {:#?}", self.registry.service(name)),
        }
    }

    async fn end(mut self, how: Shutdown) {
        self.supervisor.take().unwrap().shutdown(how, CancellationToken::new()).await;
        self.store.close().await;
    }
}

fn restarts(view: &ServiceView) -> u64 {
    view.instances.first().map_or(0, |instance| instance.record.restarts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_off_and_checks_go_on_when_the_clock_jumps_either_way() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Jumping::default());
    let plant = Plant::open(dir.path(), &clock).await;
    plant.declare("crashes", script("exit 1")).await;
    let check = json!({"command": ["true"], "interval": 0.05, "timeout": 20, "jitter": 0});
    plant.declare("checked", with(sleeper(), json!({"health_check": check}))).await;
    plant.until("checked", "was healthy", |view| view.instances.iter().any(|instance| instance.ready)).await;
    for jump in [-DAY, DAY, -DAY, -DAY, 3 * DAY] {
        clock.jump(jump);
        let (before, view) = (restarts(&plant.registry.service("crashes").unwrap()), plant.registry.service("checked"));
        let checks = |view: &ServiceView| view.instances[0].health.as_ref().unwrap().snapshot().checks;
        let made = checks(&view.unwrap());
        plant.until("crashes", "was restarted twice more", |view| restarts(view) >= before + 2).await;
        plant.until("checked", "was checked three times more", |view| checks(view) >= made + 3).await;
    }
    let view = plant.registry.service("checked").unwrap();
    assert_eq!(restarts(&view), 0, "a jump is no illness: {view:#?}");
    plant.end(Shutdown::StopServices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_off_that_outlived_a_restart_is_not_longer_because_the_clock_went_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Jumping::default());
    let plant = Plant::open(dir.path(), &clock).await;
    let backoff = json!({"initial": 0.5, "max": 0.5, "jitter": 0});
    plant.declare("crashes", with(script("exit 1"), json!({"backoff": backoff}))).await;
    plant
        .until("crashes", "waited", |view| {
            restarts(view) >= 2 && view.instances[0].record.state == InstanceState::Backoff
        })
        .await;
    plant.end(Shutdown::Detach).await;
    clock.jump(-DAY);
    let plant = Plant::open(dir.path(), &clock).await;
    let before = restarts(&plant.registry.service("crashes").unwrap());
    plant.until("crashes", "was started again", |view| restarts(view) > before).await;
    plant.end(Shutdown::StopServices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_that_seem_to_lie_in_the_future_do_not_burden_the_budget_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Jumping::default());
    let plant = Plant::open(dir.path(), &clock).await;
    let budget = json!({"restart_budget": {"attempts": 3, "window": 60}});
    plant.declare("a", with(sleeper(), budget)).await;
    let mut pid = None;
    // A day is taken back after the second restart. From then on two fall into each window, which the budget allows.
    for jump in [0, 0, -DAY, 61, 0, 61, 0] {
        let ran = |view: &ServiceView| {
            let record = &view.instances[0].record;
            record.state == InstanceState::Running && record.pid.is_some() && record.pid != pid
        };
        let view = plant.until("a", "ran again", |view| !view.instances.is_empty() && ran(view)).await;
        pid = view.instances[0].record.pid;
        clock.jump(jump);
        processes::signal(pid.unwrap(), rustix::process::Signal::KILL);
    }
    let ran = |view: &ServiceView| view.instances[0].record.state == InstanceState::Running && restarts(view) == 7;
    plant.until("a", "ran after all of them", ran).await;
    plant.end(Shutdown::StopServices).await;
}
