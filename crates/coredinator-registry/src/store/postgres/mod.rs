//! The store of several coredinators: a schema of a PostgreSQL server.
//!
//! - `options` reads the URL; `connect` makes connections and lends them to readers; `open` looks at the schema without
//!   changing it, then brings it up to date;
//! - `writer` gathers whatever waits in this process into one transaction (`transaction`), answers when that is on the
//!   server's disk, and tells the feed;
//! - `follow` tells the feed what others write: woken by notifications, told by the changes table alone;
//! - `reader` serves reads and watchers who are behind;
//! - `schema` has the tables and their migrations, `error` tells what PostgreSQL's errors mean to a caller.
//!
//! Whoever writes locks the one row of `meta` until that is committed. So revisions become visible in the order of their
//! numbers, and leases are judged one after the other, by the server's clock.

mod connect;
mod error;
mod follow;
mod open;
mod options;
mod reader;
mod schema;
mod snapshot;
mod transaction;
mod verify;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use coredinator_core::{
    Batch, ChangeStream, Key, Lease, LeaseOperation, Listing, Record, Revision, Store, StoreCapabilities, StoreCheck,
    StoreError, StoreStatus,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use options::PostgresOptions;

use self::{
    connect::Connector,
    error::{classify, too_slow},
    follow::{Follower, Reach},
    reader::Reader,
    transaction::Bell,
    writer::Writer,
};
use super::{Snapshot, feed::Feed, group::Command, judge};

/// How many commands wait in front of the writer before callers wait to hand in theirs.
const INBOX: usize = 1024;

/// A [`Store`] in a schema of a PostgreSQL server (13 or newer), which any number of coredinators share. Clones share their
/// connections.
///
/// Guarantees: a write is on the server's disk before it is acknowledged (and on a synchronous standby's, where the server
/// has one); revisions become visible in their order, whoever writes; tables that are foreign or of a schema that this
/// version does not know are refused and left as they are.
///
/// While the server cannot be reached, calls are [`StoreError::Unavailable`] in bounded time, and watches wait; once it can,
/// everything goes on by itself, and watches tell what they would have told. A write whose answer was lost may have happened.
///
/// Assumptions: it is opened within a tokio runtime, which runs its tasks. Sessions are its own (a pooler in front of the
/// server must pool by session).
///
/// It closes when the last clone is dropped, after what was handed in has been written; [`close`](Self::close) waits for it.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    commands: mpsc::Sender<Command>,
    reader: Arc<Reader>,
    feed: Arc<Feed>,
    reach: Arc<Reach>,
    connector: Arc<Connector>,
}

impl PostgresStore {
    /// Connects as a URL says (see [`PostgresOptions`]), makes the schema if it is absent, and brings it up to date.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for what is no such URL; the others as [`open_with`](Self::open_with).
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(PostgresOptions::new(url)?).await
    }

    /// Connects with options.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for tables that are not coredinator's or have a newer schema: they are then as they were.
    /// [`StoreError::Unavailable`] when the server could not be reached for [`PostgresOptions::open_wait`], or refuses.
    pub async fn open_with(options: PostgresOptions) -> Result<Self, StoreError> {
        let connector = Arc::new(Connector::new(options));
        let opened = open::open(&connector).await?;
        let options = connector.options();
        // One connection writes, one follows.
        let reader = Arc::new(Reader::new(Arc::clone(&connector), options.max_connections.saturating_sub(2).max(1)));
        let feed = Arc::new(Feed::new(
            opened.revision,
            opened.compacted,
            options.tail_changes,
            options.tail_bytes,
            Some(reader.clone()),
        ));
        let (reach, look, closed) = (Arc::new(Reach::new()), Arc::new(Notify::new()), CancellationToken::new());
        let bell =
            Bell { channel: format!("coredinator.{}", options.schema), who: format!("{:016x}", fastrand::u64(..)) };
        let (commands, inbox) = mpsc::channel(INBOX);
        let writer = Writer::new(
            Arc::clone(&connector),
            opened.writer,
            inbox,
            Arc::clone(&feed),
            bell.clone(),
            Arc::clone(&look),
        );
        let follower = Follower {
            connector: Arc::clone(&connector),
            feed: Arc::clone(&feed),
            bell,
            look,
            reach: Arc::clone(&reach),
            closed: closed.clone(),
            history: None,
        };
        tokio::spawn(follower.run());
        let (ending, reading) = (Arc::clone(&feed), Arc::clone(&reader));
        tokio::spawn(async move {
            let closing = writer.run().await;
            ending.close();
            reading.close();
            closed.cancel();
            if let Some(reply) = closing {
                let _ = reply.send(());
            }
        });
        Ok(Self { inner: Arc::new(Inner { commands, reader, feed, reach, connector }) })
    }

    /// Looks at everything that has to be right for a server to be a store, part by part, before it is one; leaves nothing
    /// behind. Takes at most as long as a connection and eight calls may.
    pub async fn verify(options: PostgresOptions) -> Vec<StoreCheck> {
        verify::verify(&Connector::new(options)).await
    }

    /// Reads all that is held there, at one instant, though coredinators may be using it; nothing is changed. `None`: there
    /// is no store.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn snapshot(options: PostgresOptions) -> Result<Option<Snapshot>, StoreError> {
        snapshot::read(&Connector::new(options)).await
    }

    /// Fills a schema that nobody uses, and is made if it is absent, with a snapshot, in one transaction; reads it back.
    /// `false`, and nothing is changed, if there was something in it that `replace` does not allow to replace. Epochs do not
    /// fall by it.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn restore(options: PostgresOptions, snapshot: &Snapshot, replace: bool) -> Result<bool, StoreError> {
        snapshot::write(&Connector::new(options), snapshot, replace).await
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn location(&self) -> &str {
        self.inner.reader.location()
    }

    /// Writes out what was handed in, ends every watch, and closes the connections. Later calls on any clone are
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        // A writer that is gone has closed already.
        if self.inner.commands.send(Command::Close { reply }).await.is_ok() {
            let _ = closed.await;
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable {
            message: format!("the connection to {} has been closed", self.location()),
            source: None,
        };
        let asking = async {
            self.inner.commands.send(command(reply)).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())
        };
        // Others may be before us, each waiting as long for a server that does not answer.
        timeout(self.inner.connector.options().patience(), asking)
            .await
            .unwrap_or_else(|_| Err(classify(self.location(), too_slow())))
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("location", &self.location()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { durable: true, shared: true }
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
        // Another coredinator may have written what the feed has not heard of yet.
        Arc::clone(&self.inner.feed).watch(prefix, after, self.inner.reader.revision()).await
    }

    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError> {
        if operation == LeaseOperation::Inspect {
            // Only a look: it waits for nobody who writes, and is had of a server that takes no writes.
            let (lease, now) = self.inner.reader.lease(name).await?;
            return judge::lease(lease.as_ref(), name, holder, operation, now);
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

    async fn verify(&self) -> Vec<StoreCheck> {
        verify::verify(&self.inner.connector).await
    }

    fn unreachable_for(&self) -> Option<Duration> {
        self.inner.reach.unreachable_for()
    }
}
