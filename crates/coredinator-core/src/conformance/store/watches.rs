//! Watching changes, and forgetting them.

use std::collections::BTreeMap;

use super::{Subject, change, contents, delete, key, next, next_item, pairs, put, watch, write};
use crate::{Batch, Change, Precondition, Revision, Store, StoreError};

pub(super) async fn a_watch_from_zero_tells_everything(subject: Subject) {
    let store = subject.store();
    let first = write(&*store, put("a", "1")).await;
    let second = write(&*store, put("a", "2")).await;
    let third = write(&*store, delete("a")).await;
    let mut changes = watch(&*store, "", Revision::ZERO).await;
    assert_eq!(next(&mut changes).await, change(first, &[("a", Some("1"))]));
    assert_eq!(next(&mut changes).await, change(second, &[("a", Some("2"))]));
    assert_eq!(next(&mut changes).await, change(third, &[("a", None)]));
}

pub(super) async fn a_watch_from_the_middle_tells_what_comes_after(subject: Subject) {
    let store = subject.store();
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(write(&*store, put("a", &number.to_string())).await);
    }
    for (position, after) in revisions.iter().enumerate() {
        let mut changes = watch(&*store, "", *after).await;
        for later in &revisions[position + 1..] {
            assert_eq!(next(&mut changes).await.revision, *later, "watching after {after}");
        }
    }
}

pub(super) async fn a_watch_tells_only_keys_with_its_prefix(subject: Subject) {
    let store = subject.store();
    let mut changes = watch(&*store, "b/", Revision::ZERO).await;
    write(&*store, put("a/1", "1")).await;
    write(&*store, put("b", "1")).await;
    let mixed = put("c", "1").put(key("b/1"), "1".into(), Precondition::Any);
    let mixed = write(&*store, mixed.put(key("a/2"), "1".into(), Precondition::Any)).await;
    write(&*store, put("b0", "1")).await;
    let deleted = write(&*store, delete("b/1").delete(key("a/1"), Precondition::Any)).await;
    assert_eq!(next(&mut changes).await, change(mixed, &[("b/1", Some("1"))]));
    assert_eq!(next(&mut changes).await, change(deleted, &[("b/1", None)]));
}

pub(super) async fn a_watch_tells_one_write_as_one_change(subject: Subject) {
    let store = subject.store();
    let mut live = watch(&*store, "", Revision::ZERO).await;
    write(&*store, put("c", "0")).await;
    let batch = put("b", "1").delete(key("c"), Precondition::Any).put(key("a"), "1".into(), Precondition::Any);
    let revision = write(&*store, batch).await;
    let mut late = watch(&*store, "", Revision::ZERO).await;
    for changes in [&mut live, &mut late] {
        next(changes).await;
        let mut told = next(changes).await;
        told.entries.sort();
        assert_eq!(told, change(revision, &[("a", Some("1")), ("b", Some("1")), ("c", None)]));
    }
}

pub(super) async fn a_watch_goes_on_with_what_is_written_later(subject: Subject) {
    let store = subject.store();
    let before = write(&*store, put("a", "before")).await;
    let mut changes = watch(&*store, "a", Revision::ZERO).await;
    assert_eq!(next(&mut changes).await, change(before, &[("a", Some("before"))]));
    for round in 0..20 {
        let value = round.to_string();
        // The watcher waits already when this is written.
        let told = {
            let store = subject.store();
            let batch = put("a", &value);
            let writing = tokio::spawn(async move { write(&*store, batch).await });
            let told = next(&mut changes).await;
            assert_eq!(told.revision, writing.await.expect("the write succeeds"));
            told
        };
        assert_eq!(told.entries, change(told.revision, &[("a", Some(&value))]).entries);
    }
}

/// Writes from many tasks at once; answers every acknowledged revision with its key.
async fn storm(subject: &Subject, writers: usize, writes: usize) -> BTreeMap<Revision, String> {
    let writers: Vec<_> = (0..writers)
        .map(|writer| {
            let store = subject.store();
            tokio::spawn(async move {
                let mut written = Vec::new();
                for number in 0..writes {
                    let name = format!("w/{writer}/{}", number % 7);
                    let revision = write(&*store, put(&name, &number.to_string())).await;
                    written.push((revision, name));
                }
                written
            })
        })
        .collect();
    let mut all = BTreeMap::new();
    for writer in writers {
        for (revision, name) in writer.await.expect("the writer succeeds") {
            let before = all.insert(revision, name);
            assert_eq!(before, None, "revision {revision} was answered to two writes");
        }
    }
    all
}

pub(super) async fn concurrent_writes_are_told_once_and_in_order(subject: Subject) {
    const WRITERS: usize = 8;
    const WRITES: usize = 40;
    let store = subject.store();
    let mut watchers = Vec::new();
    for _ in 0..3 {
        let mut changes = watch(&*store, "w/", Revision::ZERO).await;
        watchers.push(tokio::spawn(async move {
            let mut told = Vec::new();
            for _ in 0..WRITERS * WRITES {
                let Change { revision, entries } = next(&mut changes).await;
                let [(key, Some(_))] = &entries[..] else { panic!("each write put one key, but told are {entries:?}") };
                told.push((revision, key.to_string()));
            }
            told
        }));
    }
    let written: Vec<_> = storm(&subject, WRITERS, WRITES).await.into_iter().collect();
    for watcher in watchers {
        assert_eq!(watcher.await.expect("the watcher is told everything"), written);
    }
}

