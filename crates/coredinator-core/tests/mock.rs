//! The mocks stand in for what is behind a trait, in the tests of code that uses it.
#![cfg(feature = "mock")]

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use coredinator_core::{Batch, Key, MockRuntime, MockStore, Precondition, Revision, Runtime, RuntimeName, Store};

/// What a future that never waits comes to.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn a_mocked_store_answers_as_it_was_told_and_is_a_store() {
    let mut mock = MockStore::new();
    mock.expect_write().withf(|batch| batch.operations.len() == 1).once().returning(|_| Ok(Revision(7)));
    let store: Arc<dyn Store> = Arc::new(mock);
    let batch = Batch::new().put(Key::new("services/a").unwrap(), b"{}".to_vec(), Precondition::Absent);
    assert_eq!(now(store.write(batch)).unwrap(), Revision(7));
}

#[test]
fn a_mocked_runtime_is_a_runtime() {
    let mut mock = MockRuntime::new();
    mock.expect_name().return_const(RuntimeName::new("fake").unwrap());
    mock.expect_list().returning(|_| Ok(vec![]));
    let runtime: Arc<dyn Runtime> = Arc::new(mock);
    assert_eq!(runtime.name().as_str(), "fake");
    assert!(now(runtime.list(&[])).unwrap().is_empty());
}
