//! Reading records and listings.

use super::{Subject, contents, delete, key, pairs, put, write};
use crate::{Batch, Precondition, Record, Revision};

pub(super) async fn an_empty_store_is_at_revision_zero(subject: Subject) {
    let store = subject.store();
    let listing = store.list("").await.expect("listing succeeds");
    assert_eq!(listing.records, [], "the subject of a case is empty");
    assert_eq!(listing.revision, Revision::ZERO);
    assert_eq!(store.get(&key("a")).await.expect("reading succeeds"), None);
}

pub(super) async fn what_was_put_is_read_back(subject: Subject) {
    let store = subject.store();
    let first = write(&*store, put("services/a", "1")).await;
    let record = store.get(&key("services/a")).await.expect("reading succeeds");
    assert_eq!(record, Some(Record { key: key("services/a"), value: b"1".to_vec(), revision: first }));

    let second = write(&*store, put("services/a", "2")).await;
    let record = store.get(&key("services/a")).await.expect("reading succeeds");
    assert_eq!(record, Some(Record { key: key("services/a"), value: b"2".to_vec(), revision: second }));

    write(&*store, delete("services/a")).await;
    assert_eq!(store.get(&key("services/a")).await.expect("reading succeeds"), None);
}

pub(super) async fn values_are_any_bytes(subject: Subject) {
    let store = subject.store();
    let longest_key = "k".repeat(512);
    let values = [Vec::new(), vec![0], (0..=255).collect(), vec![0xff; 100_000]];
    for value in values {
        for name in ["\"quoted'key\"", "a/b:c;d,e{f}[g]*?#$&", &longest_key] {
            write(&*store, Batch::new().put(key(name), value.clone(), Precondition::Any)).await;
            let record = store.get(&key(name)).await.expect("reading succeeds").expect("the record is there");
            assert!(record.value == value, "{} bytes under {name} come back as they were", value.len());
        }
    }
}

pub(super) async fn a_listing_is_ordered_and_by_prefix(subject: Subject) {
    let store = subject.store();
    for name in ["b/2", "a/2", "b", "b/10", "a/1", "b/1", "b0", "b~", "B/1", "c"] {
        write(&*store, put(name, name)).await;
    }
    let names =
        async |prefix: &str| contents(&*store, prefix).await.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names("").await, ["B/1", "a/1", "a/2", "b", "b/1", "b/10", "b/2", "b0", "b~", "c"]);
    assert_eq!(names("b/").await, ["b/1", "b/10", "b/2"]);
    assert_eq!(names("b").await, ["b", "b/1", "b/10", "b/2", "b0", "b~"]);
    assert_eq!(names("b/1").await, ["b/1", "b/10"]);
    assert_eq!(names("x").await, [""; 0]);
    // A prefix is not a pattern, nor need it be a possible start of a key.
    for odd in ["%", "_", "b_", "b\\", "b*", "ä", "b ", " "] {
        assert_eq!(names(odd).await, [""; 0], "no key starts with {odd:?}");
    }
}

pub(super) async fn a_listing_tells_the_revision_of_the_whole_store(subject: Subject) {
    let store = subject.store();
    write(&*store, put("a/1", "1")).await;
    let newest = write(&*store, put("b/1", "1")).await;
    for prefix in ["", "a/", "b/", "x/"] {
        let listing = store.list(prefix).await.expect("listing succeeds");
        assert_eq!(listing.revision, newest, "listing {prefix:?}");
    }
    let newest = write(&*store, delete("b/1")).await;
    assert_eq!(store.list("").await.expect("listing succeeds").revision, newest, "a deletion is a write");
}

pub(super) async fn a_listing_is_one_snapshot(subject: Subject) {
    let store = subject.store();
    let writer = {
        let store = subject.store();
        tokio::spawn(async move {
            for round in 0..200_u32 {
                let value = round.to_string();
                let both = put("pair/left", &value).put(key("pair/right"), value.into(), Precondition::Any);
                write(&*store, both).await;
            }
        })
    };
    while !writer.is_finished() {
        let listing = store.list("pair/").await.expect("listing succeeds");
        let values: Vec<_> = listing.records.iter().map(|record| (&record.value, record.revision)).collect();
        assert!(
            values.is_empty() || (values.len() == 2 && values[0] == values[1]),
            "a write is seen in part: {values:?}"
        );
        assert!(listing.records.iter().all(|record| record.revision <= listing.revision), "a record of the future");
    }
    writer.await.expect("the writer succeeds");
    assert_eq!(contents(&*store, "pair/").await, pairs(&[("pair/left", "199"), ("pair/right", "199")]));
}