pub(super) async fn a_slow_watcher_is_not_skipped(subject: Subject) {
    let store = subject.store();
    let mut changes = watch(&*store, "w/", Revision::ZERO).await;
    let written = storm(&subject, 16, 100).await;
    for revision in written.keys() {
        match next_item(&mut changes).await.expect("the watch goes on while the store is open") {
            Ok(told) => assert_eq!(told.revision, *revision),
            Err(StoreError::Compacted(_)) => {
                assert!(next_item(&mut changes).await.is_none(), "the stream ends after it told of compaction");
                return;
            }
            Err(other) => panic!("the watch failed with {other:?}"),
        }
    }
}

pub(super) async fn a_listing_and_a_watch_from_its_revision_miss_nothing(subject: Subject) {
    let writer = {
        let store = subject.store();
        tokio::spawn(async move {
            for number in 0..200 {
                write(&*store, put(&format!("n/{number:03}"), "1")).await;
            }
        })
    };
    let store = subject.store();
    while !writer.is_finished() {
        let listing = store.list("n/").await.expect("listing succeeds");
        let mut seen = listing.records.len();
        let mut changes = watch(&*store, "n/", listing.revision).await;
        // The next one after the listing is the first that the watch tells.
        if seen < 200 {
            let told = next(&mut changes).await;
            assert_eq!(told.entries[0].0, key(&format!("n/{seen:03}")));
            seen += 1;
        }
        assert!(seen <= 200);
    }
    writer.await.expect("the writer succeeds");
}

pub(super) async fn a_watch_from_the_future_is_invalid(subject: Subject) {
    let store = subject.store();
    let newest = write(&*store, put("a", "1")).await;
    for after in [newest.next(), Revision(newest.0 + 1_000_000)] {
        match store.watch("", after).await {
            Err(StoreError::Invalid(_)) => {}
            Err(other) => panic!("a watch after {after} fails with {other:?}"),
            Ok(_) => panic!("a watch after {after} starts, though {newest} is the newest revision"),
        }
    }
    drop(watch(&*store, "", newest).await);
}

async fn refused_as_compacted(store: &dyn Store, after: Revision) -> Revision {
    match store.watch("", after).await {
        Err(StoreError::Compacted(oldest)) => oldest,
        Err(other) => panic!("a watch after {after} fails with {other:?}"),
        Ok(mut changes) => match next_item(&mut changes).await {
            Some(Err(StoreError::Compacted(oldest))) => oldest,
            other => panic!("a watch after {after} tells {other:?}, though that is compacted"),
        },
    }
}

pub(super) async fn a_watch_from_before_compaction_is_refused(subject: Subject) {
    let store = subject.store();
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(write(&*store, put("a", &number.to_string())).await);
    }
    let mut started_before = watch(&*store, "", Revision::ZERO).await;
    store.compact(revisions[5]).await.expect("compaction succeeds");
    for after in [Revision::ZERO, revisions[0], revisions[4]] {
        let oldest = refused_as_compacted(&*store, after).await;
        assert_eq!(oldest, revisions[5], "the error tells from where a watch can start");
    }
    match next_item(&mut started_before).await {
        Some(Err(StoreError::Compacted(_))) => {
            assert!(next_item(&mut started_before).await.is_none(), "the stream ends after it told of compaction");
        }
        // A store may have handed these to the stream before; then it tells all of them.
        Some(Ok(told)) => assert_eq!(told.revision, revisions[0]),
        other => panic!("a watch from before the compaction tells {other:?}"),
    }
}

pub(super) async fn compaction_leaves_records_and_later_changes(subject: Subject) {
    let store = subject.store();
    write(&*store, put("old", "1")).await;
    let middle = write(&*store, put("a", "1")).await;
    let later = write(&*store, put("b", "1")).await;
    let before = store.list("").await.expect("listing succeeds");
    store.compact(middle).await.expect("compaction succeeds");
    assert_eq!(store.list("").await.expect("listing succeeds"), before);
    let mut changes = watch(&*store, "", middle).await;
    assert_eq!(next(&mut changes).await, change(later, &[("b", Some("1"))]));

    store.compact(later).await.expect("compaction succeeds");
    let newest = write(&*store, put("c", "1")).await;
    assert!(newest > later, "compaction does not turn revisions back");
    assert_eq!(next(&mut changes).await, change(newest, &[("c", Some("1"))]));
    assert_eq!(contents(&*store, "").await, pairs(&[("a", "1"), ("b", "1"), ("c", "1"), ("old", "1")]));
}

pub(super) async fn compacting_the_past_or_the_future_changes_nothing(subject: Subject) {
    let store = subject.store();
    let mut newest = Revision::ZERO;
    for number in 0..6 {
        newest = write(&*store, put("a", &number.to_string())).await;
    }
    let middle = Revision(newest.0 - 2);
    store.compact(middle).await.expect("compaction succeeds");
    for past in [middle, Revision(1), Revision::ZERO] {
        store.compact(past).await.expect("compacting the past is no error");
        let mut changes = watch(&*store, "", middle).await;
        assert!(next(&mut changes).await.revision > middle);
    }
    store.compact(Revision(newest.0 + 100)).await.expect("compacting the future is no error");
    let mut changes = watch(&*store, "", newest).await;
    let after = write(&*store, put("a", "after")).await;
    assert_eq!(next(&mut changes).await, change(after, &[("a", Some("after"))]));
    assert_eq!(after, write(&*store, Batch::new()).await);
}
