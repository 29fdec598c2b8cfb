//! The embedded store: one SQLite file, durable before a write returns.
//!
//! - `open` looks at the file without changing it, then brings its schema up to date;
//! - `writer` is the only one that writes: it gathers whatever waits into one transaction (`transaction`), answers when that
//!   has reached the disk, and tells the feed;
//! - `reader` serves reads and watchers who are behind, from connections of its own;
//! - `schema` has the tables and their migrations, `error` tells what SQLite's errors mean to a caller.

mod error;
mod history;
mod open;
mod options;
mod reader;
mod schema;
mod snapshot;
mod transaction;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use coredinator_core::{
    Batch, ChangeStream, Key, Lease, LeaseOperation, Listing, Record, Revision, SharedClock, Store, StoreCapabilities,
    StoreError, StoreStatus,
};
use tokio::sync::{mpsc, oneshot};

pub use options::SqliteOptions;

use self::{reader::Reader, writer::Writer};
use super::{Snapshot, feed::Feed, group::Command, judge};

/// How many commands wait in front of the writer before callers wait to hand in theirs.
const INBOX: usize = 1024;

/// A [`Store`] in one SQLite file (with its `-wal` and `-shm` beside it). Clones share one connection to it.
///
/// Guarantees: a write is on the disk (WAL, `synchronous=FULL`) before it is acknowledged; the file is never deleted,
/// recreated or repaired; a file that is damaged, foreign, or of a newer schema is refused and left as it is.
///
/// Assumptions: it is opened within a tokio runtime, which runs its writer, and one process at a time coordinates with it
/// (see [`DataDir`](crate::DataDir)). Another process that locks the file for a while, such as a backup, delays writes.
///
/// It closes when the last clone is dropped, after what was handed in has been written; [`close`](Self::close) waits for it.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    commands: mpsc::Sender<Command>,
    reader: Arc<Reader>,
    feed: Arc<Feed>,
    clock: SharedClock,
}

impl SqliteStore {
    /// Opens the file, or creates it if it is absent or empty, and brings its schema up to date.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, SqliteOptions::default()).await
    }

    /// Opens the file with options.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a file that is damaged, is no coredinator store, or has a newer schema: it is then as
    /// it was before. [`StoreError::Unavailable`] when it stayed locked for [`SqliteOptions::lock_wait`], cannot be read,
    /// or its directory is missing.
    pub async fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let opened = open::open(&path, &options).await?;
        let reader = Arc::new(Reader::new(path.clone(), opened.readers));
        let feed = Arc::new(Feed::new(
            opened.revision,
            opened.compacted,
            options.tail_changes,
            options.tail_bytes,
            Some(reader.clone()),
        ));
        let (commands, inbox) = mpsc::channel(INBOX);
        let clock = Arc::clone(&options.clock);
        let writer = Writer::new(
            path.clone(),
            opened.writer,
            options,
            opened.history,
            inbox,
            Arc::clone(&feed),
            Arc::clone(&reader),
        );
        tokio::spawn(writer.run());
        Ok(Self { inner: Arc::new(Inner { path, commands, reader, feed, clock }) })
    }

    /// Reads all that a file holds, at one instant, though a coredinator may be using it; the file is not changed. `None`:
    /// there is no file.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn snapshot(path: impl AsRef<Path>) -> Result<Option<Snapshot>, StoreError> {
        snapshot::read(path.as_ref()).await
    }

    /// Fills a file that nobody uses, and is created if it is absent, with a snapshot, in one transaction; reads it back.
    /// `false`, and nothing is changed, if there was something in it that `replace` does not allow to replace. Epochs do not
    /// fall by it.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn restore(path: impl AsRef<Path>, snapshot: &Snapshot, replace: bool) -> Result<bool, StoreError> {
        snapshot::write(path.as_ref(), snapshot, replace).await
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Writes out what was handed in, ends every watch, and closes the file. Later calls on any clone are
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        // A writer that is gone has closed already.
        let _ = self.ask(|reply| Command::Close { reply }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable {
            message: format!("{} has been closed", self.inner.path.display()),
            source: None,
        };
        self.inner.commands.send(command(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { durable: true, shared: false }
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.inner.reader.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.inner.reader.list(prefix).await
    }

    async fn write(&self, batch: Batch) -> Result<Revision, StoreError> {
        judge::validate(&batch)?;
        self.ask(|reply| Command::Write { batch, reply }).await?
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
        // A commit is visible to readers an instant before the feed hears of it.
        Arc::clone(&self.inner.feed).watch(prefix, after, self.inner.reader.revision()).await
    }

    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError> {
        if operation == LeaseOperation::Inspect {
            // Only a look: it waits for nobody who writes.
            let lease = self.inner.reader.lease(name).await?;
            return judge::lease(lease.as_ref(), name, holder, operation, self.inner.clock.now());
        }
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.ask(|reply| Command::Lease { name, holder, operation, reply }).await?
    }

    async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        // In steps, between which the writer writes.
        loop {
            let (compacted, newest) = self.ask(|reply| Command::Compact { up_to, reply }).await??;
            if compacted >= up_to.min(newest) {
                return Ok(());
            }
        }
    }

    async fn check(&self) -> Result<StoreStatus, StoreError> {
        let round_trip = self.ask(|reply| Command::Check { reply }).await??;
        self.inner.reader.status(round_trip).await
    }
}
