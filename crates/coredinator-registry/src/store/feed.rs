//! How watchers are told: the newest changes stay in memory, and who is behind them reads the back end's change log.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use coredinator_core::{Change, ChangeStream, Revision, StoreError};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

/// How many changes a watcher takes at once, so that a slow one holds neither lock nor memory for long.
pub(super) const PAGE: usize = 128;

/// The durable change log of a back end.
#[async_trait]
pub(super) trait Log: Send + Sync + 'static {
    /// The oldest changes after `after`, or `Compacted`.
    async fn page(&self, after: Revision) -> Result<Page, StoreError>;
}

/// Some consecutive changes.
pub(super) struct Page {
    /// In the order of revisions.
    pub(super) changes: Vec<Change>,
    /// There is no other change between what was asked for and this.
    pub(super) up_to: Revision,
}

/// What a feed holds: changes of consecutive revisions, each after `base`.
struct Tail {
    base: Revision,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    compacted: Revision,
    /// Which history this is; there is another after a store lost writes that it had acknowledged.
    history: u64,
}

#[derive(Clone, Copy)]
struct Signal {
    newest: Revision,
    closed: bool,
}

enum Read {
    Changes(Vec<Arc<Change>>),
    InLog,
    Compacted(Revision),
}

/// The newest changes of a store.
pub(super) struct Feed {
    tail: Mutex<Tail>,
    signal: watch::Sender<Signal>,
    /// How many changes are held at most.
    capacity: usize,
    /// How many bytes of values are held at most; the newest change is held whatever its size.
    capacity_bytes: usize,
    log: Option<Arc<dyn Log>>,
}

impl Feed {
    /// A feed that starts at `newest`; with a log, what no longer fits is read from there, without one it is compacted.
    pub(super) fn new(
        newest: Revision,
        compacted: Revision,
        capacity: usize,
        capacity_bytes: usize,
        log: Option<Arc<dyn Log>>,
    ) -> Self {
        let tail = Tail { base: newest, changes: VecDeque::new(), bytes: 0, compacted, history: 0 };
        let (signal, _) = watch::channel(Signal { newest, closed: false });
        Self { tail: Mutex::new(tail), signal, capacity: capacity.max(1), capacity_bytes, log }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest revision that was published.
    pub(super) fn newest(&self) -> Revision {
        self.signal.borrow().newest
    }

    /// The oldest revision from which a watch can start.
    pub(super) fn compacted(&self) -> Revision {
        self.tail().compacted
    }

    /// Tells the watchers what has been committed, in the order of revisions.
    pub(super) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut newest = None;
        {
            let mut tail = self.tail();
            for change in changes {
                let held = tail.held().0;
                if change.revision.0 <= held {
                    // Who wrote it and who follows the log may both tell it.
                    continue;
                }
                if change.revision.0 != held + 1 {
                    // Something was committed that this feed was not told of: the log has it.
                    tail.changes.clear();
                    tail.bytes = 0;
                    tail.base = Revision(change.revision.0.saturating_sub(1));
                }
                newest = Some(change.revision);
                tail.bytes += weight(&change);
                tail.changes.push_back(Arc::new(change));
            }
            while tail.changes.len() > self.capacity || (tail.bytes > self.capacity_bytes && tail.changes.len() > 1) {
                tail.drop_oldest();
            }
            if self.log.is_none() {
                tail.compacted = tail.compacted.max(tail.base);
            }
        }
        if let Some(newest) = newest {
            self.signal.send_modify(|signal| signal.newest = newest);
        }
    }

    /// Forgets changes up to and including `up_to`.
    pub(super) fn compact(&self, up_to: Revision) {
        {
            let mut tail = self.tail();
            let up_to = up_to.min(tail.held());
            while tail.base < up_to {
                tail.drop_oldest();
            }
            tail.compacted = tail.compacted.max(up_to);
        }
        // Whoever waits behind it learns of it now.
        self.signal.send_modify(|_| ());
    }

    /// Starts again at `newest`, of whose history only what is after `compacted` is still there. Where the history is not the
    /// one that was told so far, `same` is false: every watch from before ends in `Compacted`, so that its reader lists anew.
    #[cfg(feature = "postgres")]
    pub(super) fn restart(&self, newest: Revision, compacted: Revision, same: bool) {
        {
            let mut tail = self.tail();
            *tail = Tail { base: newest, changes: VecDeque::new(), bytes: 0, compacted, history: tail.history };
            if !same {
                tail.history += 1;
            }
        }
        self.signal.send_modify(|signal| signal.newest = newest);
    }

