//! The health monitor on paused time: when it asks, what it makes of the answers, and that no target delays another.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{
    CheckTiming, Clock, FieldError, HealthProbe, HealthStatus, Outcome, ProbeError, ProbeReport, ProbeSpec,
    ProbeTarget, ServiceName, Timestamp,
};
use coredinator_registry::health::{
    CheckKey, CheckKind, CheckSpec, HISTORY, HealthMonitor, MonitorOptions, ProbeRegistry, Transition,
};
use serde_json::Map;
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};

/// What the fake answers on behalf of a service.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Say(Outcome),
    Hang,
    CannotAsk,
    Panic,
    /// Passes after that long.
    Slow(Duration),
}

/// A probe that answers as it was told to, and remembers when it was asked.
#[derive(Default)]
struct Fake {
    answers: Mutex<HashMap<ServiceName, Answer>>,
    asked: Mutex<HashMap<ServiceName, Vec<Instant>>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Fake {
    fn answer(&self, name: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(service(name), answer);
    }

    fn asked(&self, name: &str) -> Vec<Instant> {
        self.asked.lock().unwrap().get(&service(name)).cloned().unwrap_or_default()
    }
}

struct FakeProbe(Arc<Fake>);

struct InFlight<'a>(&'a Fake);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl HealthProbe for FakeProbe {
    fn kind(&self) -> String {
        "fake".to_owned()
    }

    fn validate(&self, _: &ProbeSpec) -> Vec<FieldError> {
        Vec::new()
    }

    async fn check(&self, target: &ProbeTarget) -> Result<ProbeReport, ProbeError> {
        let now = self.0.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let _in_flight = InFlight(&self.0);
        self.0.asked.lock().unwrap().entry(target.service.clone()).or_default().push(Instant::now());
        let answer = self.0.answers.lock().unwrap().get(&target.service).copied();
        match answer.unwrap_or(Answer::Say(Outcome::Pass)) {
            Answer::Say(outcome) => Ok(ProbeReport::new(outcome, "as told")),
            Answer::Hang => std::future::pending().await,
            Answer::CannotAsk => Err(ProbeError { message: "no file descriptors".to_owned() }),
            Answer::Panic => panic!("as told"),
            Answer::Slow(time) => {
                tokio::time::sleep(time).await;
                Ok(ProbeReport::pass("at last"))
            }
        }
    }
}

/// A clock that the test sets.
#[derive(Debug)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

struct World {
    fake: Arc<Fake>,
    clock: Arc<SetClock>,
    monitor: HealthMonitor,
    transitions: UnboundedReceiver<Transition>,
}

impl World {
    fn new(concurrency: usize) -> Self {
        let fake = Arc::new(Fake::default());
        let clock = Arc::new(SetClock(AtomicI64::new(1_000_000)));
        let probes = ProbeRegistry::empty().with(FakeProbe(Arc::clone(&fake)));
        let options = MonitorOptions { probes, clock: clock.clone(), concurrency, seed: 7 };
        let (monitor, transitions) = HealthMonitor::start(options);
        Self { fake, clock, monitor, transitions }
    }

