//! Batches, preconditions and revisions.

use super::{Subject, contents, delete, key, next, pairs, put, watch, write};
use crate::{Batch, Precondition, Revision, StoreError};

pub(super) async fn revisions_grow_with_every_write(subject: Subject) {
    let store = subject.store();
    let mut newest = Revision::ZERO;
    for round in 0..20 {
        let batch = if round % 5 == 4 { delete("a") } else { put("a", &round.to_string()) };
        let revision = write(&*store, batch).await;
        assert!(revision > newest, "revision {revision} after {newest}");
        newest = revision;
    }
    // Putting the value that is there is a write too.
    write(&*store, put("a", "same")).await;
    let before = store.get(&key("a")).await.expect("reading succeeds").expect("it is there").revision;
    let again = write(&*store, put("a", "same")).await;
    assert!(again > before);
    assert_eq!(store.get(&key("a")).await.expect("reading succeeds").expect("it is there").revision, again);
}

pub(super) async fn a_batch_is_one_revision(subject: Subject) {
    let store = subject.store();
    write(&*store, put("old", "1")).await;
    let mut batch = Batch::new().delete(key("old"), Precondition::Any);
    for number in 0..300 {
        batch = batch.put(key(&format!("many/{number:03}")), number.to_string().into(), Precondition::Absent);
    }
    let revision = write(&*store, batch).await;
    let listing = store.list("").await.expect("listing succeeds");
    assert_eq!(listing.records.len(), 300);
    assert!(listing.records.iter().all(|record| record.revision == revision));
    assert_eq!(listing.revision, revision);
}

pub(super) async fn preconditions_that_hold_let_a_batch_pass(subject: Subject) {
    let store = subject.store();
    let created = write(&*store, Batch::new().put(key("a"), "1".into(), Precondition::Absent)).await;
    let updated = write(&*store, Batch::new().put(key("a"), "2".into(), Precondition::At(created))).await;
    let both = Batch::new()
        .put(key("a"), "3".into(), Precondition::At(updated))
        .put(key("b"), "1".into(), Precondition::Absent)
        .put(key("c"), "1".into(), Precondition::Any);
    let both = write(&*store, both).await;
    assert_eq!(contents(&*store, "").await, pairs(&[("a", "3"), ("b", "1"), ("c", "1")]));

    write(&*store, Batch::new().delete(key("a"), Precondition::At(both))).await;
    write(&*store, Batch::new().delete(key("a"), Precondition::Absent)).await;
    write(&*store, Batch::new().put(key("a"), "4".into(), Precondition::Absent)).await;
    assert_eq!(contents(&*store, "a").await, pairs(&[("a", "4")]));
}

pub(super) async fn a_conflict_names_what_was_found_and_changes_nothing(subject: Subject) {
    let store = subject.store();
    let old = write(&*store, put("a", "1")).await;
    let now = write(&*store, put("a", "2")).await;
    let before = store.list("").await.expect("listing succeeds");

    let refused = [
        (key("a"), Precondition::Absent, Some(now)),
        (key("a"), Precondition::At(old), Some(now)),
        (key("a"), Precondition::At(now.next()), Some(now)),
        (key("absent"), Precondition::At(now), None),
    ];
    for (on, precondition, at) in refused {
        for deletes in [false, true] {
            let batch = put("first", "x");
            let batch = match deletes {
                false => batch.put(on.clone(), "x".into(), precondition),
                true => batch.delete(on.clone(), precondition),
            };
            match store.write(batch.put(key("last"), "x".into(), Precondition::Absent)).await {
                Err(StoreError::Conflict { key, found }) => assert_eq!((key, found), (on.clone(), at)),
                other => panic!("{precondition:?} on {on} is a conflict, but the write answered {other:?}"),
            }
            assert_eq!(store.list("").await.expect("listing succeeds"), before, "a refused batch changes nothing");
        }
    }
    let mut changes = watch(&*store, "", now).await;
    let after = write(&*store, put("b", "1")).await;
    assert_eq!(next(&mut changes).await.revision, after, "a refused batch is not told either");
}

pub(super) async fn a_batch_that_names_a_key_twice_is_invalid(subject: Subject) {
    let store = subject.store();
    let twice = [
        put("a", "1").put(key("b"), "1".into(), Precondition::Any).put(key("a"), "2".into(), Precondition::Any),
        put("a", "1").delete(key("a"), Precondition::Any),
        delete("a").delete(key("a"), Precondition::Any),
    ];
    for batch in twice {
        let answer = store.write(batch).await;
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "the write answered {answer:?}");
    }
    assert_eq!(store.list("").await.expect("listing succeeds"), crate::Listing::default());
}

