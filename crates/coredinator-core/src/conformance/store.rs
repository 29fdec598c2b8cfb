//! The suite for [`Store`]: every sentence of its documentation that can be tried from outside, as a named case.
//!
//! ```no_run
//! use coredinator_core::conformance::store::{self, Subject};
//! # use coredinator_core::Store;
//! # struct MyStore;
//! # impl MyStore { async fn open(_: &std::path::Path) -> Box<dyn Store> { unimplemented!() } }
//! # fn temporary_directory() -> std::path::PathBuf { unimplemented!() }
//!
//! # async fn example() {
//! store::run(|| async {
//!     let dir = temporary_directory();
//!     let path = dir.join("store");
//!     Subject::new(MyStore::open(&path).await)
//!         .reopened_by(move || {
//!             let path = path.clone();
//!             async move { MyStore::open(&path).await }
//!         })
//!         .guarded(dir)
//! })
//! .await;
//! # }
//! ```
//!
//! It needs a tokio runtime with real time (not paused), best a multi-threaded one. A case alone: [`run_case`], or
//! [`Case::run`] of one of [`CASES`].

mod durability;
mod leases;
mod reads;
mod watches;
mod writes;

use std::{any::Any, fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};

use crate::{Batch, Change, ChangeStream, Key, Precondition, Revision, Store, StoreCapabilities, StoreError};

/// The longest that a case may take: an upper bound against one that hangs, generous for a loaded machine.
const CASE_LIMIT: Duration = Duration::from_secs(120);

/// The longest that one awaited thing may take.
const PATIENCE: Duration = Duration::from_secs(30);

type Reopen = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync>;

