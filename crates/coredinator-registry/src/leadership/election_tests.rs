//! The election, by tables, and by many candidates in a world that goes wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use coredinator_core::{Clock, Epoch, Lease, LeaseOperation, Store, StoreError, Timestamp};
use futures_util::FutureExt;
use proptest::prelude::*;

use super::{
    LeaseTiming,
    election::{Ask, Election, Next, Turn},
    keeper::now,
};
use crate::store::MemoryStore;

const TIMING: LeaseTiming = LeaseTiming {
    lease: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

fn lease(holder: Option<&str>, epoch: u64, end: i64) -> Lease {
    let expires_at = Timestamp::from_second(end).unwrap();
    Lease { name: "leader".to_owned(), holder: holder.map(str::to_owned), epoch: Epoch(epoch), expires_at }
}

fn away() -> StoreError {
    StoreError::Unavailable { message: "away".to_owned(), source: None }
}

fn fenced() -> StoreError {
    StoreError::Fenced { lease: "leader".to_owned(), given: Epoch(1), current: Epoch(2) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A candidate that holds the lease since `start`, under epoch 4.
fn holding(start: Instant) -> Election {
    let mut election = Election::new("a", TIMING, false, Epoch::ZERO, start);
    let free = lease(None, 3, 0);
    assert_eq!(election.answered(&Ask::Inspect, start, Ok(free.clone()), start), None);
    let Next::Ask(ask @ Ask::Take(_), _) = election.next(start) else { panic!("a free lease is taken") };
    assert_eq!(election.answered(&ask, start, Ok(lease(Some("a"), 4, 15)), start), Some(Turn::Gained(Epoch(4))));
    election
}

fn asks(next: &Next) -> Option<&Ask> {
    match next {
        Next::Ask(ask, _) => Some(ask),
        Next::Wait(_) => None,
    }
}

#[test]
fn who_may_take_what_he_sees_and_when() {
    let start = now();
    for (seen, sole, after, takes) in [
        (lease(None, 3, 0), false, 0, true),
        (lease(Some("a"), 3, 99), false, 0, true),
        (lease(Some("b"), 3, 99), false, 0, false),
        // What the store's clock says of its end does not count.
        (lease(Some("b"), 3, 0), false, 14, false),
        (lease(Some("b"), 3, 99), false, 15, true),
        (lease(Some("b"), 3, 99), true, 0, true),
    ] {
        let mut election = Election::new("a", TIMING, sole, Epoch::ZERO, start);
        assert_eq!(asks(&election.next(start)), Some(&Ask::Inspect));
        election.answered(&Ask::Inspect, start, Ok(seen.clone()), start);
        let later = start + seconds(after);
        let taken = matches!(election.next(later), Next::Ask(Ask::Take(of), _) if of == seen);
        assert_eq!(taken, takes, "{seen:?} {sole} after {after} s");
    }
}

#[test]
fn a_holder_that_renews_is_left_alone_and_is_known_to_live() {
    let start = now();
    let mut election = Election::new("a", TIMING, false, Epoch::ZERO, start);
    for second in (0..60).step_by(2) {
        let at = start + seconds(second);
        let ask = asks(&election.next(at)).cloned();
        assert_eq!(ask, Some(Ask::Inspect), "at {second}");
        let end = i64::try_from(second).unwrap() + 15;
        election.answered(&Ask::Inspect, at, Ok(lease(Some("b"), 3, end)), at);
        assert_eq!(election.seen().unwrap().lives, second > 0);
    }
}

#[test]
fn a_renewal_counts_from_when_it_was_asked_for() {
    let start = now();
    let mut election = holding(start);
    assert_eq!(election.next(start), Next::Wait(Some(start + TIMING.retry)));
    let asked = start + seconds(2);
    assert_eq!(asks(&election.next(asked)), Some(&Ask::Renew(Epoch(4))));
    // The answer takes six seconds.
    election.answered(&Ask::Renew(Epoch(4)), asked, Ok(lease(Some("a"), 4, 30)), start + seconds(8));
    assert_eq!(election.held(), Some((Epoch(4), Some(asked + TIMING.renew_deadline))));
}

#[test]
fn who_cannot_renew_stops_in_time() {
    let start = now();
    let mut election = holding(start);
    for second in [2, 4, 6, 8] {
        let at = start + seconds(second);
        assert_eq!(asks(&election.next(at)), Some(&Ask::Renew(Epoch(4))), "at {second}");
        assert_eq!(election.answered(&Ask::Renew(Epoch(4)), at, Err(away()), at), None);
        assert_eq!(election.lapse(at), None);
    }
    let over = start + TIMING.renew_deadline;
    assert!(matches!(election.lapse(over), Some(Turn::Lost(_))));
    assert_eq!((election.held(), election.lapse(over)), (None, None));
    // It looks again at once, and takes its own lease back under a new epoch if nobody else did.
    assert_eq!(asks(&election.next(over)), Some(&Ask::Inspect));
    election.answered(&Ask::Inspect, over, Ok(lease(Some("a"), 4, 30)), over);
    assert!(matches!(asks(&election.next(over)), Some(Ask::Take(_))));
}

#[test]
fn who_is_refused_stops_at_once() {
    let start = now();
    for refusal in [fenced(), StoreError::LeaseHeld(lease(Some("b"), 5, 99))] {
        let mut election = holding(start);
        // A write was refused: the lease is asked for at once.
        assert_eq!(election.doubt(start), None);
        assert_eq!(asks(&election.next(start)), Some(&Ask::Renew(Epoch(4))));
        let turn = election.answered(&Ask::Renew(Epoch(4)), start, Err(refusal), start);
        assert!(matches!(turn, Some(Turn::Lost(_))), "{turn:?}");
        assert_eq!(election.held(), None);
    }
}

#[test]
fn an_answer_to_what_was_asked_in_another_life_changes_nothing() {
    let start = now();
    let mut election = holding(start);
    let over = start + TIMING.renew_deadline;
    assert!(election.lapse(over).is_some());
    assert_eq!(election.answered(&Ask::Renew(Epoch(4)), start, Ok(lease(Some("a"), 4, 99)), over), None);
    assert_eq!(election.held(), None);
}

#[test]
fn who_is_alone_keeps_it_without_asking_until_another_is_found_there() {
    let start = now();
    let mut election = Election::new("a", TIMING, true, Epoch(7), start);
    election.answered(&Ask::Inspect, start, Ok(lease(Some("b"), 3, 99)), start);
    let Next::Ask(ask, _) = election.next(start) else { panic!("it is taken at once") };
    election.answered(&ask, start, Ok(lease(Some("a"), 8, 99)), start);
    let later = start + seconds(100_000);
    assert_eq!((election.lapse(later), election.next(later)), (None, Next::Wait(None)));
    assert_eq!(election.held(), Some((Epoch(8), None)));
    assert!(matches!(election.doubt(later), Some(Turn::Lost(_))));
    assert_eq!(election.next(later), Next::Wait(None), "two do not fight over a store");
}

#[test]
fn who_retires_asks_for_nothing() {
    let start = now();
    let mut election = holding(start);
    assert_eq!(election.retire(), Some(Epoch(4)));
    assert_eq!((election.held(), election.next(start + seconds(99))), (None, Next::Wait(None)));
}

/// A clock that jumps.
#[derive(Debug, Default)]
struct Jumping(AtomicI64);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

/// A candidate, and what it waits for.
struct Candidate {
    name: String,
    election: Election,
    /// What was asked, when, and the answer that comes then.
    pending: Option<(Ask, Instant, Instant, Result<Lease, StoreError>)>,
    paused_until: Instant,
    cut_until: Instant,
}

struct World {
    store: MemoryStore,
    wall: Arc<Jumping>,
    random: fastrand::Rng,
    candidates: Vec<Candidate>,
    at: Instant,
    last_epoch: Epoch,
    /// Whose step was the last.
    last: usize,
}

impl World {
    fn new(seed: u64, candidates: usize) -> Self {
        let at = now();
        let wall = Arc::new(Jumping(AtomicI64::new(1_000_000_000)));
        let new = |number: usize| {
            let name = format!("c{number}");
            let election = Election::new(name.clone(), TIMING, false, Epoch::ZERO, at);
            Candidate { name, election, pending: None, paused_until: at, cut_until: at }
        };
        Self {
            store: MemoryStore::with(Arc::clone(&wall) as _, 10),
            wall,
            random: fastrand::Rng::with_seed(seed),
            candidates: (0..candidates).map(new).collect(),
            at,
            last_epoch: Epoch::ZERO,
            last: 0,
        }
    }

    fn holders(&self) -> Vec<(&str, Epoch)> {
        let holds = |candidate: &&Candidate| {
            candidate.election.held().is_some_and(|(_, until)| until.is_some_and(|until| self.at < until))
        };
        let of = self.candidates.iter().filter(holds);
        of.filter_map(|c| Some((c.name.as_str(), c.election.held()?.0))).collect()
    }

    /// One step of one candidate.
    fn step(&mut self, faulty: bool) {
        self.at += Duration::from_millis(self.random.u64(1..400));
        let passed = self.random.i64(0..400);
        let jump = if faulty && self.random.u8(..) < 4 { self.random.i64(-100_000..100_000) } else { 0 };
        self.wall.0.fetch_add(passed + jump, Ordering::Relaxed);
        // In the end everyone has its turn in time: who is passed over for ten seconds has lost the lease, and rightly.
        let of =
            if faulty { self.random.usize(..self.candidates.len()) } else { (self.last + 1) % self.candidates.len() };
        self.last = of;
        let (at, random) = (self.at, &mut self.random);
        let candidate = &mut self.candidates[of];
        if faulty && random.u8(..) < 5 {
            candidate.paused_until = at + Duration::from_millis(random.u64(..40_000));
        }
        if faulty && random.u8(..) < 5 {
            candidate.cut_until = at + Duration::from_millis(random.u64(..40_000));
        }
        if at < candidate.paused_until {
            return;
        }
        if let Some((ask, asked, comes, answer)) = candidate.pending.take() {
            if comes > at {
                candidate.pending = Some((ask, asked, comes, answer));
                return;
            }
            // What is late is not noticed any sooner, and then as what it is.
            candidate.election.lapse(at);
            let turn = candidate.election.answered(&ask, asked, answer, at);
            if let Some(Turn::Gained(epoch)) = turn {
                assert!(epoch > self.last_epoch, "epoch {epoch} after {}", self.last_epoch);
                self.last_epoch = epoch;
            }
            return;
        }
        candidate.election.lapse(at);
        let Next::Ask(ask, until) = candidate.election.next(at) else { return };
        let lost = at < candidate.cut_until;
        let unheard = lost || faulty && random.u8(..) < 10;
        let operation = match &ask {
            Ask::Inspect => LeaseOperation::Inspect,
            Ask::Take(seen) => LeaseOperation::Take {
                epoch: seen.epoch,
                expires_at: seen.expires_at,
                above: Epoch::ZERO,
                ttl: TIMING.lease,
            },
            Ask::Renew(epoch) => LeaseOperation::Renew { epoch: *epoch, ttl: TIMING.lease },
        };
        // What is cut off may still have reached the store.
        let done = !lost || random.bool();
        let answer = done.then(|| self.store.lease("leader", &candidate.name, operation).now_or_never().unwrap());
        let comes = at + Duration::from_millis(random.u64(..if faulty { 8_000 } else { 50 }));
        let (comes, answer) = match answer {
            Some(answer) if !unheard && comes <= until => (comes, answer),
            _ => (until, Err(away())),
        };
        candidate.pending = Some((ask, at, comes, answer));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_goes_wrong_there_are_never_two_and_in_the_end_one(seed: u64, candidates in 1usize..5) {
        let mut world = World::new(seed, candidates);
        for step in 0..1500 {
            world.step(true);
            prop_assert!(world.holders().len() <= 1, "seed {seed}, step {step}: {:?}", world.holders());
        }
        for step in 0..1500 {
            world.step(false);
            prop_assert!(world.holders().len() <= 1, "seed {seed}, step {step}: {:?}", world.holders());
        }
        prop_assert_eq!(world.holders().len(), 1, "seed {}", seed);
    }
}

#[test]
fn times_that_make_no_sense_are_refused_all_at_once() {
    assert_eq!(LeaseTiming::default().check(), []);
    for (timing, wrong) in [
        (LeaseTiming { renew_deadline: TIMING.lease, ..TIMING }, &["/renew_deadline"][..]),
        (LeaseTiming { retry: TIMING.renew_deadline, ..TIMING }, &["/retry"]),
        (LeaseTiming { lease: Duration::ZERO, ..TIMING }, &["/lease", "/renew_deadline"]),
        (LeaseTiming { retry: Duration::MAX, ..TIMING }, &["/retry", "/retry"]),
    ] {
        let found: Vec<String> = timing.check().into_iter().map(|error| error.pointer).collect();
        assert_eq!(found, wrong, "{timing:?}");
    }
}