    /// Ends every watch once it has got everything.
    pub(super) fn close(&self) {
        self.signal.send_modify(|signal| signal.closed = true);
    }

    fn read(&self, after: Revision, history: u64) -> Read {
        let tail = self.tail();
        if history != tail.history {
            return Read::Compacted(tail.base);
        }
        if after < tail.compacted {
            return Read::Compacted(tail.compacted);
        }
        if after < tail.base {
            return Read::InLog;
        }
        let skip = usize::try_from(after.0 - tail.base.0).unwrap_or(usize::MAX);
        Read::Changes(tail.changes.iter().skip(skip).take(PAGE).cloned().collect())
    }

    /// [`follow`](Self::follow) from a revision that there is; `newest` tells whether one that the feed has not heard of is.
    pub(super) async fn watch(
        self: Arc<Self>,
        prefix: &str,
        after: Revision,
        newest: impl Future<Output = Result<Revision, StoreError>>,
    ) -> Result<ChangeStream, StoreError> {
        if after > self.newest() {
            let newest = newest.await?;
            if after > newest {
                return Err(StoreError::Invalid(format!("revision {after} is in the future; the newest is {newest}")));
            }
        }
        let compacted = self.compacted();
        if after < compacted {
            return Err(StoreError::Compacted(compacted));
        }
        Ok(self.follow(prefix.to_owned(), after))
    }

    /// Every change after `after` to keys that start with `prefix`.
    fn follow(self: Arc<Self>, prefix: String, after: Revision) -> ChangeStream {
        let signal = self.signal.subscribe();
        let history = self.tail().history;
        let follower = Follower { feed: self, signal, prefix, after, history, ready: VecDeque::new(), ended: false };
        stream::unfold(follower, |mut follower| async move {
            let item = follower.next().await?;
            Some((item, follower))
        })
        .boxed()
    }
}

impl Tail {
    /// The newest revision that is held, or was dropped last.
    fn held(&self) -> Revision {
        Revision(self.base.0 + self.changes.len() as u64)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.changes.pop_front() {
            self.bytes -= weight(&oldest);
        }
        self.base = self.base.next();
    }
}

/// What a change weighs: the bytes of its keys and values.
pub(super) fn weight(change: &Change) -> usize {
    change.entries.iter().map(|(key, value)| key.as_str().len() + value.as_ref().map_or(0, Vec::len)).sum()
}

struct Follower {
    feed: Arc<Feed>,
    signal: watch::Receiver<Signal>,
    prefix: String,
    /// Everything up to here is told, or in `ready`.
    after: Revision,
    history: u64,
    ready: VecDeque<Arc<Change>>,
    ended: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Change, StoreError>> {
        while !self.ended {
            while let Some(change) = self.ready.pop_front() {
                if let Some(change) = watched(&change, &self.prefix) {
                    return Some(Ok(change));
                }
            }
            match self.fill().await {
                Ok(open) => self.ended = !open,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Waits until there is more to look at; `false`: there will never be.
    async fn fill(&mut self) -> Result<bool, StoreError> {
        loop {
            // Marked as seen before reading, so that what is published meanwhile wakes us.
            let closed = self.signal.borrow_and_update().closed;
            let (changes, up_to) = match (self.feed.read(self.after, self.history), &self.feed.log) {
                (Read::Compacted(at), _) => return Err(StoreError::Compacted(at)),
                (Read::Changes(changes), _) => {
                    let up_to = changes.last().map_or(self.after, |change| change.revision);
                    (changes, up_to)
                }
                (Read::InLog, Some(log)) => {
                    let page = log.page(self.after).await?;
                    (page.changes.into_iter().map(Arc::new).collect(), page.up_to)
                }
                (Read::InLog, None) => return Err(StoreError::Compacted(self.feed.compacted())),
            };
            if up_to > self.after {
                self.after = up_to;
                self.ready.extend(changes);
                return Ok(true);
            }
            if closed || self.signal.changed().await.is_err() {
                return Ok(false);
            }
        }
    }
}

fn watched(change: &Change, prefix: &str) -> Option<Change> {
    let entries: Vec<_> = change.entries.iter().filter(|(key, _)| key.as_str().starts_with(prefix)).cloned().collect();
    (!entries.is_empty()).then_some(Change { revision: change.revision, entries })
}
