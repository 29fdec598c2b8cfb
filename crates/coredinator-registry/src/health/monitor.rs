//! The one scheduler of all checks.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{
    CheckTiming, HealthProbe, HealthStatus, Outcome, ProbeError, ProbeReport, ProbeSpec, ProbeTarget, SharedClock,
};
use futures_util::FutureExt;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::AbortHandle,
    time::Instant,
};

use super::{
    CheckCell, CheckKey, CheckSnapshot, CheckSpec, Hysteresis, LatenessStats, ProbeRegistry, Transition,
    agenda::{Agenda, Lane},
    cadence::Cadence,
    lateness::Lateness,
};

/// What a monitor is made of.
#[derive(Debug, Clone)]
pub struct MonitorOptions {
    /// The probes, by kind.
    pub probes: ProbeRegistry,
    /// Stamps results; scheduling does not use it.
    pub clock: SharedClock,
    /// How many checks run at a time, at least 2. Half of them are kept from targets that did not answer their last
    /// check in time, so that those cannot delay the others.
    pub concurrency: usize,
    /// The seed of the random numbers that spread checks.
    pub seed: u64,
}

impl MonitorOptions {
    /// 4,096 checks at a time, and a random seed.
    #[must_use]
    pub fn new(probes: ProbeRegistry, clock: SharedClock) -> Self {
        Self { probes, clock, concurrency: 4096, seed: fastrand::u64(..) }
    }
}

/// Checks everything that was [added](Self::add), each at its own pace, and tells what changes. Cheap to clone.
///
/// One task schedules all checks; each check that is due runs as a short task of its own, so that one which hangs, burns
/// CPU or panics is no other's concern. A target has at most one check in flight. What begins with one check ends with
/// it: at its timeout it is dropped, and counts as failed.
#[derive(Clone)]
pub struct HealthMonitor(Arc<Owner>);

/// Held by the handles alone: the last one to go stops the scheduler.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.table().close();
        self.0.wake.notify_one();
    }
}

impl std::fmt::Debug for HealthMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthMonitor").field("checks", &self.0.0.table().checks.len()).finish_non_exhaustive()
    }
}

struct Shared {
    probes: ProbeRegistry,
    clock: SharedClock,
    transitions: mpsc::UnboundedSender<Transition>,
    /// Wakes the scheduler: something is due earlier than it knew, a slot became free, or it is over.
    wake: Notify,
    table: Mutex<Table>,
}

struct Table {
    closed: bool,
    next_id: u64,
    ids: HashMap<CheckKey, u64>,
    checks: HashMap<u64, Check>,
    agenda: Agenda,
    cadence: Cadence,
    lateness: Lateness,
    /// Until when the scheduler sleeps; `None`: until it is woken.
    sleeps_until: Option<Instant>,
}

struct Check {
    key: CheckKey,
    target: Arc<ProbeTarget>,
    timing: CheckTiming,
    method: Method,
    hysteresis: Hysteresis,
    cell: Arc<CheckCell>,
    lane: Lane,
    phase: Phase,
    added: Instant,
    /// The instance's age when the check was added.
    age: Duration,
    /// Who asked to be told how the check in flight ends.
    waiters: Vec<oneshot::Sender<CheckSnapshot>>,
}

#[derive(Clone)]
enum Method {
    /// Asked through a probe; `None`: there is none of that kind.
    Probe(Option<Arc<dyn HealthProbe>>),
    /// Told by the service itself.
    Heartbeat,
}

enum Phase {
    /// On the agenda for that time.
    Waiting(Instant),
    /// In flight since then, in this lane's slot.
    Running { since: Instant, lane: Lane, task: Option<AbortHandle> },
}

/// How a check ended.
enum End {
    Report(ProbeReport, Duration),
    TimedOut,
    NotAsked(ProbeError),
}

