//! The one that writes: it gathers what waits, commits it as one transaction, and answers when that is on the server's disk.

use std::{sync::Arc, time::Duration};

use coredinator_core::{Revision, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

use super::{
    connect::Connector,
    error::{Failure, classify, explain, is_connection, too_slow},
    transaction::{self, Bell, Done, Standing},
};
use crate::store::{
    feed::Feed,
    group::{self, Command, Waiting, answer_all},
    retention::{Retention, step},
};

pub(super) struct Writer {
    connector: Arc<Connector>,
    location: String,
    /// `None` after an error that may have left it in an unknown state.
    connection: Option<PgConnection>,
    inbox: mpsc::Receiver<Command>,
    feed: Arc<Feed>,
    bell: Bell,
    /// Wakes who follows the changes table, where a write may have happened that nobody else tells of.
    look: Arc<Notify>,
}

impl Writer {
    pub(super) fn new(
        connector: Arc<Connector>,
        connection: PgConnection,
        inbox: mpsc::Receiver<Command>,
        feed: Arc<Feed>,
        bell: Bell,
        look: Arc<Notify>,
    ) -> Self {
        let location = connector.options().location();
        Self { connector, location, connection: Some(connection), inbox, feed, bell, look }
    }

    /// Runs until it is told to close, or every handle is gone; answers who waits for that.
    pub(super) async fn run(mut self) -> Option<tokio::sync::oneshot::Sender<()>> {
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
        if let Some(connection) = self.connection {
            // The server finds out by itself where this cannot be told.
            let _ = timeout(Duration::from_secs(1), connection.close()).await;
        }
        closing
    }

    /// Carries out a request together with whatever else waits; answers the first command that does not belong with them.
    async fn gather(&mut self, first: Waiting) -> Option<Command> {
        let (mut group, other) = group::gather(first, &mut self.inbox);
        let committed = loop {
            // Who was told that it took too long must not see it happen later.
            group.retain(|waiting| !waiting.is_abandoned());
            if group.is_empty() {
                return other;
            }
            if let Some(committed) = self.commit(&group).await.transpose() {
                break committed;
            }
        };
        match committed {
            Ok(done) => {
                let standing = done.standing;
                self.feed.publish(done.changes);
                answer_all(group, done.answers);
                self.forget_due(standing).await;
            }
            Err(Failure::Sql(error)) => {
                tracing::warn!(store = self.location, %error, "writing the store failed");
                let error = Arc::new(error);
                for waiting in group {
                    waiting.refuse(classify(&self.location, Arc::clone(&error)));
                }
            }
            Err(Failure::Told(what)) => {
                tracing::error!("{what}");
                for waiting in group {
                    waiting.refuse(StoreError::Unusable(what.clone()));
                }
            }
        }
        other
    }

    /// `None`: nothing has happened, because one of them was abandoned meanwhile.
    async fn commit(&mut self, group: &[Waiting]) -> Result<Option<Done>, Failure> {
        let patience = self.connector.options().patience();
        let answer = timeout(patience, self.try_commit(group)).await;
        answer.unwrap_or_else(|_| {
            self.connection = None;
            self.look.notify_one();
            Err(too_slow().into())
        })
    }

    async fn try_commit(&mut self, group: &[Waiting]) -> Result<Option<Done>, Failure> {
        let requests: Vec<_> = group.iter().map(Waiting::request).collect();
        let mut again = true;
        loop {
            let mut connection = self.connected().await?;
            let prepared = transaction::prepare(&mut connection, &requests, &self.bell, &self.location).await;
            match prepared {
                Ok((done, to_commit)) => {
                    if to_commit && group.iter().any(Waiting::is_abandoned) {
                        transaction::give_up(&mut connection).await?;
                        self.connection = Some(connection);
                        return Ok(None);
                    }
                    if to_commit && let Err(error) = transaction::commit(&mut connection).await {
                        // It may have happened: if so, who follows the table finds it there.
                        self.look.notify_one();
                        return Err(error.into());
                    }
                    self.connection = Some(connection);
                    return Ok(Some(done));
                }
                // Nothing has happened.
                Err(failure) => retry(&mut again, failure)?,
            }
        }
    }

    /// The connection, taken out until it has proved well; made anew if the last one failed.
    async fn connected(&mut self) -> Result<PgConnection, sqlx::Error> {
        match self.connection.take() {
            Some(ready) => Ok(ready),
            None => self.connector.connect().await,
        }
    }

    /// Forgets a step of what is kept beyond what is wanted, if it is time to.
    async fn forget_due(&mut self, standing: Standing) {
        let options = self.connector.options();
        let keep = Retention { revisions: options.retained_revisions, bytes: options.retained_bytes };
        let mut due = keep.by_count(standing.revision, standing.compacted);
        if keep.is_exceeded_by(standing.weight)
            && let Some(mut connection) = self.connection.take()
        {
            let weighing = timeout(options.patience(), transaction::too_heavy(&mut connection, keep.bytes)).await;
            match weighing {
                Ok(Ok(heavy)) => {
                    due = due.max(heavy);
                    self.connection = Some(connection);
                }
                Ok(Err(error)) => tracing::warn!(store = self.location, %error, "weighing the history failed"),
                Err(_) => tracing::warn!(store = self.location, "weighing the history took too long"),
            }
        }
        if let Some(due) = step(due, standing.compacted)
            && let Err(error) = self.compact(due).await
        {
            // The next write tries again.
            tracing::warn!(%error, "forgetting old changes failed");
        }
    }

    async fn compact(&mut self, up_to: Revision) -> Result<(Revision, Revision), StoreError> {
        let limit = self.connector.options().patience();
        let forgotten = timeout(limit, self.try_compact(up_to)).await.unwrap_or_else(|_| Err(too_slow().into()));
        let standing = forgotten.map_err(|failure| explain(&self.location, failure))?;
        self.feed.compact(standing.compacted);
        Ok((standing.compacted, standing.revision))
    }

    async fn try_compact(&mut self, up_to: Revision) -> Result<Standing, Failure> {
        let mut again = true;
        loop {
            let mut connection = self.connected().await?;
            match transaction::forget(&mut connection, up_to, &self.location).await {
                Ok(standing) => {
                    self.connection = Some(connection);
                    return Ok(standing);
                }
                Err(failure) => retry(&mut again, failure)?,
            }
        }
    }

    async fn check(&mut self) -> Result<Duration, StoreError> {
        let limit = self.connector.options().patience();
        let checked = timeout(limit, self.try_check()).await.unwrap_or_else(|_| Err(too_slow().into()));
        checked.map_err(|failure| explain(&self.location, failure))
    }

    async fn try_check(&mut self) -> Result<Duration, Failure> {
        let mut again = true;
        loop {
            let mut connection = self.connected().await?;
            let since = Instant::now();
            match transaction::round_trip(&mut connection).await {
                Ok(()) => {
                    self.connection = Some(connection);
                    return Ok(since.elapsed());
                }
                Err(error) => retry(&mut again, error.into())?,
            }
        }
    }
}

/// Whether it is worth another attempt, which happens once: a connection that died while it was idle says so only when it is
/// used.
fn retry(again: &mut bool, failure: Failure) -> Result<(), Failure> {
    match failure {
        Failure::Sql(error) if is_connection(&error) && std::mem::take(again) => Ok(()),
        failure => Err(failure),
    }
}
