//! The supervisor over a real SQLite file and real processes: what is declared runs, whatever happens to it.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coredinator_core::{
    Clock, InstanceState, Origin, ServiceSpec, ServiceStatus, SharedClock, SpecDefaults, SystemClock, Timestamp,
};
use coredinator_registry::{
    Command, Registry, RegistryOptions, ServiceView, health::ProbeRegistry, store::SqliteStore,
};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use coredinator_supervisor::{Runtimes, Shutdown, Supervisor, SupervisorOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// An upper bound for a loaded machine, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(30);

struct Plant {
    registry: Registry,
    supervisor: Supervisor,
}

impl Plant {
    async fn open(dir: &Path) -> Self {
        Self::open_with(dir, Arc::new(SystemClock)).await
    }

    /// The same; `supervisors` is the clock of the supervisor alone.
    async fn open_with(dir: &Path, supervisors: SharedClock) -> Self {
        let clock = Arc::new(SystemClock);
        let registry = Registry::open(RegistryOptions {
            store: Arc::new(SqliteStore::open(dir.join("store.sqlite")).await.unwrap()),
            clock,
            probes: ProbeRegistry::builtin(),
            check_concurrency: 64,
            seed: 1,
        })
        .await
        .unwrap();
        let owner = dir.to_string_lossy().into_owned();
        let runtime = ProcessRuntime::new(ProcessRuntimeOptions::new(dir.join("logs"), owner)).unwrap();
        let supervisor = Supervisor::start(SupervisorOptions {
            registry: registry.clone(),
            runtimes: Runtimes::new([Arc::new(runtime) as _]),
            clock: supervisors,
            seed: fastrand::u64(..),
            url: None,
            document_dir: Some(dir.to_owned()),
        });
        Self { registry, supervisor }
    }

    async fn declare(&self, document: Value) {
        let spec = ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap();
        self.registry.declare(spec, Origin::Api, true).await.unwrap();
    }

    /// Waits until `holds`, and tells the last state seen if it never does.
    async fn until(&self, name: &str, what: &str, holds: impl Fn(&ServiceView) -> bool) -> Arc<ServiceView> {
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

    async fn running(&self, name: &str, replicas: usize) -> Vec<u32> {
        let view = self
            .until(name, "running", |view| {
                let running = view.instances.iter().filter(|i| i.record.state == InstanceState::Running);
                running.count() == replicas && view.instances.len() == replicas
            })
            .await;
        view.instances.iter().map(|instance| instance.record.pid.unwrap()).collect()
    }

    async fn gone(&self, name: &str) {
        let mut index = self.registry.index();
        let wait = async {
            while self.registry.service(name).is_ok() {
                index.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{name} was never gone"));
    }

    async fn end(self, how: Shutdown) {
        self.supervisor.shutdown(how, CancellationToken::new()).await;
    }
}

/// The processes that carry this owner's mark, by the kernel's account.
fn alive(dir: &Path) -> Vec<u32> {
    let mark = format!("COREDINATOR_OWNER={}", dir.display());
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    })
    .collect()
}

/// Waits until these are alive, and no others: a program that is still being loaded carries no mark yet.
async fn only_alive(dir: &Path, pids: &[u32]) {
    let expected = BTreeSet::from_iter(pids);
    let wait = async {
        while BTreeSet::from_iter(&alive(dir)) != expected {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{:?} are alive, not {pids:?}", alive(dir)));
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

fn sleeper(name: &str) -> Value {
    json!({"name": name, "runtime": "process", "command": ["sleep", "1000"], "backoff": {"initial": 0.01, "jitter": 0}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_replaced_and_a_stopped_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    plant.declare(sleeper("a")).await;
    let mut pids = plant.running("a", 1).await;
    for round in 1..=4 {
        kill(pids[0]);
        let killed = pids[0];
        let view = plant
            .until("a", "restarted", |view| {
                let record = &view.instances[0].record;
                record.state == InstanceState::Running && record.pid != Some(killed)
            })
            .await;
        let record = &view.instances[0].record;
        assert_eq!((record.restarts, record.last_exit.as_ref().unwrap().signal), (round, Some(9)));
        pids = vec![record.pid.unwrap()];
        only_alive(dir.path(), &pids).await;
    }
    plant.registry.command("a", Command::Stop).await.unwrap();
    plant.until("a", "stopped", |v| v.status == ServiceStatus::Stopped && v.reason.code == "StoppedByHand").await;
    assert_eq!(alive(dir.path()), [] as [u32; 0]);
    plant.end(Shutdown::StopServices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_starts_at_once_are_one_instance() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    plant.declare(sleeper("a")).await;
    plant.registry.command("a", Command::Stop).await.unwrap();
    let starts = (0..20).map(|_| plant.registry.command("a", Command::Start));
    for started in futures_util::future::join_all(starts).await {
        started.unwrap();
    }
    let pids = plant.running("a", 1).await;
    only_alive(dir.path(), &pids).await;
    plant.end(Shutdown::StopServices).await;
    assert_eq!(alive(dir.path()), [] as [u32; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_changing_and_deregistering_leave_what_is_declared() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    plant.declare(sleeper("a")).await;
    plant.declare(sleeper("b")).await;
    let untouched = plant.running("b", 1).await;
    plant.running("a", 1).await;
    plant.registry.command("a", Command::Scale(3)).await.unwrap();
    let three = plant.running("a", 3).await;
    plant.registry.command("a", Command::Scale(2)).await.unwrap();
    assert_eq!(plant.running("a", 2).await, three[..2]);

    let mut changed = sleeper("a");
    changed["labels"] = json!({"line": "a"});
    plant.declare(changed.clone()).await;
    plant.until("a", "relabelled", |view| view.record.generation == 2).await;
    assert_eq!(plant.running("a", 2).await, three[..2], "a label restarts nothing");
    changed["command"] = json!(["sleep", "2000"]);
    plant.declare(changed).await;
    plant.until("a", "replaced", |view| view.instances.iter().all(|i| i.record.generation == 3)).await;
    let replaced = plant.running("a", 2).await;
    assert!(replaced.iter().all(|pid| !three.contains(pid)));

    plant.registry.deregister("a").await.unwrap();
    plant.gone("a").await;
    only_alive(dir.path(), &untouched).await;
    plant.end(Shutdown::StopServices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_program_is_told_and_started_when_it_appears() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("later.sh");
    let plant = Plant::open(dir.path()).await;
    let backoff = json!({"initial": 0.05, "max": 0.1, "jitter": 0});
    plant.declare(json!({"name": "a", "runtime": "process", "command": [program], "backoff": backoff})).await;
    let view = plant.until("a", "in back-off", |view| view.status == ServiceStatus::Backoff).await;
    assert_eq!(view.reason.code, "CommandNotFound");
    assert!(view.reason.message.contains("later.sh"), "{}", view.reason.message);
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    plant.running("a", 1).await;
    plant.end(Shutdown::StopServices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_start_after_and_stop_before_what_they_depend_on() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    let mut job = sleeper("job");
    job["command"] = json!(["sh", "-c", "exit 0"]);
    job["restart_policy"] = json!("no");
    let mut late = sleeper("late");
    late["depends_on"] = json!({"job": {"condition": "service_completed_successfully"}, "base": {}});
    plant.declare(late).await;
    let view = plant.until("late", "waiting", |view| !view.instances.is_empty()).await;
    assert_eq!(view.reason.code, "DependencyMissing");
    plant.declare(sleeper("base")).await;
    plant.declare(job).await;
    plant.running("late", 1).await;
    plant.until("job", "completed", |view| view.status == ServiceStatus::Completed).await;
    let registry = plant.registry.clone();
    let mut events = registry.events(Some(0));
    plant.end(Shutdown::StopServices).await;
    let stopped = |name: &str| {
        let events = registry.recent_events(1000, None);
        events.iter().position(|event| event.service.as_str() == name && event.reason.code == "Stopped")
    };
    // What is stored is seen a moment later.
    let seen = async {
        while stopped("late").is_none() || stopped("base").is_none() {
            events.next().await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, seen).await;
    assert!(told.is_ok(), "both stops are told: {:#?}", registry.recent_events(1000, None));
    assert!(stopped("late") < stopped("base"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_running_is_adopted_and_what_died_meanwhile_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    plant.declare(sleeper("lives")).await;
    plant.declare(sleeper("dies")).await;
    let lives = plant.running("lives", 1).await;
    let dies = plant.running("dies", 1).await;
    plant.end(Shutdown::Detach).await;
    kill(dies[0]);
    let plant = Plant::open(dir.path()).await;
    let view = plant
        .until("dies", "restarted", |v| v.instances[0].record.restarts == 1 && v.status == ServiceStatus::Healthy)
        .await;
    let replacement = view.instances[0].record.pid.unwrap();
    assert_eq!(plant.running("lives", 1).await, lives);
    only_alive(dir.path(), &[lives[0], replacement]).await;
    // Adopted is supervised as started: its end is seen.
    kill(lives[0]);
    plant.until("lives", "restarted", |view| view.instances[0].record.restarts == 1).await;
    plant.end(Shutdown::StopServices).await;
    assert_eq!(alive(dir.path()), [] as [u32; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_declared_anew_under_an_old_name_gets_its_own_document() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    for line in ["old", "new"] {
        let mut service = sleeper("a");
        service["labels"] = json!({"line": line});
        plant.declare(service).await;
        plant.running("a", 1).await;
        let document: Value = serde_json::from_slice(&std::fs::read(dir.path().join("a.json")).unwrap()).unwrap();
        assert_eq!(document["labels"]["line"], line);
        plant.registry.deregister("a").await.unwrap();
        plant.gone("a").await;
        assert!(!dir.path().join("a.json").exists(), "the document of a service that is gone stays");
    }
    plant.end(Shutdown::StopServices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_external_is_ended_also_if_nobody_watched_that_happen() {
    let dir = tempfile::tempdir().unwrap();
    let external = || json!({"name": "a", "port": 9});
    let plant = Plant::open(dir.path()).await;
    plant.declare(sleeper("a")).await;
    plant.running("a", 1).await;
    plant.declare(external()).await;
    plant.until("a", "external", |view| view.instances.is_empty()).await;
    assert_eq!(alive(dir.path()), [] as [u32; 0]);
    // And back, and once more while no supervisor is there.
    plant.declare(sleeper("a")).await;
    plant.running("a", 1).await;
    let Plant { registry, supervisor } = plant;
    supervisor.shutdown(Shutdown::Detach, CancellationToken::new()).await;
    let spec = ServiceSpec::parse("", None, external(), &SpecDefaults::default()).unwrap();
    registry.declare(spec, Origin::Api, true).await.unwrap();
    assert_eq!(alive(dir.path()).len(), 1);
    drop(registry);
    let plant = Plant::open(dir.path()).await;
    plant.until("a", "external", |view| view.instances.is_empty()).await;
    assert_eq!(alive(dir.path()), [] as [u32; 0]);
    plant.end(Shutdown::StopServices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deregistered_and_declared_again_in_quick_turns_it_runs_once() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    for _ in 0..30 {
        plant.declare(sleeper("a")).await;
        plant.registry.deregister("a").await.unwrap();
        // Once in the middle of its end, once right after.
        if fastrand::bool() {
            plant.gone("a").await;
        }
    }
    plant.declare(sleeper("a")).await;
    plant.until("a", "healthy", |view| view.status == ServiceStatus::Healthy).await;
    // Until its end is known, the one before may still be told as running.
    let once = async {
        while alive(dir.path()) != plant.running("a", 1).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, once).await.expect("it runs once");
    plant.end(Shutdown::StopServices).await;
    assert_eq!(alive(dir.path()), [] as [u32; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_supervisor_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::open(dir.path()).await;
    plant.declare(sleeper("a")).await;
    let pids = plant.running("a", 1).await;
    let Plant { registry, supervisor } = plant;
    drop(supervisor);
    // Its registry is held by nobody else once all of its tasks have ended.
    let mut changes = registry.changes();
    drop(registry);
    let ended = async { while changes.recv().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("something still holds the registry");
    only_alive(dir.path(), &pids).await;
    let plant = Plant::open(dir.path()).await;
    assert_eq!(plant.running("a", 1).await, pids);
    plant.end(Shutdown::StopServices).await;
}

/// Panics once when it is armed.
#[derive(Debug, Default)]
struct BrittleClock(AtomicBool);

impl Clock for BrittleClock {
    fn now(&self) -> Timestamp {
        assert!(!self.0.swap(false, Ordering::SeqCst), "as the test asked");
        SystemClock.now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_supervision_of_a_service_is_survived_by_it_and_its_instance() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(BrittleClock::default());
    let plant = Plant::open_with(dir.path(), Arc::clone(&clock) as SharedClock).await;
    plant.declare(sleeper("a")).await;
    let pids = plant.running("a", 1).await;
    plant.until("a", "healthy", |view| view.status == ServiceStatus::Healthy).await;
    clock.0.store(true, Ordering::SeqCst);
    plant.registry.command("a", Command::Scale(2)).await.unwrap();
    let both = plant.running("a", 2).await;
    assert_eq!(both[0], pids[0], "what ran goes on");
    assert!(!clock.0.load(Ordering::SeqCst), "nothing panicked");
    plant.end(Shutdown::StopServices).await;
    assert_eq!(alive(dir.path()), [] as [u32; 0]);
}