impl HealthMonitor {
    /// Starts the scheduler on the current tokio runtime; it ends, and gives up what is in flight, when the last handle
    /// is dropped. The receiver gets every change of a status, in order per check.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(options: MonitorOptions) -> (Self, mpsc::UnboundedReceiver<Transition>) {
        let (transitions, receiver) = mpsc::unbounded_channel();
        let table = Table {
            closed: false,
            next_id: 0,
            ids: HashMap::new(),
            checks: HashMap::new(),
            agenda: Agenda::new(options.concurrency),
            cadence: Cadence::new(options.seed),
            lateness: Lateness::default(),
            sleeps_until: None,
        };
        let shared = Arc::new(Shared {
            probes: options.probes,
            clock: options.clock,
            transitions,
            wake: Notify::new(),
            table: Mutex::new(table),
        });
        tokio::spawn(Arc::clone(&shared).run());
        (Self(Arc::new(Owner(shared))), receiver)
    }

    /// Adds a check and answers the cell in which its results appear. The first check is made at once (slightly spread
    /// if many are added at a time).
    ///
    /// A check that is there already with the same target and timing goes on as it is; one with other terms is given up,
    /// and the new one starts from nothing, in a new cell.
    pub fn add(&self, key: CheckKey, spec: CheckSpec) -> Arc<CheckCell> {
        self.add_recalled(key, spec, &CheckSnapshot::default())
    }

    /// The same of a check that was made elsewhere before, and goes on from what it said there.
    pub fn add_recalled(&self, key: CheckKey, spec: CheckSpec, recalled: &CheckSnapshot) -> Arc<CheckCell> {
        let shared = &self.0.0;
        let now = Instant::now();
        let mut table = shared.table();
        let (method, timing) = match &*spec.target.spec {
            // Its ttl is its pace: silence for that long is a failure, and of those one a ttl counts.
            ProbeSpec::Heartbeat { ttl } => {
                (Method::Heartbeat, CheckTiming { interval: *ttl, start_interval: *ttl, jitter: 0.0, ..spec.timing })
            }
            other => (Method::Probe(shared.probes.get(other.kind())), spec.timing),
        };
        if let Some(check) = table.ids.get(&key).and_then(|id| table.checks.get(id)) {
            if *check.target == spec.target && check.timing == timing {
                return Arc::clone(&check.cell);
            }
            table.remove(&key);
        }
        let id = table.next_id;
        table.next_id += 1;
        let due = match method {
            Method::Heartbeat => now + timing.interval,
            Method::Probe(_) => table.cadence.first_run(now),
        };
        let cell = Arc::new(CheckCell::recalled(recalled));
        let check = Check {
            key: key.clone(),
            target: Arc::new(spec.target),
            timing,
            method,
            hysteresis: Hysteresis::recalled(recalled.status),
            cell: Arc::clone(&cell),
            lane: Lane::Doubtful,
            phase: Phase::Waiting(due),
            added: now,
            age: spec.age,
            waiters: Vec::new(),
        };
        table.ids.insert(key, id);
        table.checks.insert(id, check);
        table.agenda.schedule(id, due);
        shared.wake_for(&table, due);
        cell
    }

    /// Ends a check; one in flight is given up. Nothing happens if there is none.
    pub fn remove(&self, key: &CheckKey) {
        let shared = &self.0.0;
        let mut table = shared.table();
        table.remove(key);
        if table.agenda.is_waiting() {
            shared.wake.notify_one();
        }
    }

    /// Checks now and answers what the check says thereafter; joins a check that is in flight already. It counts as any
    /// other. Of a heartbeat check, which cannot be asked, it answers what it says.
    ///
    /// `None`: there is no such check, or it was removed meanwhile.
    pub async fn check_now(&self, key: &CheckKey) -> Option<CheckSnapshot> {
        let told = {
            let shared = &self.0.0;
            let mut table = shared.table();
            let table = &mut *table;
            let id = *table.ids.get(key)?;
            let check = table.checks.get_mut(&id)?;
            if matches!(check.method, Method::Heartbeat) {
                return Some(check.cell.snapshot());
            }
            let (tell, told) = oneshot::channel();
            check.waiters.push(tell);
            if let Phase::Waiting(due) = check.phase {
                // Somebody waits for it: it does not queue for a slot.
                table.agenda.cancel(id, due);
                table.agenda.started(check.lane);
                shared.start(id, check, check.lane, Instant::now());
            }
            told
        };
        told.await.ok()
    }

    /// Takes in what a service says of itself, and starts its ttl anew. `false`: there is no such heartbeat check.
    pub fn heartbeat(&self, key: &CheckKey, report: &ProbeReport) -> bool {
        let shared = &self.0.0;
        let now = Instant::now();
        let mut table = shared.table();
        let table = &mut *table;
        let Some((id, check)) = table.ids.get(key).and_then(|id| Some((*id, table.checks.get_mut(id)?))) else {
            return false;
        };
        let (Method::Heartbeat, Phase::Waiting(due)) = (&check.method, &check.phase) else { return false };
        table.agenda.cancel(id, *due);
        let change = check.hysteresis.hear(&check.timing, report.outcome, check.age_at(now));
        check.record(shared, change, Some(report.outcome), None, &report.message);
        let due = now + check.timing.interval;
        check.phase = Phase::Waiting(due);
        table.agenda.schedule(id, due);
        // The scheduler wakes for the old time, finds nothing, and sleeps on.
        true
    }

    /// How late checks have started so far, or since [`take_lateness`](Self::take_lateness).
    #[must_use]
    pub fn lateness(&self) -> LatenessStats {
        self.0.0.table().lateness.stats()
    }

    /// The same, and starts counting anew.
    pub fn take_lateness(&self) -> LatenessStats {
        std::mem::take(&mut self.0.0.table().lateness).stats()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the scheduler if it would sleep past `due`.
    fn wake_for(&self, table: &Table, due: Instant) {
        if table.sleeps_until.is_none_or(|until| due < until) {
            self.wake.notify_one();
        }
    }

    async fn run(self: Arc<Self>) {
        loop {
            let Some(until) = self.start_due() else { return };
            match until {
                Some(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = self.wake.notified() => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// Starts what is due and answers until when to sleep; `None`: it is over.
    fn start_due(self: &Arc<Self>) -> Option<Option<Instant>> {
        let now = Instant::now();
        let mut table = self.table();
        let table = &mut *table;
        if table.closed {
            return None;
        }
        let lanes = |checks: &HashMap<u64, Check>, id| checks.get(&id).map_or(Lane::Doubtful, |check| check.lane);
        while let Some((id, due, lane)) = table.agenda.next(now, |id| lanes(&table.checks, id)) {
            let Some(check) = table.checks.get_mut(&id) else {
                table.agenda.ended(lane);
                continue;
            };
            match check.method {
                Method::Probe(_) => {
                    table.lateness.record(now.saturating_duration_since(due));
                    self.start(id, check, lane, now);
                }
                Method::Heartbeat => {
                    table.agenda.ended(lane);
                    let silence = format!("no heartbeat for {:?}", check.timing.interval);
                    check.conclude(self, Some(Outcome::Fail), None, &silence, now);
                    let next = now + check.timing.interval;
                    check.phase = Phase::Waiting(next);
                    table.agenda.schedule(id, next);
                }
            }
        }
        table.sleeps_until = table.agenda.next_due();
        Some(table.sleeps_until)
    }

    /// Sends a check on its way.
    fn start(self: &Arc<Self>, id: u64, check: &mut Check, lane: Lane, now: Instant) {
        let Method::Probe(probe) = check.method.clone() else { return };
        let (shared, target, timeout) = (Arc::clone(self), Arc::clone(&check.target), check.timing.timeout);
        let task = tokio::spawn(async move {
            let end = ask(probe, &target, timeout).await;
            shared.ended(id, end);
        });
        check.phase = Phase::Running { since: now, lane, task: Some(task.abort_handle()) };
    }

    /// Takes in how a check ended, and puts the next one down.
    fn ended(&self, id: u64, end: End) {
        let mut table = self.table();
        let table = &mut *table;
        // A check that was removed meanwhile is nobody's any more.
        let Some(check) = table.checks.get_mut(&id) else { return };
        let Phase::Running { since, lane, .. } = check.phase else { return };
        table.agenda.ended(lane);
        let (outcome, time, message) = match end {
            End::Report(report, time) => (Some(report.outcome), Some(time), report.message),
            End::TimedOut => (Some(Outcome::Fail), None, format!("no answer within {:?}", check.timing.timeout)),
            End::NotAsked(error) => (None, None, error.message),
        };
        check.lane = if time.is_some() { Lane::Prompt } else { Lane::Doubtful };
        check.conclude(self, outcome, time, &message, since);
        let pause = table.cadence.jittered(check.hysteresis.pause(&check.timing), check.timing.jitter);
        let due = (since + pause).max(Instant::now());
        check.phase = Phase::Waiting(due);
        table.agenda.schedule(id, due);
        if table.agenda.is_waiting() {
            self.wake.notify_one();
        } else {
            self.wake_for(table, due);
        }
    }
}

impl Table {
    fn remove(&mut self, key: &CheckKey) {
        let Some((id, check)) = self.ids.remove(key).and_then(|id| Some((id, self.checks.remove(&id)?))) else {
            return;
        };
        match check.phase {
            Phase::Waiting(due) => self.agenda.cancel(id, due),
            Phase::Running { lane, task, .. } => {
                self.agenda.ended(lane);
                task.iter().for_each(AbortHandle::abort);
            }
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.ids.clear();
        for (_, check) in self.checks.drain() {
            if let Phase::Running { task: Some(task), .. } = check.phase {
                task.abort();
            }
        }
    }
}

impl Check {
    /// Takes in an answer to what was asked at `asked`, and tells everybody.
    fn conclude(
        &mut self,
        shared: &Shared,
        outcome: Option<Outcome>,
        response_time: Option<Duration>,
        message: &str,
        asked: Instant,
    ) {
        let change = self.hysteresis.observe(&self.timing, outcome, self.age_at(asked));
        self.record(shared, change, outcome, response_time, message);
    }

    /// How old what is checked was at `then`.
    fn age_at(&self, then: Instant) -> Duration {
        self.age.saturating_add(then.saturating_duration_since(self.added))
    }

    /// Writes down what was found and what became of it, and tells those who wait for it.
    fn record(
        &mut self,
        shared: &Shared,
        change: Option<(HealthStatus, HealthStatus)>,
        outcome: Option<Outcome>,
        response_time: Option<Duration>,
        message: &str,
    ) {
        let at = shared.clock.now();
        self.cell.record(self.hysteresis.status(), at, outcome, response_time, message);
        if let Some((from, to)) = change {
            let transition = Transition { key: self.key.clone(), from, to, at, message: message.to_owned() };
            // Nobody listens when the receiver is gone; the cells tell the truth all the same.
            let _ = shared.transitions.send(transition);
        }
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(self.cell.snapshot());
        }
    }
}

/// Asks once, within the time limit; a probe that panics could not ask.
async fn ask(probe: Option<Arc<dyn HealthProbe>>, target: &ProbeTarget, timeout: Duration) -> End {
    let Some(probe) = probe else {
        return End::NotAsked(ProbeError { message: format!("there is no probe of kind {:?}", target.spec.kind()) });
    };
    let started = Instant::now();
    let check = AssertUnwindSafe(probe.check(target)).catch_unwind();
    match tokio::time::timeout(timeout, check).await {
        Ok(Ok(Ok(report))) => End::Report(report, started.elapsed()),
        Ok(Ok(Err(error))) => End::NotAsked(error),
        Ok(Err(_)) => End::NotAsked(ProbeError { message: "the probe panicked".to_owned() }),
        Err(_) => End::TimedOut,
    }
}
