//! A new document on its way: single decisions, and random worlds in which instances take it, fail and are found again.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use coredinator_core::{Origin, Reason, RuntimeName, ServiceName, ServiceSpec, SpecDefaults};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn service(action: &str, acknowledge: bool) -> Arc<ServiceRecord> {
    let document = json!({
        "runtime": "process", "command": "x", "config": {"lr": 1},
        "config_change": {"action": action, "acknowledge": acknowledge, "timeout": 30, "settle": 2},
    });
    let spec = ServiceSpec::parse("", Some("a"), document, &SpecDefaults::default()).unwrap();
    let config = spec.config.on(&serde_json::Map::new());
    Arc::new(ServiceRecord {
        spec,
        generation: 1,
        runs_since: 1,
        origin: Origin::Api,
        node: None,
        created_at: Timestamp::UNIX_EPOCH,
        deleting: false,
        config,
        config_revision: 2,
    })
}

/// A service with its replicas, and a clock that tests own.
struct World {
    record: Arc<ServiceRecord>,
    rollout: ConfigRollout,
    slots: Vec<Slot>,
    sights: BTreeMap<InstanceId, Sight>,
    now: Now,
}

impl World {
    /// All run, are ready and have revision 1, which is stable.
    fn new(action: &str, acknowledge: bool, replicas: u32) -> Self {
        let record = service(action, acknowledge);
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test's own clock")]
        let now = Now { mono: Instant::now(), wall: Timestamp::UNIX_EPOCH };
        let mut world = Self {
            record,
            rollout: ConfigRollout { stable: 1, ..ConfigRollout::default() },
            slots: Vec::new(),
            sights: BTreeMap::new(),
            now,
        };
        for replica in 0..replicas {
            let (name, runtime) = (ServiceName::new("a").unwrap(), RuntimeName::new("process").unwrap());
            world.slots.push(Slot::new(&name, replica, runtime, now));
            world.start(replica, 1);
        }
        world
    }

    fn start(&mut self, replica: u32, revision: u64) {
        let now = self.now;
        let slot = &mut self.slots[replica as usize];
        let salt = slot.record.restarts * 1000 + u64::from(replica) + 1;
        slot.record.restarts += 1;
        let id = InstanceId::coin(&slot.record.service.clone(), replica, salt);
        slot.record.id = Some(id.clone());
        slot.record.generation = 1;
        slot.give(revision, now);
        slot.enter(InstanceState::Running, Reason::new("Running", "running"), now);
        self.sights.insert(id, Sight { ready: true, ..Sight::default() });
    }

    fn id(&self, replica: u32) -> InstanceId {
        self.slots[replica as usize].record.id.clone().unwrap()
    }

    fn sight(&mut self, replica: u32) -> &mut Sight {
        let id = self.id(replica);
        self.sights.get_mut(&id).unwrap()
    }

    fn pass(&mut self, seconds: u64) {
        self.now.mono += Duration::from_secs(seconds);
        self.now.wall =
            self.now.wall.checked_add(jiff::SignedDuration::from_secs(seconds.try_into().unwrap())).unwrap();
    }

    /// Decides, takes in what became known, and answers the step.
    fn decide(&mut self) -> Decision {
        let slots: Vec<&Slot> = self.slots.iter().collect();
        let sights = self.sights.clone();
        let sight = |id: &InstanceId| sights.get(id).cloned().unwrap_or_default();
        for replica in well(&self.record, &self.rollout, &slots, self.now, &sight) {
            let slot = &mut self.slots[replica as usize];
            slot.config_well = slot.record.config_revision;
        }
        let slots: Vec<&Slot> = self.slots.iter().collect();
        let decision = decide(&self.record, &self.rollout, &slots, slots.len() as u32, self.now, &sight, &|_| true);
        match &decision.news {
            Some(ConfigNews::Stable(revision)) => {
                self.rollout = ConfigRollout { stable: *revision, ..ConfigRollout::default() };
            }
            Some(ConfigNews::Rejected(rejected)) => self.rollout.rejected = Some(rejected.clone()),
            None => {}
        }
        decision
    }

    /// Decides until there is a step, or nothing new.
    fn step(&mut self) -> Option<ConfigStep> {
        for _ in 0..5 {
            let decision = self.decide();
            if decision.step.is_some() || decision.news.is_none() {
                return decision.step;
            }
        }
        panic!("there is always something new");
    }

