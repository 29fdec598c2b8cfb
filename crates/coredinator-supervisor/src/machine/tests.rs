//! The life of replicas: single transitions, and a random world in which every step is taken or fails.

use std::{collections::BTreeSet, time::Instant};

use coredinator_core::{Exit, Observation, Origin, ServiceSpec, SpecDefaults, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A service, the world it runs in, and a clock that tests own.
struct World {
    machine: Machine,
    desired: Desired,
    now: Now,
    coined: u64,
    ids: BTreeSet<InstanceId>,
}

impl World {
    fn new(extra: &Value) -> Self {
        let record = Arc::new(ServiceRecord {
            spec: spec(extra),
            generation: 1,
            runs_since: 1,
            origin: Origin::Api,
            node: None,
            created_at: Timestamp::UNIX_EPOCH,
            deleting: false,
            config: None,
            config_revision: 0,
        });
        let wanted = record.spec.replicas;
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test's own clock")]
        let now = Now { mono: Instant::now(), wall: Timestamp::UNIX_EPOCH };
        let desired = Desired {
            intent: Arc::default(),
            wanted,
            declared: wanted,
            gate: Gate::Open,
            health: BTreeMap::new(),
            mode: Mode::Run,
            node: NodeName::new("here").ok(),
            leaving: false,
            record,
        };
        Self {
            machine: Machine::new(desired.record.spec.name.clone(), []),
            desired,
            now,
            coined: 0,
            ids: BTreeSet::new(),
        }
    }

    fn reconcile(&mut self) -> Vec<Step> {
        let (name, coined) = (self.desired.record.spec.name.clone(), &mut self.coined);
        let steps = self.machine.reconcile(&self.desired, self.now, &mut |replica| {
            *coined += 1;
            InstanceId::coin(&name, replica, *coined)
        });
        let (records, _) = self.machine.take_changes();
        for step in &steps {
            if let Step::Start { replica, id, .. } = step {
                let stored = records.iter().find(|record| record.replica == *replica);
                assert!(
                    stored.is_some_and(|r| r.id.as_ref() == Some(id) && r.state == InstanceState::Starting),
                    "{step:?} is not stored"
                );
            }
        }
        steps
    }

    /// Reconciles and carries every start out.
    fn settle(&mut self) {
        for step in self.reconcile() {
            if let Step::Start { replica, id, .. } = step {
                self.start(replica, &id);
            }
        }
        self.machine.take_changes();
    }

    fn start(&mut self, replica: u32, id: &InstanceId) {
        let instance = InstanceRef {
            id: id.clone(),
            service: self.desired.record.spec.name.clone(),
            replica,
            handle: Some(json!(1)),
        };
        let started = Started {
            instance,
            pid: Some(7),
            host: "localhost".into(),
            port: 1,
            started_at: self.now.wall,
            running: true,
        };
        self.ids.insert(id.clone());
        self.machine.started(replica, id, StartOutcome::Started(started), &self.desired, self.now, 0.5);
    }

    fn exit(&mut self, replica: u32, code: i32) {
        let id = self.id(replica);
        let exit = Exit { code: Some(code), signal: None, oom_killed: false, why: None, at: self.now.wall };
        self.machine.exited(replica, &id, exit, &self.desired, self.now, 0.5);
    }

    fn id(&self, replica: u32) -> InstanceId {
        self.record(replica).id.clone().unwrap()
    }

    fn record(&self, replica: u32) -> &InstanceRecord {
        &self.machine.slots[&replica].record
    }

    fn state(&self, replica: u32) -> InstanceState {
        self.record(replica).state
    }

    fn pass(&mut self, seconds: u64) {
        self.now.mono += Duration::from_secs(seconds);
        self.now.wall += Duration::from_secs(seconds);
    }

    fn intend(&mut self, change: impl FnOnce(&mut Intent)) {
        let mut intent = (*self.desired.intent).clone();
        change(&mut intent);
        self.desired.wanted =
            if intent.stopped { 0 } else { intent.replicas.unwrap_or(self.desired.record.spec.replicas) };
        self.desired.declared = intent.replicas.unwrap_or(self.desired.record.spec.replicas);
        self.desired.intent = Arc::new(intent);
    }

    fn say(&mut self, replica: u32, status: HealthStatus) {
        let ready = matches!(status, HealthStatus::Healthy | HealthStatus::Degraded);
        self.desired.health.insert(self.id(replica), (Some(status), ready, "HTTP 500".into()));
    }
}

fn spec(extra: &Value) -> ServiceSpec {
    let mut document = json!({"name": "a", "runtime": "process", "command": "x", "backoff": {"jitter": 0}});
    document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap()
}

#[test]
fn a_crash_is_restarted_at_once_then_with_growing_pauses() {
    let mut world = World::new(&json!({}));
    world.settle();
    assert_eq!(world.state(0), InstanceState::Running);
    world.exit(0, 1);
    assert_eq!(world.state(0), InstanceState::Backoff);
    world.settle();
    assert_eq!((world.state(0), world.record(0).restarts), (InstanceState::Running, 1));
    world.exit(0, 1);
    assert!(world.reconcile().is_empty(), "the second restart waits");
    let pause = world.record(0).next_restart_at.unwrap().duration_since(world.now.wall);
    assert_eq!(pause.as_secs(), 1);
    assert_eq!(world.machine.next_due(&world.desired), Some(world.now.mono + Duration::from_secs(1)));
    world.pass(1);
    world.settle();
    assert_eq!(world.state(0), InstanceState::Running);
}

#[test]
fn a_good_period_starts_the_count_anew() {
    let mut world = World::new(&json!({"backoff": {"reset_after": 60}}));
    world.settle();
    world.exit(0, 1);
    world.settle();
    let ready = (world.id(0), (None, true, String::new()));
    world.desired.health.extend([ready]);
    world.settle();
    world.pass(59);
    world.settle();
    assert_eq!(world.record(0).attempts, 1);
    world.pass(1);
    world.settle();
    assert_eq!(world.record(0).attempts, 0);
}

#[test]
fn what_was_asked_for_is_never_a_failure() {
    let mut world = World::new(&json!({"restart_policy": "no"}));
    world.settle();
    world.intend(|intent| intent.stopped = true);
    let steps = world.reconcile();
    assert!(matches!(steps[..], [Step::Stop { .. }]), "{steps:?}");
    world.exit(0, 1);
    assert_eq!(world.state(0), InstanceState::Stopped);
    assert!(world.reconcile().is_empty(), "stopped it stays");
    world.intend(|intent| (intent.stopped, intent.command) = (false, 1));
    world.settle();
    assert_eq!((world.state(0), world.record(0).restarts), (InstanceState::Running, 0));
}

#[test]
fn failed_for_good_is_left_only_by_hand() {
    let mut world = World::new(&json!({"restart_budget": {"attempts": 1, "window": 1000}}));
    world.settle();
    world.exit(0, 1);
    world.settle();
    world.exit(0, 1);
    assert_eq!(
        (world.state(0), world.record(0).reason.code.as_str()),
        (InstanceState::Failed, "RestartBudgetExhausted")
    );
    world.pass(5000);
    assert!(world.reconcile().is_empty());
    world.intend(|intent| intent.command = 1);
    world.settle();
    assert_eq!((world.state(0), world.record(0).attempts), (InstanceState::Running, 0));
}

#[test]
fn restart_by_hand_replaces_one_replica_at_a_time() {
    let mut world = World::new(&json!({"replicas": 2}));
    world.settle();
    let before = (world.id(0), world.id(1));
    world.desired.health.extend([before.0.clone(), before.1.clone()].map(|id| (id, (None, true, String::new()))));
    world.intend(|intent| (intent.command, intent.restart) = (1, 1));
    assert!(matches!(world.reconcile()[..], [Step::Stop { .. }]));
    world.exit(0, 0);
    world.settle();
    assert_ne!(world.id(0), before.0);
    assert!(world.reconcile().is_empty(), "the second waits until the first is ready again");
    let ready = (world.id(0), (None, true, String::new()));
    world.desired.health.extend([ready]);
    assert!(matches!(&world.reconcile()[..], [Step::Stop { instance, .. }] if instance.replica == 1));
}

#[test]
fn unhealthy_is_restarted_unless_the_policy_is_no() {
    for (policy, restarted) in [("always", true), ("on-failure", true), ("no", false)] {
        let mut world = World::new(&json!({"restart_policy": policy, "health_check": {"kind": "tcp"}}));
        world.settle();
        world.say(0, HealthStatus::Degraded);
        assert!(world.reconcile().is_empty());
        world.say(0, HealthStatus::Unhealthy);
        assert_eq!(!world.reconcile().is_empty(), restarted, "{policy}");
        if restarted {
            world.exit(0, 0);
            assert_eq!((world.state(0), world.record(0).reason.code.as_str()), (InstanceState::Backoff, "Unhealthy"));
        }
    }
}

#[test]
fn a_start_waits_for_what_it_depends_on_and_a_restart_does_not() {
    let mut world = World::new(&json!({}));
    world.desired.gate = Gate::Waiting(Reason::new("WaitingForDependency", "waits for b"));
    assert!(world.reconcile().is_empty());
    assert_eq!((world.state(0), world.record(0).reason.message.as_str()), (InstanceState::Pending, "waits for b"));
    world.desired.gate = Gate::Open;
    world.settle();
    world.desired.gate = Gate::Waiting(Reason::new("WaitingForDependency", "waits for b"));
    world.exit(0, 1);
    world.settle();
    assert_eq!(world.state(0), InstanceState::Running);
}

#[test]
fn a_start_of_unknown_outcome_is_tried_under_the_same_id() {
    let mut world = World::new(&json!({"restart_policy": "no"}));
    world.reconcile();
    let id = world.id(0);
    let away = StartOutcome::Unknown(Reason::new("RuntimeUnavailable", "away"));
    world.machine.started(0, &id, away, &world.desired, world.now, 0.5);
    assert!(world.reconcile().is_empty());
    world.pass(1);
    world.settle();
    assert_eq!((world.state(0), world.id(0), world.record(0).restarts), (InstanceState::Running, id, 0));
}

#[test]
fn what_was_only_taken_on_is_starting_until_it_is_seen_to_run() {
    let mut world = World::new(&json!({}));
    world.reconcile();
    let id = world.id(0);
    let instance =
        InstanceRef { id: id.clone(), service: world.machine.service.clone(), replica: 0, handle: Some(json!("pod")) };
    let mut started =
        Started { instance, pid: None, host: String::new(), port: 0, started_at: world.now.wall, running: false };
    let taken_on = StartOutcome::Started(started.clone());
    world.machine.started(0, &id, taken_on, &world.desired, world.now, 0.5);
    assert!(world.reconcile().is_empty());
    assert_eq!((world.state(0), world.record(0).handle.clone()), (InstanceState::Starting, Some(json!("pod"))));
    let waiting = Observation::Waiting(Reason::new("ImagePullBackOff", "its image cannot be pulled"));
    world.machine.observed(0, &id, &waiting, world.now);
    assert_eq!((world.state(0), world.record(0).reason.code.as_str()), (InstanceState::Starting, "ImagePullBackOff"));
    (started.host, started.port, started.running) = ("10.0.0.7".into(), 80, true);
    world.machine.observed(0, &id, &Observation::Running(started), world.now);
    assert_eq!(
        (world.state(0), world.record(0).host.as_str(), world.record(0).port),
        (InstanceState::Running, "10.0.0.7", 80)
    );
}

#[test]
fn what_was_taken_on_and_could_not_be_started_is_tried_again_by_policy() {
    let mut world = World::new(&json!({"restart_policy": "on-failure:1"}));
    let (waiting, cannot) = (
        |message: &str| Observation::Waiting(Reason::new("Pulling", message)),
        || Reason::new("ImagePullFailed", "cannot pull a:1"),
    );
    for restarts in [1, 1] {
        for step in world.reconcile() {
            let Step::Start { id, .. } = step else { panic!("expected a start, but saw {step:?}") };
            let instance =
                InstanceRef { id: id.clone(), service: world.machine.service.clone(), replica: 0, handle: None };
            let (host, started_at) = (String::new(), world.now.wall);
            let started = Started { instance, pid: None, host, port: 0, started_at, running: false };
            let outcome = StartOutcome::Started(started);
            world.machine.started(0, &id, outcome, &world.desired, world.now, 0.5);
        }
        let id = world.id(0);
        for message in ["0 of 10 MB", "5 of 10 MB", "10 of 10 MB"] {
            world.machine.observed(0, &id, &waiting(message), world.now);
            assert_eq!(world.record(0).reason.message, message, "how far it is, is told");
        }
        let told = world.machine.take_changes().1.iter().filter(|event| event.reason.code == "Pulling").count();
        assert_eq!(told, 1, "that it is pulled is told once");
        world.machine.not_started(0, &id, cannot(), &world.desired, world.now, 0.5);
        assert_eq!(world.record(0).restarts, restarts);
        world.machine.not_started(0, &id, cannot(), &world.desired, world.now, 0.5);
        assert_eq!(world.record(0).restarts, restarts, "told twice, it counts once");
    }
    assert_eq!((world.state(0), world.record(0).restarts), (InstanceState::Failed, 1), "{:?}", world.record(0));
}

#[test]
fn what_is_started_again_in_place_is_counted_and_not_started_again() {
    let mut world = World::new(&json!({"restart_policy": "on-failure:1"}));
    world.settle();
    let (id, before) = (world.id(0), world.record(0).clone());
    let instance = before.reference().unwrap();
    let (host, started_at) = ("10.0.0.1".to_owned(), world.now.wall);
    let started = Started { instance, pid: None, host, port: 1, started_at, running: true };
    let last = Exit { code: Some(7), signal: None, oom_killed: false, why: None, at: world.now.wall };
    world.machine.observed(0, &id, &Observation::Waiting(Reason::new("CrashLoopBackOff", "waits")), world.now);
    assert_eq!(world.state(0), InstanceState::Starting);
    for times in [1, 3] {
        let restarted = Observation::Restarted { started: started.clone(), times, last: Some(last.clone()) };
        world.machine.observed(0, &id, &restarted, world.now);
        assert!(world.reconcile().is_empty(), "nothing is to be done");
    }
    let record = world.record(0);
    assert_eq!((record.state, record.restarts, record.attempts), (InstanceState::Running, 4, before.attempts));
    assert_eq!((&record.id, &record.last_exit, record.host.as_str()), (&before.id, &Some(last), "10.0.0.1"));
}

#[test]
fn what_ended_it_from_outside_is_its_reason() {
    let mut world = World::new(&json!({"restart_policy": "always"}));
    world.settle();
    let why = Some(Reason::new("Evicted", "evicted by its node: low on memory"));
    let exit = Exit { code: None, signal: None, oom_killed: false, why, at: world.now.wall };
    world.machine.exited(0, &world.id(0), exit, &world.desired, world.now, 0.5);
    let reason = &world.record(0).reason;
    assert_eq!((world.state(0), reason.code.as_str()), (InstanceState::Backoff, "Evicted"));
    assert!(reason.message.starts_with("evicted by its node: low on memory; restart 1"), "{reason}");
}

#[test]
fn what_is_stopped_while_it_is_being_taken_on_is_stopped() {
    let mut world = World::new(&json!({}));
    world.reconcile();
    let id = world.id(0);
    let instance = InstanceRef { id: id.clone(), service: world.machine.service.clone(), replica: 0, handle: None };
    let (host, started_at) = (String::new(), world.now.wall);
    let started = Started { instance, pid: None, host, port: 0, started_at, running: false };
    world.machine.started(0, &id, StartOutcome::Started(started), &world.desired, world.now, 0.5);
    world.intend(|intent| intent.stopped = true);
    world.desired.wanted = 0;
    assert!(matches!(world.reconcile()[..], [Step::Stop { .. }]));
    let reason = Reason::new("ImagePullFailed", "cannot pull a:1");
    world.machine.not_started(0, &id, reason, &world.desired, world.now, 0.5);
    assert_eq!(world.state(0), InstanceState::Stopped);
}

#[test]
fn scaling_down_forgets_the_replica_and_shutting_down_does_not() {
    let mut world = World::new(&json!({"replicas": 2}));
    world.settle();
    world.intend(|intent| intent.replicas = Some(1));
    assert!(matches!(&world.reconcile()[..], [Step::Stop { instance, .. }] if instance.replica == 1));
    world.exit(1, 0);
    assert_eq!(world.reconcile(), [Step::Forget { replica: 1 }]);
    world.desired.mode = Mode::ShutDown;
    assert!(matches!(world.reconcile()[..], [Step::Stop { .. }]));
    world.desired.mode = Mode::Kill;
    assert!(matches!(world.reconcile()[..], [Step::Stop { how: StopRequest::KILL, .. }]), "a second signal hurries");
    world.exit(0, 0);
    assert!(world.reconcile().is_empty() && world.machine.is_quiet());
    assert_eq!(world.state(0), InstanceState::Stopped);
}

#[test]
fn a_changed_spec_replaces_and_a_failed_stop_is_tried_again() {
    let mut world = World::new(&json!({}));
    world.settle();
    let mut record = (*world.desired.record).clone();
    (record.generation, record.runs_since) = (2, 2);
    world.desired.record = Arc::new(record);
    assert!(matches!(world.reconcile()[..], [Step::Stop { .. }]));
    let id = world.id(0);
    world.machine.stop_failed(0, &id, Reason::new("StopFailed", "cannot"), world.now);
    assert!(world.reconcile().is_empty());
    world.pass(1);
    assert!(matches!(world.reconcile()[..], [Step::Stop { .. }]));
    world.exit(0, 0);
    world.settle();
    assert_eq!((world.state(0), world.record(0).generation), (InstanceState::Running, 2));
}

#[test]
fn a_start_of_what_runs_does_not_run_it_again_when_it_completes() {
    let mut world = World::new(&json!({"restart_policy": "no"}));
    world.settle();
    world.intend(|intent| intent.command = 1);
    world.settle();
    world.exit(0, 0);
    assert!(world.reconcile().is_empty(), "it is done");
    assert_eq!(world.state(0), InstanceState::Completed);
    world.intend(|intent| intent.command = 2);
    world.settle();
    assert_eq!(world.state(0), InstanceState::Running, "a start by hand after the end runs it again");
}

#[test]
fn an_interrupted_start_is_made_under_the_same_id() {
    let mut world = World::new(&json!({}));
    world.reconcile();
    let record = world.record(0).clone();
    world.machine = Machine::new(record.service.clone(), [Slot::of(record.clone())]);
    world.machine.lost(0, &world.desired, world.now, 0.5);
    world.settle();
    assert_eq!((world.state(0), Some(world.id(0))), (InstanceState::Running, record.id));
}

#[derive(Debug, Clone)]
enum Happening {
    Exit(u32, i32),
    Stop,
    Start,
    Restart,
    Scale(u32),
    Health(u32, HealthStatus),
    Pass(u64),
    Change,
    Gate(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    use HealthStatus as H;
    prop_oneof![
        4 => (0u32..4, 0i32..2).prop_map(|(r, c)| Happening::Exit(r, c)),
        1 => Just(Happening::Stop),
        2 => Just(Happening::Start),
        1 => Just(Happening::Restart),
        2 => (0u32..4).prop_map(Happening::Scale),
        2 => (0u32..4, prop_oneof![Just(H::Healthy), Just(H::Degraded), Just(H::Unhealthy), Just(H::Unknown)])
            .prop_map(|(r, h)| Happening::Health(r, h)),
        3 => (0u64..400).prop_map(Happening::Pass),
        1 => Just(Happening::Change),
        1 => any::<bool>().prop_map(Happening::Gate),
    ]
}

proptest! {
    /// Whatever happens in whatever order, steps taken or failing: no replica ever has two lives at once, no id is used
    /// twice, nothing runs that is not recorded, and when the world calms down what is wanted runs.
    #[test]
    fn a_random_world(
        happenings in prop::collection::vec((happening(), any::<u8>()), 1..80),
        policy in prop_oneof![Just("always"), Just("on-failure"), Just("unless-stopped")],
    ) {
        let mut world = World::new(&json!({"replicas": 2, "restart_policy": policy, "health_check": {"kind": "tcp"}}));
        let mut running: BTreeMap<InstanceId, u32> = BTreeMap::new();
        let mut waiting: Vec<Step> = Vec::new();
        let calm = (0..60).flat_map(|_| [(Happening::Pass(400), 0)]);
        let noise = happenings.len();
        let last = [Happening::Gate(true), Happening::Start].map(|h| (h, 0));
        for (round, (happening, dice)) in happenings.into_iter().chain(last).chain(calm).enumerate() {
            let quiet = round >= noise;
            match happening {
                Happening::Exit(replica, code) => {
                    if let Some((id, _)) = running.iter().find(|(_, r)| **r == replica).map(|(id, r)| (id.clone(), *r)) {
                        running.remove(&id);
                        let exit = Exit { code: Some(code), signal: None, oom_killed: false, why: None, at: world.now.wall };
                        world.machine.exited(replica, &id, exit, &world.desired, world.now, 0.5);
                    }
                }
                Happening::Stop => world.intend(|intent| intent.stopped = true),
                Happening::Start => world.intend(|intent| { intent.stopped = false; intent.command += 1; }),
                Happening::Restart => world.intend(|intent| {
                    intent.stopped = false;
                    intent.command += 1;
                    intent.restart = intent.command;
                }),
                Happening::Scale(n) => world.intend(|intent| intent.replicas = Some(n)),
                Happening::Health(replica, status) => {
                    if world.machine.slots.get(&replica).is_some_and(|slot| slot.record.id.is_some()) {
                        world.say(replica, status);
                    }
                }
                Happening::Pass(seconds) => world.pass(seconds),
                Happening::Change => {
                    let mut record = (*world.desired.record).clone();
                    record.generation += 1;
                    record.runs_since = record.generation;
                    world.desired.record = Arc::new(record);
                }
                Happening::Gate(open) => {
                    let reason = Reason::new("WaitingForDependency", "waits");
                    world.desired.gate = if open { Gate::Open } else { Gate::Waiting(reason) };
                }
            }
            if quiet {
                for id in running.keys() {
                    world.desired.health.insert(id.clone(), (Some(HealthStatus::Healthy), true, String::new()));
                }
            }
            waiting.extend(world.reconcile());
            // Each step is taken now, fails now, or is taken later.
            for step in std::mem::take(&mut waiting) {
                match (step, if quiet { 0 } else { dice % 4 }) {
                    (step, 3) => waiting.push(step),
                    (Step::Start { replica, id, .. }, 2) => {
                        let reason = Reason::new("CommandNotFound", "missing");
                        world.machine.started(replica, &id, StartOutcome::NotStarted(reason), &world.desired, world.now, 0.5);
                    }
                    (Step::Start { replica, id, .. }, _) => {
                        prop_assert!(!running.values().any(|r| *r == replica), "replica {replica} has two lives");
                        prop_assert!(!world.ids.contains(&id), "{id} is used twice");
                        running.insert(id.clone(), replica);
                        world.start(replica, &id);
                    }
                    (Step::Stop { instance, .. }, 2) => {
                        world.machine.stop_failed(instance.replica, &instance.id, Reason::new("StopFailed", ""), world.now);
                    }
                    (Step::Stop { instance, .. }, _) => {
                        if running.remove(&instance.id).is_some() {
                            let exit = Exit { code: None, signal: Some(15), oom_killed: false, why: None, at: world.now.wall };
                            world.machine.exited(instance.replica, &instance.id, exit, &world.desired, world.now, 0.5);
                        }
                    }
                    (Step::Forget { replica }, _) => {
                        prop_assert!(!running.values().any(|r| *r == replica), "replica {replica} runs and is forgotten");
                    }
                    (Step::Deliver { .. }, _) => prop_assert!(false, "there is no document here"),
                }
            }
            for (id, replica) in &running {
                let slot = &world.machine.slots[replica];
                prop_assert!(slot.is(id) && slot.record.state.is_live(), "{id} runs and is not recorded");
            }
        }
        let alive: BTreeSet<u32> = running.values().copied().collect();
        let wanted: BTreeSet<u32> = (0..world.desired.wanted)
            .filter(|replica| world.state(*replica) != InstanceState::Completed)
            .collect();
        prop_assert_eq!(alive, wanted, "{:?}", world.machine);
    }
}
