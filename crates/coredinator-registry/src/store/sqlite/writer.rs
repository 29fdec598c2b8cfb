//! The one that writes: it gathers what waits, commits it as one transaction, and answers when that is on the disk.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coredinator_core::{Revision, StoreError};
use sqlx::{Connection, SqliteConnection};
use tokio::{sync::mpsc, time::Instant};

use super::{
    SqliteOptions,
    error::{classify, is_full, is_locked},
    history::History,
    open::{Patience, connect_writer},
    reader::Reader,
    transaction::{self, Committed},
};
use crate::store::{
    feed::Feed,
    group::{self, Answer, Command, Request, Waiting, answer_all},
    retention::Retention,
};

pub(super) struct Writer {
    path: PathBuf,
    /// `None` after an error that may have left it in an unknown state.
    connection: Option<SqliteConnection>,
    options: SqliteOptions,
    history: History,
    inbox: mpsc::Receiver<Command>,
    feed: Arc<Feed>,
    reader: Arc<Reader>,
    /// Since when another process has had the file locked, and when that was seen last; `None`: none has.
    locked: Option<(Patience, Instant)>,
}

/// A lock that is seen again within this is the same one.
const SAME_LOCK: Duration = Duration::from_secs(2);

fn refuse_all(group: Vec<Waiting>, path: &Path, error: sqlx::Error) {
    let error = Arc::new(error);
    for waiting in group {
        waiting.refuse(classify(path, Arc::clone(&error)));
    }
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        connection: SqliteConnection,
        options: SqliteOptions,
        history: History,
        inbox: mpsc::Receiver<Command>,
        feed: Arc<Feed>,
        reader: Arc<Reader>,
    ) -> Self {
        Self { path, connection: Some(connection), options, history, inbox, feed, reader, locked: None }
    }

    pub(super) async fn run(mut self) {
        let mut closing = None;
        let mut next = None;
        loop {
            let command = match next.take() {
                Some(command) => command,
                None => match self.inbox.recv().await {
                    Some(command) => command,
                    None => break,
                },
            };
            match command {
                Command::Write { batch, reply } => next = self.gather(Waiting::Write(batch, reply)).await,
                Command::Lease { name, holder, operation, reply } => {
                    next = self.gather(Waiting::Lease { name, holder, operation, reply }).await;
                }
                Command::Compact { up_to, reply } => drop(reply.send(self.compact(up_to).await)),
                Command::Check { reply } => drop(reply.send(self.check().await)),
                Command::Close { reply } => {
                    // What was handed in before is still carried out; nothing is taken any more.
                    self.inbox.close();
                    closing.get_or_insert(reply);
                }
            }
        }
        self.feed.close();
        self.reader.close().await;
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(file = %self.path.display(), %error, "closing the store failed");
        }
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    /// Carries out a request together with whatever else waits; answers the first command that does not belong with them.
    async fn gather(&mut self, first: Waiting) -> Option<Command> {
        let (group, other) = group::gather(first, &mut self.inbox);
        match self.commit(&group).await {
            Ok(answers) => answer_all(group, answers),
            Err(error) if is_full(&error) && group.len() > 1 => {
                // One that needs much room must not take those with it that need little.
                for waiting in group {
                    let alone = vec![waiting];
                    match self.commit(&alone).await {
                        Ok(answers) => answer_all(alone, answers),
                        Err(error) => refuse_all(alone, &self.path, error),
                    }
                }
            }
            Err(error) => refuse_all(group, &self.path, error),
        }
        other
    }

    async fn commit(&mut self, group: &[Waiting]) -> Result<Vec<Answer>, sqlx::Error> {
        let requests: Vec<_> = group.iter().map(Waiting::request).collect();
        let committed = loop {
            match self.try_commit(&requests).await {
                Ok(committed) => break committed,
                Err(error) => self.recover(error).await?,
            }
        };
        self.locked = None;
        self.history.add(&committed.changes);
        self.feed.publish(committed.changes);
        if committed.compacted > self.feed.compacted() {
            self.history.forget(committed.compacted);
            self.feed.compact(committed.compacted);
        }
        Ok(committed.answers)
    }

    async fn try_commit(&mut self, requests: &[Request<'_>]) -> Result<Committed, sqlx::Error> {
        let now = self.options.clock.now();
        let keep = Retention { revisions: self.options.retained_revisions, bytes: self.options.retained_bytes };
        let connection = connected(&mut self.connection, &self.path, &self.options).await?;
        transaction::carry_out(connection, requests, now, &self.history, keep).await
    }

    async fn compact(&mut self, up_to: Revision) -> Result<(Revision, Revision), StoreError> {
        loop {
            match self.try_compact(up_to).await {
                Ok((compacted, newest)) => {
                    self.locked = None;
                    self.history.forget(compacted);
                    self.feed.compact(compacted);
                    return Ok((compacted, newest));
                }
                Err(error) => self.recover(error).await.map_err(|error| classify(&self.path, error))?,
            }
        }
    }

    async fn try_compact(&mut self, up_to: Revision) -> Result<(Revision, Revision), sqlx::Error> {
        transaction::forget(connected(&mut self.connection, &self.path, &self.options).await?, up_to).await
    }

    async fn check(&mut self) -> Result<Duration, StoreError> {
        loop {
            let since = Instant::now();
            match self.try_check().await {
                Ok(()) => {
                    self.locked = None;
                    return Ok(since.elapsed());
                }
                Err(error) => self.recover(error).await.map_err(|error| classify(&self.path, error))?,
            }
        }
    }

    async fn try_check(&mut self) -> Result<(), sqlx::Error> {
        transaction::round_trip(connected(&mut self.connection, &self.path, &self.options).await?).await
    }

    /// Makes the connection fit for another attempt; returns once that is worth making, or the error if it is not.
    async fn recover(&mut self, error: sqlx::Error) -> Result<(), sqlx::Error> {
        if is_locked(&error) || is_full(&error) {
            if let Some(connection) = &mut self.connection {
                // It may have rolled back by itself, or not have begun.
                let _ = sqlx::query("ROLLBACK").execute(connection).await;
            }
        } else {
            self.connection = None;
        }
        if !is_locked(&error) {
            tracing::warn!(file = %self.path.display(), %error, "writing the store failed");
            return Err(error);
        }
        // Who comes after those who have waited for the lock waits with them, not anew.
        let known = self.locked.take().filter(|(_, seen)| seen.elapsed() < SAME_LOCK);
        let patience = known.map(|(patience, _)| patience);
        let mut patience = patience.unwrap_or_else(|| Patience::new(&self.path, self.options.lock_wait));
        let waited = patience.wait(error).await;
        self.locked = Some((patience, Instant::now()));
        waited
    }
}

/// The connection, made anew if the last one failed.
async fn connected<'c>(
    connection: &'c mut Option<SqliteConnection>,
    path: &Path,
    options: &SqliteOptions,
) -> Result<&'c mut SqliteConnection, sqlx::Error> {
    let ready = match connection.take() {
        Some(ready) => ready,
        None => connect_writer(path, options, false).await?,
    };
    Ok(connection.insert(ready))
}