    fn given(&self) -> Vec<u64> {
        self.slots.iter().map(|slot| slot.record.config_revision).collect()
    }

    fn take(&mut self, step: &ConfigStep) {
        match step {
            ConfigStep::Deliver { replica, revision, .. } => {
                let now = self.now;
                self.slots[*replica as usize].give(*revision, now);
            }
            ConfigStep::Replace { replica } => {
                let target = target(&self.record, &self.rollout);
                self.start(*replica, target);
            }
            ConfigStep::Check { replica, .. } => {
                let at = self.now.wall;
                self.sight(*replica).checked_at = Some(at);
            }
        }
    }
}

#[test]
fn one_after_the_other_and_then_it_is_stable() {
    for action in ["none", "signal", "http", "restart"] {
        let mut world = World::new(action, false, 3);
        for replica in 0..3 {
            let step = world.step().expect(action);
            match (&step, action) {
                (ConfigStep::Replace { replica: of }, "restart") => assert_eq!(*of, replica),
                (ConfigStep::Deliver { replica: of, revision: 2, .. }, _) => assert_eq!(*of, replica),
                other => panic!("{other:?}"),
            }
            world.take(&step);
            assert_eq!(world.step(), None, "{action}: it is open how {replica} does");
            let due = world.decide().due.expect("it is looked at again");
            assert_eq!(due, world.now.mono + Duration::from_secs(2));
            world.pass(2);
        }
        assert_eq!(world.step(), None);
        assert_eq!((world.given(), world.rollout.stable), (vec![2, 2, 2], 2), "{action}");
    }
}

#[test]
fn who_must_acknowledge_is_waited_for_and_who_does_not_in_time_fails() {
    let mut world = World::new("signal", true, 2);
    let step = world.step().unwrap();
    world.take(&step);
    world.pass(10);
    assert_eq!(world.step(), None);
    world.sight(0).acknowledged = 2;
    let step = world.step().unwrap();
    assert!(matches!(step, ConfigStep::Deliver { replica: 1, revision: 2, .. }), "{step:?}");
    world.take(&step);
    world.pass(30);
    // It does not; both go back, one after the other.
    let step = world.step().unwrap();
    assert!(matches!(step, ConfigStep::Deliver { replica: 0, revision: 1, .. }), "{step:?}");
    let rejected = world.rollout.rejected.clone().unwrap();
    assert_eq!((rejected.revision, rejected.reason.as_str()), (2, "replica 1 has not acknowledged it within 30s"));
    world.take(&step);
    world.sight(0).acknowledged = 1;
    let step = world.step().unwrap();
    assert!(matches!(step, ConfigStep::Deliver { replica: 1, revision: 1, .. }), "{step:?}");
    world.take(&step);
    world.sight(1).acknowledged = 1;
    assert_eq!((world.step(), world.given()), (None, vec![1, 1]));
    // A newer one is tried.
    Arc::make_mut(&mut world.record).config_revision = 3;
    assert!(matches!(world.step(), Some(ConfigStep::Deliver { replica: 0, revision: 3, .. })));
}

#[test]
fn the_table_of_failures() {
    type Harm = fn(&mut World);
    let harms: [(&str, Harm); 5] = [
        ("replica 0 is unhealthy", |world| world.sight(0).health = Some(HealthStatus::Unhealthy)),
        ("replica 0: exited with code 1", |world| {
            let now = world.now;
            world.slots[0].enter(InstanceState::Backoff, Reason::new("BackOff", "exited with code 1"), now);
        }),
        ("replica 0: given up", |world| {
            let now = world.now;
            world.slots[0].enter(InstanceState::Failed, Reason::new("Failed", "given up"), now);
        }),
        ("replica 0 is not ready with it within 30s", |world| {
            world.sight(0).ready = false;
            world.pass(30);
        }),
        ("replica 0: no answer", |world| {
            world.slots[0].record.config_revision = 1;
            world.slots[0].config_failure = Some((2, "no answer".to_owned()));
        }),
    ];
    for (reason, harm) in harms {
        let mut world = World::new("signal", false, 3);
        let step = world.step().unwrap();
        world.take(&step);
        harm(&mut world);
        let decision = world.decide();
        let Some(ConfigNews::Rejected(rejected)) = decision.news else { panic!("{reason}: {decision:?}") };
        assert_eq!((rejected.revision, rejected.reason.as_str()), (2, reason));
        for _ in 0..10 {
            if let Some(step) = world.step() {
                assert!(!matches!(step, ConfigStep::Deliver { revision: 2, .. }), "{reason}: {step:?}");
                world.take(&step);
            }
            world.pass(3);
        }
        assert_eq!(world.given()[1..], [1, 1], "{reason}: nobody else was given it");
    }
}