pub(super) async fn a_batch_without_effect_answers_the_current_revision(subject: Subject) {
    let store = subject.store();
    assert_eq!(write(&*store, Batch::new()).await, Revision::ZERO);
    assert_eq!(write(&*store, delete("absent")).await, Revision::ZERO);
    let newest = write(&*store, put("a", "1")).await;
    assert_eq!(write(&*store, Batch::new()).await, newest);
    assert_eq!(write(&*store, delete("absent").delete(key("absent/too"), Precondition::Absent)).await, newest);
    assert_eq!(store.list("").await.expect("listing succeeds").revision, newest);
    let mut changes = watch(&*store, "", newest).await;
    let after = write(&*store, put("b", "1")).await;
    assert_eq!(next(&mut changes).await.revision, after, "what changes nothing is not told");
}

pub(super) async fn deleting_what_is_absent_is_no_part_of_a_change(subject: Subject) {
    let store = subject.store();
    let mut changes = watch(&*store, "", Revision::ZERO).await;
    let revision = write(&*store, delete("absent").put(key("a"), "1".into(), Precondition::Any)).await;
    assert_eq!(next(&mut changes).await, super::change(revision, &[("a", Some("1"))]));
}

pub(super) async fn of_many_that_create_a_key_one_succeeds(subject: Subject) {
    let writers: Vec<_> = (0..16)
        .map(|number| {
            let store = subject.store();
            tokio::spawn(async move {
                let batch = Batch::new().put(key("leader"), number.to_string().into(), Precondition::Absent).put(
                    key(&format!("marks/{number}")),
                    Vec::new(),
                    Precondition::Any,
                );
                (number, store.write(batch).await)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for writer in writers {
        match writer.await.expect("the writer does not panic") {
            (number, Ok(revision)) => winners.push((number, revision)),
            (_, Err(StoreError::Conflict { found: Some(_), .. })) => {}
            (number, Err(other)) => panic!("writer {number} failed with {other:?}"),
        }
    }
    let [(winner, revision)] = winners[..] else { panic!("one creates the key, but these did: {winners:?}") };
    let store = subject.store();
    let record = store.get(&key("leader")).await.expect("reading succeeds").expect("it is there");
    assert_eq!((record.value, record.revision), (winner.to_string().into(), revision));
    let mark = format!("marks/{winner}");
    assert_eq!(contents(&*store, "marks/").await, pairs(&[(&mark, "")]), "the losers left nothing");
}

pub(super) async fn no_update_under_a_precondition_is_lost(subject: Subject) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 10;
    write(&*subject.store(), put("counter", "0")).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = subject.store();
            tokio::spawn(async move {
                let mut done = 0;
                while done < ROUNDS {
                    let record = store.get(&key("counter")).await.expect("reading succeeds").expect("it is there");
                    let count: usize = String::from_utf8_lossy(&record.value).parse().expect("it counts");
                    let value = (count + 1).to_string().into();
                    let batch = Batch::new().put(record.key, value, Precondition::At(record.revision));
                    match store.write(batch).await {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(other) => panic!("an update failed with {other:?}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("the writer succeeds");
    }
    let total = (WRITERS * ROUNDS).to_string();
    assert_eq!(contents(&*subject.store(), "").await, pairs(&[("counter", &total)]));
}

pub(super) async fn one_refused_batch_does_not_harm_others(subject: Subject) {
    write(&*subject.store(), put("taken", "1")).await;
    let writers: Vec<_> = (0..60)
        .map(|number| {
            let store = subject.store();
            tokio::spawn(async move {
                let batch = put(&format!("n/{number:02}"), "1");
                match number % 3 {
                    0 => assert!(store.write(batch).await.is_ok(), "writer {number} is refused"),
                    1 => {
                        let answer = store.write(batch.put(key("taken"), "2".into(), Precondition::Absent)).await;
                        assert!(matches!(answer, Err(StoreError::Conflict { .. })), "writer {number}: {answer:?}");
                    }
                    _ => {
                        let again = batch.operations.clone();
                        let batch = Batch { operations: [batch.operations, again].concat(), fence: None };
                        let answer = store.write(batch).await;
                        assert!(matches!(answer, Err(StoreError::Invalid(_))), "writer {number}: {answer:?}");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("the writer is answered as it should be");
    }
    let written: Vec<_> = contents(&*subject.store(), "n/").await.into_iter().map(|(name, _)| name).collect();
    let expected: Vec<_> = (0..60).step_by(3).map(|number| format!("n/{number:02}")).collect();
    assert_eq!(written, expected);
}
