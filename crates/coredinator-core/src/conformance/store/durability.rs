//! What stays: nothing after a check, everything after a reopen.

use std::time::Duration;

use futures_util::FutureExt;

use super::{Subject, change, contents, delete, key, next, pairs, put, watch, write};
use crate::{LeaseOperation, Precondition, Revision, StoreError};

const LONG: Duration = Duration::from_secs(3600);

pub(super) async fn a_check_leaves_nothing_behind(subject: Subject) {
    let store = subject.store();
    let empty = store.check().await.expect("a store that works passes its check");
    assert_eq!((empty.revision, empty.compacted), (Revision::ZERO, Revision::ZERO));
    let newest = write(&*store, put("a", "1")).await;
    let mut changes = watch(&*store, "", newest).await;
    for _ in 0..3 {
        let status = store.check().await.expect("a store that works passes its check");
        assert_eq!(status.revision, newest, "the check is no write that anybody sees");
        assert!(!status.backend.is_empty() && status.round_trip_ms >= 0.0);
    }
    let failed = |check: &crate::StoreCheck| check.outcome == crate::StoreCheckOutcome::Failed;
    let verified = store.verify().await;
    // What a server is set to is not the store's doing.
    let of_the_store =
        |check: &&crate::StoreCheck| matches!(check.name.as_str(), "connectivity" | "migrations" | "round_trip");
    let own: Vec<_> = verified.iter().filter(of_the_store).collect();
    assert!(!own.is_empty() && !own.iter().any(|check| failed(check)), "a store that works is verified: {verified:?}");
    assert_eq!(contents(&*store, "").await, pairs(&[("a", "1")]));
    let after = write(&*store, put("b", "1")).await;
    assert_eq!(next(&mut changes).await.revision, after, "the check is not told to watchers");
    store.compact(newest).await.expect("compaction succeeds");
    let status = store.check().await.expect("a store that works passes its check");
    assert_eq!((status.revision, status.compacted), (after, newest));
}

pub(super) async fn an_abandoned_write_happens_wholly_or_not_at_all(subject: Subject) {
    let store = subject.store();
    for round in 0..50 {
        let (left, right) = (format!("l/{round:02}"), format!("r/{round:02}"));
        let batch = put(&left, "1").put(key(&right), "1".into(), Precondition::Any);
        let abandoned = store.write(batch);
        if round % 2 == 0 {
            // Polled once, then dropped.
            drop(abandoned.now_or_never());
        } else {
            // Ended wherever it happens to be.
            let _ = tokio::time::timeout(Duration::from_micros(50 * round), abandoned).await;
        }
    }
    // A write that is acknowledged now comes after whatever of them happens.
    write(&*store, put("end", "1")).await;
    let lefts = contents(&*store, "l/").await;
    let rights = contents(&*store, "r/").await;
    let numbers =
        |side: Vec<(String, String)>| side.into_iter().map(|(name, _)| name[2..].to_owned()).collect::<Vec<_>>();
    assert_eq!(numbers(lefts), numbers(rights), "some happened in part");
}

pub(super) async fn a_reopened_store_has_every_record_and_revision(subject: Subject) {
    let store = subject.store();
    for number in 0..20 {
        write(&*store, put(&format!("n/{number:02}"), &number.to_string())).await;
    }
    write(&*store, delete("n/07")).await;
    let newest = write(&*store, put("empty", "").delete(key("n/08"), Precondition::Any)).await;
    let before = store.list("").await.expect("listing succeeds");
    drop(store);

    let subject = subject.reopen().await;
    let store = subject.store();
    assert_eq!(store.list("").await.expect("listing succeeds"), before);
    let refused = store.write(crate::Batch::new().put(key("n/00"), "x".into(), Precondition::Absent)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "preconditions hold across a reopen: {refused:?}");
    assert!(write(&*store, put("after", "1")).await > newest, "revisions go on where they were");
}

pub(super) async fn a_reopened_store_tells_changes_from_before(subject: Subject) {
    let store = subject.store();
    let first = write(&*store, put("a", "1").put(key("b"), "1".into(), Precondition::Any)).await;
    let second = write(&*store, delete("a")).await;
    drop(store);

    let subject = subject.reopen().await;
    let store = subject.store();
    let mut changes = watch(&*store, "", Revision::ZERO).await;
    let third = write(&*store, put("a", "2")).await;
    let mut told = next(&mut changes).await;
    told.entries.sort();
    assert_eq!(told, change(first, &[("a", Some("1")), ("b", Some("1"))]));
    assert_eq!(next(&mut changes).await, change(second, &[("a", None)]));
    assert_eq!(next(&mut changes).await, change(third, &[("a", Some("2"))]));
}

pub(super) async fn a_reopened_store_keeps_leases_and_epochs(subject: Subject) {
    let store = subject.store();
    let acquire = LeaseOperation::Acquire { ttl: LONG };
    let held = store.lease("held", "a", acquire).await.expect("a free lease is acquired");
    let gone = store.lease("gone", "a", acquire).await.expect("a free lease is acquired");
    store.lease("gone", "a", LeaseOperation::Release { epoch: gone.epoch }).await.expect("the holder releases");
    drop(store);

    let subject = subject.reopen().await;
    let store = subject.store();
    match store.lease("held", "b", acquire).await {
        Err(StoreError::LeaseHeld(lease)) => assert_eq!(lease, held),
        other => panic!("a lease is held across a reopen, but the store answered {other:?}"),
    }
    let renewed = store.lease("held", "a", LeaseOperation::Renew { epoch: held.epoch, ttl: LONG }).await;
    assert_eq!(renewed.expect("its holder renews it").epoch, held.epoch);
    let again = store.lease("gone", "b", acquire).await.expect("a released lease is acquired");
    assert!(again.epoch > gone.epoch, "epochs do not fall across a reopen");
    let refused = store.write(put("x", "1").fenced("gone", gone.epoch)).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "an old epoch stays refused: {refused:?}");
}

pub(super) async fn a_reopened_store_is_compacted_as_it_was(subject: Subject) {
    let store = subject.store();
    write(&*store, put("a", "1")).await;
    let middle = write(&*store, put("a", "2")).await;
    let newest = write(&*store, put("a", "3")).await;
    store.compact(middle).await.expect("compaction succeeds");
    drop(store);

    let subject = subject.reopen().await;
    let store = subject.store();
    let refused = store.watch("", Revision::ZERO).await.err();
    assert!(matches!(refused, Some(StoreError::Compacted(at)) if at == middle), "the watch answered {refused:?}");
    let mut changes = watch(&*store, "", middle).await;
    assert_eq!(next(&mut changes).await.revision, newest);
}