#[test]
fn a_check_from_before_does_not_count() {
    let mut world = World::new("signal", false, 1);
    world.sight(0).health = Some(HealthStatus::Healthy);
    let at = world.now.wall;
    world.sight(0).checked_at = Some(at);
    world.pass(1);
    let step = world.step().unwrap();
    world.take(&step);
    assert_eq!(world.step(), None, "it settles first");
    world.pass(2);
    let check = world.step().unwrap();
    assert_eq!(check, ConfigStep::Check { replica: 0, id: world.id(0) });
    world.sight(0).failing = true;
    world.take(&check);
    assert_eq!((world.step(), world.rollout.stable), (None, 1), "it is not well while its last check failed");
    world.sight(0).failing = false;
    assert_eq!((world.step(), world.rollout.stable), (None, 2));
}

#[test]
fn what_nobody_saw_happen_is_done_again() {
    let mut world = World::new("signal", false, 2);
    let step = world.step().unwrap();
    world.take(&step);
    // Written down, and killed before it was done.
    world.slots[0].record.config_at = None;
    assert!(matches!(world.step(), Some(ConfigStep::Deliver { replica: 0, revision: 2, .. })));
    world.slots[0].config_busy = true;
    assert_eq!(world.step(), None, "it is on its way");
}

#[test]
fn without_anything_to_go_back_to_nobody_else_is_given_it() {
    let mut world = World::new("restart", false, 2);
    world.rollout = ConfigRollout::default();
    for slot in &mut world.slots {
        slot.record.config_revision = 0;
    }
    let step = world.step().unwrap();
    assert_eq!(step, ConfigStep::Replace { replica: 0 }, "one that was started without a file has none to look into");
    world.take(&step);
    world.sight(0).health = Some(HealthStatus::Unhealthy);
    for _ in 0..5 {
        assert_eq!(world.step(), None);
        world.pass(60);
    }
    assert_eq!(world.given(), [2, 0]);
    // It recovers: then it goes on.
    world.sight(0).health = None;
    world.slots[0].config_since = Some(world.now.mono);
    world.pass(2);
    assert_eq!(world.step(), Some(ConfigStep::Replace { replica: 1 }));
}

#[test]
fn one_that_is_replaced_anyway_or_waits_for_its_runtime_is_left_alone() {
    let mut world = World::new("signal", false, 1);
    Arc::make_mut(&mut world.record).runs_since = 2;
    assert_eq!(world.step(), None);
    let mut world = World::new("signal", false, 2);
    let now = world.now;
    world.slots[0].give(2, now);
    world.slots[0].same_id = true;
    world.slots[0].enter(InstanceState::Backoff, Reason::new("RuntimeUnavailable", "away"), now);
    assert_eq!(world.decide().news, None, "an engine that is away says nothing about a document");
}

#[test]
fn a_document_that_is_taken_away_goes_with_the_life_of_its_instance() {
    let mut world = World::new("restart", false, 2);
    Arc::make_mut(&mut world.record).config = None;
    let step = world.step().unwrap();
    assert_eq!(step, ConfigStep::Replace { replica: 0 });
    world.take(&step);
    assert_eq!(world.step(), Some(ConfigStep::Replace { replica: 1 }));
}

#[derive(Debug, Clone)]
enum Event {
    Decide,
    Pass(u64),
    Ack(u32),
    Sicken(u32),
    Heal(u32),
    Crash(u32),
    Restart(u32),
    Revise,
    /// coredinator is killed and started anew: what only the process knew is gone.
    Forget,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let replica = || 0..3_u32;
    let event = prop_oneof![
        6 => Just(Event::Decide),
        3 => (0..20_u64).prop_map(Event::Pass),
        2 => replica().prop_map(Event::Ack),
        1 => replica().prop_map(Event::Sicken),
        2 => replica().prop_map(Event::Heal),
        1 => replica().prop_map(Event::Crash),
        2 => replica().prop_map(Event::Restart),
        1 => Just(Event::Revise),
        1 => Just(Event::Forget),
    ];
    prop::collection::vec(event, 0..80)
}

