//! Leases, epochs and fenced writes.

use std::time::Duration;

use super::{PATIENCE, Subject, contents, key, pairs, put, write};
use crate::{Batch, Epoch, Lease, LeaseOperation, Precondition, Store, StoreError};

/// Longer than any case.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(20);

async fn acquire(store: &dyn Store, name: &str, holder: &str, ttl: Duration) -> Lease {
    let lease = store.lease(name, holder, LeaseOperation::Acquire { ttl }).await;
    let lease = lease.unwrap_or_else(|error| panic!("{holder} acquires {name}, but: {error}"));
    assert_eq!((lease.name.as_str(), lease.holder.as_deref()), (name, Some(holder)));
    lease
}

/// Acquires as soon as whoever holds it lets go or lets it expire.
async fn acquire_in_the_end(store: &dyn Store, name: &str, holder: &str) -> Lease {
    let trying = async {
        loop {
            match store.lease(name, holder, LeaseOperation::Acquire { ttl: LONG }).await {
                Ok(lease) => return lease,
                Err(StoreError::LeaseHeld(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(other) => panic!("acquiring failed with {other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.expect("a lease with a short time to live expires")
}

fn assert_fenced(answer: Result<Lease, StoreError>, given: Epoch, current: Epoch) {
    match answer {
        Err(StoreError::Fenced { given: g, current: c, .. }) => assert_eq!((g, c), (given, current)),
        other => panic!("epoch {given} is refused as fenced, but the store answered {other:?}"),
    }
}

pub(super) async fn a_free_lease_is_acquired(subject: Subject) {
    let store = subject.store();
    let lease = acquire(&*store, "leader", "a", LONG).await;
    assert!(lease.epoch > Epoch::ZERO, "epoch 0 is held by nobody");
    assert_eq!(store.list("").await.expect("listing succeeds").records, [], "a lease is no record");
}

pub(super) async fn a_held_lease_is_refused_to_others(subject: Subject) {
    let store = subject.store();
    let held = acquire(&*store, "leader", "a", LONG).await;
    match store.lease("leader", "b", LeaseOperation::Acquire { ttl: LONG }).await {
        Err(StoreError::LeaseHeld(lease)) => assert_eq!(lease, held, "the error tells the lease as it stands"),
        other => panic!("a held lease is refused, but the store answered {other:?}"),
    }
    for operation in
        [LeaseOperation::Renew { epoch: held.epoch, ttl: LONG }, LeaseOperation::Release { epoch: held.epoch }]
    {
        let answer = store.lease("leader", "b", operation).await;
        assert!(answer.is_err(), "{operation:?} of somebody else's lease answered {answer:?}");
    }
    let renewed = store.lease("leader", "a", LeaseOperation::Renew { epoch: held.epoch, ttl: LONG }).await;
    assert_eq!(renewed.expect("the holder still has it").epoch, held.epoch);
}

pub(super) async fn acquiring_again_renews_under_the_same_epoch(subject: Subject) {
    let store = subject.store();
    let first = acquire(&*store, "leader", "a", LONG).await;
    let second = acquire(&*store, "leader", "a", LONG * 2).await;
    assert_eq!(second.epoch, first.epoch);
    assert!(second.expires_at > first.expires_at);
}

pub(super) async fn of_many_that_acquire_one_succeeds(subject: Subject) {
    let candidates: Vec<_> = (0..16)
        .map(|number| {
            let store = subject.store();
            tokio::spawn(async move {
                store.lease("leader", &format!("c{number}"), LeaseOperation::Acquire { ttl: LONG }).await
            })
        })
        .collect();
    let mut holders = Vec::new();
    let mut told = Vec::new();
    for candidate in candidates {
        match candidate.await.expect("the candidate does not panic") {
            Ok(lease) => holders.push(lease),
            Err(StoreError::LeaseHeld(lease)) => told.push(lease),
            Err(other) => panic!("acquiring failed with {other:?}"),
        }
    }
    let [holder] = &holders[..] else { panic!("one acquires the lease, but these did: {holders:?}") };
    assert!(told.iter().all(|lease| lease == holder), "{told:?} were told to those refused, not {holder:?}");
}

pub(super) async fn a_renewed_lease_lasts_longer(subject: Subject) {
    let store = subject.store();
    let held = acquire(&*store, "leader", "a", LONG).await;
    let renew = LeaseOperation::Renew { epoch: held.epoch, ttl: LONG * 2 };
    let renewed = store.lease("leader", "a", renew).await.expect("the holder renews");
    assert_eq!(renewed.epoch, held.epoch);
    assert!(renewed.expires_at > held.expires_at);
    match store.lease("leader", "b", LeaseOperation::Acquire { ttl: LONG }).await {
        Err(StoreError::LeaseHeld(lease)) => assert_eq!(lease, renewed),
        other => panic!("a renewed lease is held, but the store answered {other:?}"),
    }
}

pub(super) async fn an_expired_lease_is_acquired_under_a_higher_epoch(subject: Subject) {
    let store = subject.store();
    let first = acquire(&*store, "leader", "a", SHORT).await;
    let second = acquire_in_the_end(&*store, "leader", "b").await;
    assert!(second.epoch > first.epoch);
    assert_fenced(
        store.lease("leader", "a", LeaseOperation::Renew { epoch: first.epoch, ttl: LONG }).await,
        first.epoch,
        second.epoch,
    );
}

/// Holds `name` for an instant, and waits until it has expired without anybody else having acquired it.
async fn let_expire(store: &dyn Store, name: &str, holder: &str) -> Lease {
    let lease = acquire(store, name, holder, SHORT).await;
    // What was acquired later, and expires later, has expired: so has this.
    acquire(store, "later", holder, SHORT).await;
    acquire_in_the_end(store, "later", "another").await;
    lease
}

pub(super) async fn an_expired_lease_is_not_renewed(subject: Subject) {
    let store = subject.store();
    let expired = let_expire(&*store, "leader", "a").await;
    let renew = LeaseOperation::Renew { epoch: expired.epoch, ttl: LONG };
    assert_fenced(store.lease("leader", "a", renew).await, expired.epoch, expired.epoch);
    let again = acquire(&*store, "leader", "a", LONG).await;
    assert!(again.epoch > expired.epoch, "the same holder starts a new epoch after it expired");
}

pub(super) async fn a_released_lease_is_acquired_under_a_higher_epoch(subject: Subject) {
    let store = subject.store();
    let mut epoch = Epoch::ZERO;
    for holder in ["a", "b", "b", "a"] {
        let lease = acquire(&*store, "leader", holder, LONG).await;
        assert!(lease.epoch > epoch, "{holder} acquired under epoch {} after {epoch}", lease.epoch);
        epoch = lease.epoch;
        let released = store.lease("leader", holder, LeaseOperation::Release { epoch }).await;
        let released = released.expect("the holder releases");
        assert_eq!((released.holder, released.epoch), (None, epoch));
        let renew = LeaseOperation::Renew { epoch, ttl: LONG };
        assert_fenced(store.lease("leader", holder, renew).await, epoch, epoch);
    }
}

pub(super) async fn an_old_epoch_neither_renews_nor_releases(subject: Subject) {
    let store = subject.store();
    let old = acquire(&*store, "leader", "a", LONG).await.epoch;
    store.lease("leader", "a", LeaseOperation::Release { epoch: old }).await.expect("the holder releases");
    let held = acquire(&*store, "leader", "a", LONG).await;
    for given in [old, Epoch::ZERO, held.epoch.next()] {
        let renew = LeaseOperation::Renew { epoch: given, ttl: LONG * 3 };
        assert_fenced(store.lease("leader", "a", renew).await, given, held.epoch);
        assert_fenced(store.lease("leader", "a", LeaseOperation::Release { epoch: given }).await, given, held.epoch);
    }
    match store.lease("leader", "b", LeaseOperation::Acquire { ttl: LONG }).await {
        Err(StoreError::LeaseHeld(lease)) => assert_eq!(lease, held, "what was refused changed nothing"),
        other => panic!("the lease is still held, but the store answered {other:?}"),
    }
}

pub(super) async fn a_write_under_the_current_epoch_passes(subject: Subject) {
    let store = subject.store();
    let held = acquire(&*store, "leader", "a", LONG).await;
    write(&*store, put("x", "1").fenced("leader", held.epoch)).await;
    let renew = LeaseOperation::Renew { epoch: held.epoch, ttl: LONG };
    store.lease("leader", "a", renew).await.expect("the holder renews");
    write(&*store, put("x", "2").fenced("leader", held.epoch)).await;
    assert_eq!(contents(&*store, "").await, pairs(&[("x", "2")]));
}

pub(super) async fn a_write_under_an_old_epoch_is_refused_and_changes_nothing(subject: Subject) {
    let store = subject.store();
    let old = acquire(&*store, "leader", "a", SHORT).await.epoch;
    write(&*store, put("x", "1").fenced("leader", old)).await;
    let current = acquire_in_the_end(&*store, "leader", "b").await.epoch;
    let before = store.list("").await.expect("listing succeeds");
    for (lease, given, in_force) in
        [("leader", old, current), ("leader", current.next(), current), ("never", Epoch(1), Epoch::ZERO)]
    {
        let batch = put("x", "2").put(key("y"), "2".into(), Precondition::Absent).fenced(lease, given);
        match store.write(batch).await {
            Err(StoreError::Fenced { lease: l, given: g, current: c }) => {
                assert_eq!((l.as_str(), g, c), (lease, given, in_force));
            }
            other => panic!("a write under epoch {given} of {lease} is refused, but it answered {other:?}"),
        }
        assert_eq!(store.list("").await.expect("listing succeeds"), before);
    }
    write(&*store, put("x", "3").fenced("leader", current)).await;
    assert_eq!(contents(&*store, "").await, pairs(&[("x", "3")]));
}

pub(super) async fn leases_of_other_names_are_independent(subject: Subject) {
    let store = subject.store();
    let first = acquire(&*store, "one", "a", LONG).await;
    let second = acquire(&*store, "two", "b", LONG).await;
    store.lease("one", "a", LeaseOperation::Release { epoch: first.epoch }).await.expect("the holder releases");
    match store.lease("two", "a", LeaseOperation::Acquire { ttl: LONG }).await {
        Err(StoreError::LeaseHeld(lease)) => assert_eq!(lease, second),
        other => panic!("the other lease is still held, but the store answered {other:?}"),
    }
}

async fn inspect(store: &dyn Store, name: &str) -> Lease {
    store.lease(name, "onlooker", LeaseOperation::Inspect).await.expect("a lease is inspected")
}

async fn take(store: &dyn Store, holder: &str, seen: &Lease, above: Epoch) -> Result<Lease, StoreError> {
    let take = LeaseOperation::Take { epoch: seen.epoch, expires_at: seen.expires_at, above, ttl: LONG };
    store.lease(&seen.name, holder, take).await
}

pub(super) async fn inspecting_a_lease_changes_nothing(subject: Subject) {
    let store = subject.store();
    let never = inspect(&*store, "leader").await;
    assert_eq!((never.holder, never.epoch), (None, Epoch::ZERO));
    let held = acquire(&*store, "leader", "a", LONG).await;
    assert_eq!(inspect(&*store, "leader").await, held);
    assert_eq!(inspect(&*store, "leader").await, held);
    let released = store.lease("leader", "a", LeaseOperation::Release { epoch: held.epoch }).await;
    assert_eq!(inspect(&*store, "leader").await, released.expect("the holder releases"));
    let renew = LeaseOperation::Renew { epoch: held.epoch, ttl: LONG };
    assert_fenced(store.lease("leader", "onlooker", renew).await, held.epoch, held.epoch);
}

pub(super) async fn a_lease_is_taken_as_it_was_seen_or_not_at_all(subject: Subject) {
    let store = subject.store();
    let seen = inspect(&*store, "leader").await;
    let first = take(&*store, "a", &seen, Epoch(6)).await.expect("a lease that nobody ever held is taken");
    assert_eq!((first.epoch, first.holder.as_deref()), (Epoch(7), Some("a")));
    let refused = take(&*store, "b", &seen, Epoch::ZERO).await;
    assert!(matches!(refused, Err(StoreError::LeaseHeld(lease)) if lease == first), "it was taken meanwhile");
    // It is held, and taken all the same: the taker says that its holder has had its time.
    let second = take(&*store, "b", &first, Epoch::ZERO).await.expect("it stands as it was seen");
    assert_eq!((second.epoch, second.holder.as_deref()), (Epoch(8), Some("b")));
    let fenced = store.write(put("x", "1").fenced("leader", first.epoch)).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
    let renew = LeaseOperation::Renew { epoch: second.epoch, ttl: LONG * 2 };
    let renewed = store.lease("leader", "b", renew).await.expect("the holder renews");
    let refused = take(&*store, "a", &second, Epoch::ZERO).await;
    assert!(matches!(refused, Err(StoreError::LeaseHeld(lease)) if lease == renewed), "it was renewed meanwhile");
}

pub(super) async fn an_empty_batch_under_a_lease_tells_whether_it_is_held(subject: Subject) {
    let store = subject.store();
    let old = acquire(&*store, "leader", "a", LONG).await;
    let revision = write(&*store, put("x", "1")).await;
    assert_eq!(write(&*store, Batch::new().fenced("leader", old.epoch)).await, revision);
    take(&*store, "b", &old, Epoch::ZERO).await.expect("it stands as it was seen");
    let answer = store.write(Batch::new().fenced("leader", old.epoch)).await;
    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "{answer:?}");
}