    /// The changes told so far.
    fn changes(&mut self) -> Vec<(HealthStatus, HealthStatus)> {
        std::iter::from_fn(|| self.transitions.try_recv().ok()).map(|change| (change.from, change.to)).collect()
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn key(name: &str) -> CheckKey {
    CheckKey { service: service(name), replica: None, instance: None, kind: CheckKind::Health }
}

fn spec_of(name: &str, probe: ProbeSpec, timing: CheckTiming) -> CheckSpec {
    let target = ProbeTarget {
        service: service(name),
        instance: None,
        runtime: None,
        host: "h".to_owned(),
        port: 1,
        spec: Arc::new(probe),
    };
    CheckSpec { target, timing, age: Duration::MAX }
}

fn fake_spec(name: &str, timing: CheckTiming) -> CheckSpec {
    spec_of(name, ProbeSpec::Custom { kind: "fake".to_owned(), options: Map::new() }, timing)
}

/// Once a second, half a second for an answer, without jitter.
fn each_second() -> CheckTiming {
    CheckTiming {
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        jitter: 0.0,
        ..CheckTiming::default()
    }
}

/// Lets `seconds` of paused time go by, and what is due in them happen; ends between two seconds.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// To between two seconds, so that checks once a second never coincide with what the test looks at.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(700)).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_target_is_asked_at_once_and_then_once_an_interval() {
    let mut world = World::new(8);
    let start = Instant::now();
    let cell = world.monitor.add(key("a"), fake_spec("a", each_second()));
    assert_eq!(cell.status(), HealthStatus::Unknown);
    settle().await;
    assert_eq!(cell.status(), HealthStatus::Healthy);
    pass(5).await;
    let asked: Vec<_> = world.fake.asked("a").iter().map(|at| at.duration_since(start).as_millis()).collect();
    assert_eq!(asked.len(), 6);
    // The timer's grain is a millisecond.
    assert!(asked[0] <= 1 && asked.windows(2).all(|two| (1000..=1001).contains(&(two[1] - two[0]))), "{asked:?}");
    assert_eq!(world.changes(), [(HealthStatus::Unknown, HealthStatus::Healthy)]);
    let snapshot = cell.snapshot();
    assert_eq!((snapshot.checks, snapshot.failures, snapshot.message.as_str()), (6, 0, "as told"));
    assert_eq!(world.monitor.lateness().count, 6);
}

#[tokio::test(start_paused = true)]
async fn failures_degrade_then_make_unhealthy_then_it_recovers() {
    use HealthStatus::{Degraded, Healthy, Unhealthy, Unknown};
    let mut world = World::new(8);
    let timing = CheckTiming { success_threshold: 2, ..each_second() };
    let cell = world.monitor.add(key("a"), fake_spec("a", timing));
    settle().await;
    world.fake.answer("a", Answer::Say(Outcome::Fail));
    pass(1).await;
    assert_eq!(cell.status(), Degraded);
    pass(2).await;
    assert_eq!((cell.status(), cell.snapshot().consecutive_failures), (Unhealthy, 3));
    world.fake.answer("a", Answer::Say(Outcome::Pass));
    pass(1).await;
    assert_eq!(cell.status(), Unhealthy);
    pass(1).await;
    assert_eq!(world.changes(), [(Unknown, Healthy), (Healthy, Degraded), (Degraded, Unhealthy), (Unhealthy, Healthy)]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_failure_and_what_was_begun_is_dropped() {
    let world = World::new(8);
    let cell = world.monitor.add(key("a"), fake_spec("a", each_second()));
    settle().await;
    world.fake.answer("a", Answer::Hang);
    pass(3).await;
    assert_eq!((world.fake.asked("a").len(), world.fake.in_flight.load(Ordering::SeqCst)), (4, 0));
    let snapshot = cell.snapshot();
    assert_eq!(snapshot.status, HealthStatus::Unhealthy);
    assert_eq!((snapshot.message.as_str(), snapshot.response_time), ("no answer within 500ms", None));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_no_verdict() {
    let mut world = World::new(8);
    let cell = world.monitor.add(key("a"), fake_spec("a", each_second()));
    settle().await;
    for (answer, message) in [(Answer::CannotAsk, "no file descriptors"), (Answer::Panic, "the probe panicked")] {
        world.fake.answer("a", answer);
        pass(5).await;
        assert_eq!((cell.status(), cell.snapshot().message.as_str()), (HealthStatus::Healthy, message));
    }
    assert!(cell.history().iter().any(|result| result.outcome.is_none()));
    assert_eq!(world.changes().len(), 1);
    let alien = spec_of("b", ProbeSpec::Tcp, each_second());
    let cell = world.monitor.add(key("b"), alien);
    pass(1).await;
    assert_eq!(cell.snapshot().message, "there is no probe of kind \"tcp\"");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_hung_targets_do_not_delay_one_that_answers() {
    let world = World::new(64);
    let timing = CheckTiming { timeout: Duration::from_secs(30), ..each_second() };
    let cell = world.monitor.add(key("good"), fake_spec("good", each_second()));
    for n in 0..1000 {
        let name = format!("hung-{n}");
        world.fake.answer(&name, Answer::Hang);
        world.monitor.add(key(&name), fake_spec(&name, timing));
    }
    settle().await;
    pass(60).await;
    let asked = world.fake.asked("good");
    assert_eq!(asked.len(), 61);
    assert!(asked.windows(2).all(|two| two[1] - two[0] <= Duration::from_millis(1001)), "{asked:?}");
    assert_eq!(cell.status(), HealthStatus::Healthy);
    // The hung ones have half of the slots, and all of those.
    assert_eq!(world.fake.most_in_flight.load(Ordering::SeqCst), 33);
    let hung: usize = (0..1000).map(|n| world.fake.asked(&format!("hung-{n}")).len()).sum();
    assert!(hung >= 64, "{hung}");
}

#[tokio::test(start_paused = true)]
async fn a_check_longer_than_its_interval_is_never_in_flight_twice() {
    let world = World::new(8);
    world.fake.answer("a", Answer::Slow(Duration::from_millis(2500)));
    let timing = CheckTiming { timeout: Duration::from_secs(3), ..each_second() };
    let cell = world.monitor.add(key("a"), fake_spec("a", timing));
    settle().await;
    pass(10).await;
    assert_eq!(world.fake.most_in_flight.load(Ordering::SeqCst), 1);
    assert_eq!((world.fake.asked("a").len(), cell.status()), (5, HealthStatus::Healthy));
    assert!(cell.snapshot().response_time >= Some(Duration::from_millis(2500)));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_new_targets_do_not_fire_at_one_instant() {
    let world = World::new(4096);
    let start = Instant::now();
    let timing = CheckTiming { jitter: 0.1, ..each_second() };
    let names: Vec<_> = (0..1000).map(|n| format!("t-{n}")).collect();
    for name in &names {
        world.monitor.add(key(name), fake_spec(name, timing));
    }
    pass(10).await;
    let mut per_instant = HashMap::new();
    for name in &names {
        let asked = world.fake.asked(name);
        assert!(asked[0] - start <= Duration::from_millis(110));
        assert!(asked.len() >= 9);
        for two in asked.windows(2) {
            let gap = two[1] - two[0];
            assert!((Duration::from_millis(950)..=Duration::from_millis(1052)).contains(&gap), "{gap:?}");
        }
        asked.iter().for_each(|at| *per_instant.entry(*at).or_insert(0) += 1);
    }
    let most = per_instant.values().copied().max().unwrap();
    assert!(most <= 100, "{most} at one instant");
}

#[tokio::test(start_paused = true)]
async fn a_slow_starter_is_found_soon_after_it_is_up_and_keeps_its_retries() {
    let mut world = World::new(8);
    let timing = CheckTiming { interval: Duration::from_secs(30), retries: 1, ..each_second() };
    world.fake.answer("a", Answer::Say(Outcome::Fail));
    let cell = world.monitor.add(key("a"), CheckSpec { age: Duration::ZERO, ..fake_spec("a", timing) });
    tokio::time::sleep(Duration::from_millis(155)).await;
    assert_eq!(world.fake.asked("a").len(), 5, "at 0, 10, 30, 70 and 150 ms");
    pass(10).await;
    assert_eq!(cell.status(), HealthStatus::Unknown);
    world.fake.answer("a", Answer::Say(Outcome::Pass));
    pass(2).await;
    assert_eq!(world.changes(), [(HealthStatus::Unknown, HealthStatus::Healthy)]);
}

#[tokio::test(start_paused = true)]
async fn the_start_period_suspends_verdicts() {
    let mut world = World::new(8);
    let timing = CheckTiming { retries: 1, start_period: Duration::from_secs(10), ..each_second() };
    for name in ["fresh", "adopted"] {
        world.fake.answer(name, Answer::Say(Outcome::Fail));
    }
    world.monitor.add(key("fresh"), CheckSpec { age: Duration::ZERO, ..fake_spec("fresh", timing) });
    pass(9).await;
    assert_eq!(world.changes(), []);
    pass(3).await;
    assert_eq!(world.changes(), [(HealthStatus::Unknown, HealthStatus::Unhealthy)]);
    world.monitor.add(key("adopted"), CheckSpec { age: Duration::from_secs(11), ..fake_spec("adopted", timing) });
    settle().await;
    assert_eq!(world.changes(), [(HealthStatus::Unknown, HealthStatus::Unhealthy)]);
}

#[tokio::test(start_paused = true)]
async fn removed_while_in_flight() {
    let mut world = World::new(2);
    for name in ["a", "b"] {
        world.fake.answer(name, Answer::Hang);
    }
    let timing = CheckTiming { timeout: Duration::from_secs(1000), ..each_second() };
    world.monitor.add(key("a"), fake_spec("a", timing));
    pass(1).await;
    assert_eq!(world.fake.in_flight.load(Ordering::SeqCst), 1);
    // The one slot for doubtful targets is taken.
    world.monitor.add(key("b"), fake_spec("b", timing));
    pass(1).await;
    assert_eq!(world.fake.asked("b").len(), 0);
    let monitor = world.monitor.clone();
    let asking = tokio::spawn(async move { monitor.check_now(&key("a")).await });
    pass(1).await;
    world.monitor.remove(&key("a"));
    assert_eq!(asking.await.unwrap(), None);
    pass(1).await;
    assert_eq!((world.fake.asked("a").len(), world.fake.asked("b").len()), (1, 1));
    world.monitor.remove(&key("b"));
    world.monitor.remove(&key("b"));
    pass(1).await;
    assert_eq!(world.fake.in_flight.load(Ordering::SeqCst), 0);
    assert_eq!(world.changes(), []);
}

#[tokio::test(start_paused = true)]
async fn an_equal_spec_goes_on_and_another_starts_anew() {
    let world = World::new(8);
    let cell = world.monitor.add(key("a"), fake_spec("a", each_second()));
    settle().await;
    let same = world.monitor.add(key("a"), CheckSpec { age: Duration::ZERO, ..fake_spec("a", each_second()) });
    assert!(Arc::ptr_eq(&cell, &same));
    let timing = CheckTiming { interval: Duration::from_secs(5), ..each_second() };
    let other = world.monitor.add(key("a"), fake_spec("a", timing));
    assert_eq!(other.status(), HealthStatus::Unknown);
    pass(11).await;
    assert_eq!((cell.snapshot().checks, other.snapshot().checks), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn check_now_asks_now_and_joins_what_is_in_flight() {
    let world = World::new(2);
    let timing = CheckTiming { interval: Duration::from_secs(3600), ..each_second() };
    let cell = world.monitor.add(key("a"), fake_spec("a", timing));
    settle().await;
    world.fake.answer("a", Answer::Slow(Duration::from_millis(100)));
    let here = key("a");
    let (one, two) = tokio::join!(world.monitor.check_now(&here), world.monitor.check_now(&here));
    assert_eq!((world.fake.asked("a").len(), &one), (2, &two));
    assert_eq!(one.map(|snapshot| snapshot.checks), Some(2));
    pass(1).await;
    assert_eq!(world.fake.asked("a").len(), 2);
    assert_eq!(world.monitor.check_now(&key("nobody")).await, None);
    world.fake.answer("a", Answer::Say(Outcome::Fail));
    for expected in [HealthStatus::Degraded, HealthStatus::Degraded, HealthStatus::Unhealthy] {
        assert_eq!(world.monitor.check_now(&here).await.map(|snapshot| snapshot.status), Some(expected));
    }
    assert_eq!(cell.history().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn heartbeats() {
    use HealthStatus::{Degraded, Healthy, Unhealthy, Unknown};
    let mut world = World::new(8);
    let ttl = Duration::from_secs(2);
    let spec = || spec_of("a", ProbeSpec::Heartbeat { ttl }, CheckTiming { retries: 2, ..each_second() });
    let cell = world.monitor.add(key("a"), CheckSpec { age: Duration::ZERO, ..spec() });
    pass(1).await;
    assert_eq!(cell.snapshot().last_check, None);
    for _ in 0..4 {
        assert!(world.monitor.heartbeat(&key("a"), &ProbeReport::pass("alive")));
        pass(1).await;
        assert_eq!((cell.status(), cell.snapshot().message.as_str()), (Healthy, "alive"));
    }
    pass(2).await;
    assert_eq!((cell.status(), cell.snapshot().message.as_str()), (Degraded, "no heartbeat for 2s"));
    pass(2).await;
    assert_eq!(cell.status(), Unhealthy);
    assert!(world.monitor.heartbeat(&key("a"), &ProbeReport::warn("hot")));
    assert_eq!(cell.status(), Degraded);
    assert_eq!(world.monitor.check_now(&key("a")).await, Some(cell.snapshot()));
    assert_eq!(
        world.changes(),
        [(Unknown, Healthy), (Healthy, Degraded), (Degraded, Unhealthy), (Unhealthy, Degraded)]
    );
    assert!(!world.monitor.heartbeat(&key("nobody"), &ProbeReport::pass("")));
    world.monitor.add(key("asked"), fake_spec("asked", each_second()));
    assert!(!world.monitor.heartbeat(&key("asked"), &ProbeReport::pass("")));
    assert!(world.fake.asked("a").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_tells_of_failure_before_any_other_counts_at_once() {
    let world = World::new(8);
    let probe = ProbeSpec::Heartbeat { ttl: Duration::from_secs(600) };
    let spec = spec_of("a", probe, CheckTiming { retries: 1, ..each_second() });
    let cell = world.monitor.add(key("a"), CheckSpec { age: Duration::ZERO, ..spec });
    assert!(world.monitor.heartbeat(&key("a"), &ProbeReport::new(Outcome::Fail, "no sensor")));
    assert_eq!((cell.status(), cell.snapshot().message.as_str()), (HealthStatus::Unhealthy, "no sensor"));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_back_changes_only_stamps() {
    let world = World::new(8);
    let cell = world.monitor.add(key("a"), fake_spec("a", each_second()));
    settle().await;
    world.clock.0.store(5, Ordering::SeqCst);
    pass(10).await;
    let snapshot = cell.snapshot();
    assert_eq!((snapshot.checks, snapshot.status), (11, HealthStatus::Healthy));
    assert_eq!(snapshot.last_check, Some(Timestamp::from_second(5).unwrap()));
    assert_eq!(snapshot.since, Some(Timestamp::from_second(1_000_000).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn the_last_results_are_kept() {
    let world = World::new(8);
    let cell = world.monitor.add(key("a"), fake_spec("a", each_second()));
    pass(100).await;
    assert_eq!(cell.history().len(), HISTORY);
}

#[tokio::test(start_paused = true)]
async fn ends_with_its_last_handle() {
    let mut world = World::new(8);
    world.fake.answer("hung", Answer::Hang);
    let timing = CheckTiming { timeout: Duration::from_secs(1000), ..each_second() };
    world.monitor.add(key("hung"), fake_spec("hung", timing));
    world.monitor.add(key("a"), fake_spec("a", each_second()));
    let second = world.monitor.clone();
    drop(world.monitor);
    pass(5).await;
    let before = world.fake.asked("a").len();
    assert!(before >= 5);
    drop(second);
    pass(5).await;
    assert_eq!(world.fake.asked("a").len(), before);
    assert_eq!(world.fake.in_flight.load(Ordering::SeqCst), 0);
    while world.transitions.recv().await.is_some() {}
}