proptest! {
    /// Whatever happens: no two instances are given a new document at the same time; one that was rejected is given to
    /// nobody any more; only what every instance was well with is stable. And in the end, when all is well, everybody has
    /// what is wanted.
    #[test]
    fn one_at_a_time_and_never_again_what_failed(
        action in prop::sample::select(vec!["none", "signal", "http", "restart"]),
        acknowledge in any::<bool>(),
        events in events(),
    ) {
        let mut world = World::new(action, acknowledge, 3);
        let open = |world: &World| {
            let target = target(&world.record, &world.rollout);
            let open = |slot: &&Slot| slot.record.config_revision == target && slot.config_well != target;
            world.slots.iter().filter(|slot| slot.record.state == InstanceState::Running).filter(open).count()
        };
        for event in events {
            match event {
                Event::Decide => {
                    let stable = world.rollout.stable;
                    let Decision { step, news, .. } = world.decide();
                    if let Some(ConfigNews::Stable(revision)) = news {
                        prop_assert!(revision > stable);
                        prop_assert!(world.slots.iter().all(|slot| slot.config_well == revision), "{:?}", world.given());
                    }
                    if let Some(step) = step {
                        // On the way back nobody waits for one that does not come to be well.
                        let candidate = target(&world.record, &world.rollout) != world.rollout.stable;
                        if candidate && !matches!(step, ConfigStep::Check { .. }) {
                            prop_assert_eq!(open(&world), 0, "{:?} while another is open", step);
                        }
                        if let ConfigStep::Deliver { revision, .. } = &step {
                            let rejected = world.rollout.rejected.as_ref().map(|rejected| rejected.revision);
                            prop_assert_ne!(Some(*revision), rejected);
                        }
                        world.take(&step);
                    }
                }
                Event::Pass(seconds) => world.pass(seconds),
                Event::Ack(replica) => {
                    let revision = world.slots[replica as usize].record.config_revision;
                    world.sight(replica).acknowledged = revision;
                }
                Event::Sicken(replica) => {
                    *world.sight(replica) = Sight { health: Some(HealthStatus::Unhealthy), ..Sight::default() };
                }
                Event::Heal(replica) => {
                    let acknowledged = world.sight(replica).acknowledged;
                    *world.sight(replica) = Sight { ready: true, acknowledged, ..Sight::default() };
                }
                Event::Crash(replica) => {
                    let now = world.now;
                    world.slots[replica as usize].enter(InstanceState::Backoff, Reason::new("BackOff", "exited"), now);
                }
                Event::Restart(replica) if world.slots[replica as usize].record.state == InstanceState::Backoff => {
                    let target = target(&world.record, &world.rollout);
                    world.start(replica, target);
                }
                Event::Restart(_) => {}
                Event::Revise => Arc::make_mut(&mut world.record).config_revision += 1,
                Event::Forget => {
                    let now = world.now;
                    for slot in &mut world.slots {
                        slot.config_well = 0;
                        slot.config_failure = None;
                        slot.config_since = Some(now.mono);
                    }
                }
            }
        }
        // From here on all goes well.
        for _ in 0..40 {
            for replica in 0..3 {
                let target = target(&world.record, &world.rollout);
                if world.slots[replica as usize].record.state != InstanceState::Running {
                    world.start(replica, target);
                }
                let revision = world.slots[replica as usize].record.config_revision;
                *world.sight(replica) = Sight { ready: true, acknowledged: revision, ..Sight::default() };
            }
            if let Some(step) = world.decide().step {
                world.take(&step);
            }
            world.pass(3);
        }
        let wanted = target(&world.record, &world.rollout);
        prop_assert_eq!(world.given(), vec![wanted; 3]);
        prop_assert_eq!(world.rollout.stable, wanted);
    }
}

#[test]
fn a_document_reads_as_json() {
    // The record as an older version wrote it has no word of documents.
    let old = json!({"stable": 3});
    let read: ConfigRollout = serde_json::from_value(old).unwrap();
    assert_eq!((read.stable, read.rejected), (3, None));
    let _: Value = serde_json::to_value(ConfigRollout::default()).unwrap();
}