/// A fresh, empty back end for one case, and what cleans up after it.
pub struct Subject {
    // Fields are dropped in this order: the store before what it stands on.
    store: Arc<dyn Store>,
    reopen: Option<Reopen>,
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Subject {
    /// A fresh and empty store.
    pub fn new(store: impl IntoStore) -> Self {
        Self { store: store.into_store(), reopen: None, guard: None }
    }

    /// How the same store is opened again after every handle on it was dropped; a durable one must have it.
    #[must_use]
    pub fn reopened_by<F, Fut>(mut self, reopen: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoStore,
    {
        self.reopen = Some(Box::new(move || {
            let opening = reopen();
            async move { opening.await.into_store() }.boxed()
        }));
        self
    }

    /// Something whose drop cleans up (a temporary directory, a schema), when the case is over and the store is dropped.
    #[must_use]
    pub fn guarded(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// The store as it stands.
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Drops the store and opens it again.
    async fn reopen(self) -> Self {
        let Self { store, reopen, guard } = self;
        drop(store);
        let reopen = reopen.expect("a store that declares itself durable is given with `Subject::reopened_by`");
        let store = reopen().await;
        Self { store, reopen: Some(reopen), guard }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("capabilities", &self.store.capabilities()).finish_non_exhaustive()
    }
}

/// What can be taken for a store: a store, or one that is boxed or shared already.
pub trait IntoStore {
    /// As the suite holds it.
    fn into_store(self) -> Arc<dyn Store>;
}

impl<S: Store> IntoStore for S {
    fn into_store(self) -> Arc<dyn Store> {
        Arc::new(self)
    }
}

impl IntoStore for Box<dyn Store> {
    fn into_store(self) -> Arc<dyn Store> {
        self.into()
    }
}

impl IntoStore for Arc<dyn Store> {
    fn into_store(self) -> Self {
        self
    }
}

/// One case of the suite.
pub struct Case {
    /// Its name: what it shows, in words joined by `_`.
    pub name: &'static str,
    needs: fn(StoreCapabilities) -> bool,
    body: fn(Subject) -> BoxFuture<'static, ()>,
}

impl Case {
    /// Whether a back end with these capabilities is asked to pass it.
    #[must_use]
    pub fn applies_to(&self, capabilities: StoreCapabilities) -> bool {
        (self.needs)(capabilities)
    }

    /// Runs it, whether it applies or not.
    ///
    /// # Panics
    /// If the back end fails it, or does not finish within two minutes; the name has been printed to stderr then.
    pub async fn run(&self, subject: Subject) {
        let running = AssertUnwindSafe(tokio::time::timeout(CASE_LIMIT, (self.body)(subject))).catch_unwind();
        match running.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => panic!("store conformance: case {} did not finish within {CASE_LIMIT:?}", self.name),
            Err(panic) => {
                eprintln!("store conformance: case {} failed", self.name);
                std::panic::resume_unwind(panic)
            }
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

macro_rules! cases {
    ($($module:ident: $need:expr => [$($case:ident),+ $(,)?]),+ $(,)?) => {
        /// All cases, in the order in which [`run`] runs them.
        pub const CASES: &[Case] = &[$($(Case {
            name: stringify!($case),
            needs: $need,
            body: |subject| $module::$case(subject).boxed(),
        }),+),+];
    };
}

cases! {
    reads: |_| true => [
        an_empty_store_is_at_revision_zero,
        what_was_put_is_read_back,
        values_are_any_bytes,
        a_listing_is_ordered_and_by_prefix,
        a_listing_tells_the_revision_of_the_whole_store,
        a_listing_is_one_snapshot,
    ],
    writes: |_| true => [
        revisions_grow_with_every_write,
        a_batch_is_one_revision,
        preconditions_that_hold_let_a_batch_pass,
        a_conflict_names_what_was_found_and_changes_nothing,
        a_batch_that_names_a_key_twice_is_invalid,
        a_batch_without_effect_answers_the_current_revision,
        deleting_what_is_absent_is_no_part_of_a_change,
        of_many_that_create_a_key_one_succeeds,
        no_update_under_a_precondition_is_lost,
        one_refused_batch_does_not_harm_others,
    ],
    watches: |_| true => [
        a_watch_from_zero_tells_everything,
        a_watch_from_the_middle_tells_what_comes_after,
        a_watch_tells_only_keys_with_its_prefix,
        a_watch_tells_one_write_as_one_change,
        a_watch_goes_on_with_what_is_written_later,
        concurrent_writes_are_told_once_and_in_order,
        a_slow_watcher_is_not_skipped,
        a_listing_and_a_watch_from_its_revision_miss_nothing,
        a_watch_from_the_future_is_invalid,
        a_watch_from_before_compaction_is_refused,
        compaction_leaves_records_and_later_changes,
        compacting_the_past_or_the_future_changes_nothing,
    ],
    leases: |_| true => [
        a_free_lease_is_acquired,
        a_held_lease_is_refused_to_others,
        acquiring_again_renews_under_the_same_epoch,
        of_many_that_acquire_one_succeeds,
        a_renewed_lease_lasts_longer,
        an_expired_lease_is_acquired_under_a_higher_epoch,
        an_expired_lease_is_not_renewed,
        a_released_lease_is_acquired_under_a_higher_epoch,
        an_old_epoch_neither_renews_nor_releases,
        a_write_under_the_current_epoch_passes,
        a_write_under_an_old_epoch_is_refused_and_changes_nothing,
        leases_of_other_names_are_independent,
        inspecting_a_lease_changes_nothing,
        a_lease_is_taken_as_it_was_seen_or_not_at_all,
        an_empty_batch_under_a_lease_tells_whether_it_is_held,
    ],
    durability: |_| true => [
        a_check_leaves_nothing_behind,
        an_abandoned_write_happens_wholly_or_not_at_all,
    ],
    durability: |capabilities| capabilities.durable => [
        a_reopened_store_has_every_record_and_revision,
        a_reopened_store_tells_changes_from_before,
        a_reopened_store_keeps_leases_and_epochs,
        a_reopened_store_is_compacted_as_it_was,
    ],
}

/// Runs all cases that the back end's capabilities call for, each on a fresh subject.
///
/// # Panics
/// At the first case that fails.
pub async fn run<F, Fut>(factory: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    for case in CASES {
        let subject = factory().await;
        if case.applies_to(subject.store.capabilities()) {
            case.run(subject).await;
        }
    }
}

/// Runs the one case of this name.
///
/// # Panics
/// If there is none, or it fails.
pub async fn run_case(name: &str, subject: Subject) {
    let case = CASES.iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case {name:?}")).run(subject).await;
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key of the suite is valid")
}

/// A batch that puts one value, whatever was there.
fn put(at: &str, value: &str) -> Batch {
    Batch::new().put(key(at), value.into(), Precondition::Any)
}

/// A batch that deletes one key, whatever was there.
fn delete(at: &str) -> Batch {
    Batch::new().delete(key(at), Precondition::Any)
}

async fn write(store: &dyn Store, batch: Batch) -> Revision {
    store.write(batch).await.expect("a write that nothing speaks against succeeds")
}

/// All that a store holds, as text, without revisions.
async fn contents(store: &dyn Store, prefix: &str) -> Vec<(String, String)> {
    let listing = store.list(prefix).await.expect("listing succeeds");
    let text = |value: Vec<u8>| String::from_utf8(value).expect("values of this case are text");
    listing.records.into_iter().map(|record| (record.key.into(), text(record.value))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn watch(store: &dyn Store, prefix: &str, after: Revision) -> ChangeStream {
    store.watch(prefix, after).await.unwrap_or_else(|error| panic!("a watch after {after} starts, but: {error}"))
}

async fn next_item(stream: &mut ChangeStream) -> Option<Result<Change, StoreError>> {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("the watch tells something before patience ends")
}

async fn next(stream: &mut ChangeStream) -> Change {
    next_item(stream).await.expect("the watch goes on while the store is open").expect("the watch tells a change")
}

fn change(revision: Revision, entries: &[(&str, Option<&str>)]) -> Change {
    let entries = entries.iter().map(|(at, value)| (key(at), value.map(Into::into))).collect();
    Change { revision, entries }
}
