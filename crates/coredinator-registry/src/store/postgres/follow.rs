//! Follows the changes table for the feed: what other coredinators write, and what this one wrote without hearing of it.
//!
//! Notifications only say when to look. The table tells, and it is looked at every so often even if nobody said so.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::Revision;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connect::Connector,
    error::too_slow,
    reader::{page, revision},
    transaction::Bell,
};
use crate::store::feed::Feed;

/// The longest pause between two attempts to reach the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whether the server can be reached, as far as is known.
pub(super) struct Reach(Mutex<Seen>);

struct Seen {
    /// When the table was last looked at with success.
    at: Instant,
    failing: bool,
}

impl Reach {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Seen { at: Instant::now(), failing: false }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How old what is known is, if the server cannot be reached.
    pub(super) fn unreachable_for(&self) -> Option<Duration> {
        let seen = self.seen();
        seen.failing.then(|| seen.at.elapsed())
    }
}

pub(super) struct Follower {
    pub(super) connector: Arc<Connector>,
    pub(super) feed: Arc<Feed>,
    pub(super) bell: Bell,
    pub(super) look: Arc<Notify>,
    pub(super) reach: Arc<Reach>,
    pub(super) closed: CancellationToken,
    /// Which of the server's histories is followed, once that is known.
    pub(super) history: Option<String>,
}

impl Follower {
    pub(super) async fn run(self) {
        let closed = self.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(mut self) {
        let location = self.connector.options().location();
        let mut pause = Duration::from_millis(50);
        loop {
            let Err(error) = self.session(&mut pause).await;
            let newly = !std::mem::replace(&mut self.reach.seen().failing, true);
            if newly {
                tracing::warn!(store = location, %error, "the store cannot be followed; what is shown may be stale");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows over one connection, for as long as that works.
    async fn session(&mut self, pause: &mut Duration) -> Result<std::convert::Infallible, sqlx::Error> {
        let connector = Arc::clone(&self.connector);
        let options = connector.options();
        let patience = options.patience();
        let mut listener = within(patience, self.listen()).await?;
        within(patience, self.look_at_history(&mut listener)).await?;
        loop {
            within(patience, self.catch_up(&mut listener)).await?;
            *pause = Duration::from_millis(50);
            let newly = {
                let mut seen = self.reach.seen();
                seen.at = Instant::now();
                std::mem::replace(&mut seen.failing, false)
            };
            if newly {
                tracing::info!(store = options.location(), "the store can be followed again");
            }
            let told = async {
                loop {
                    match listener.try_recv().await? {
                        // What this process wrote it has told its watchers already.
                        Some(notification) if notification.payload() == self.bell.who => {}
                        Some(_) => return Ok(()),
                        None => return Err(sqlx::Error::WorkerCrashed),
                    }
                }
            };
            tokio::select! {
                told = told => told?,
                () = self.look.notified() => {}
                () = tokio::time::sleep(options.poll) => {}
            }
            while listener.next_buffered().is_some() {}
        }
    }

    async fn listen(&self) -> Result<PgListener, sqlx::Error> {
        let options = self.connector.options();
        let settings: Arc<str> = self.connector.settings().into();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(options.connect_timeout)
            .after_connect(move |connection, _| {
                let settings = Arc::clone(&settings);
                Box::pin(
                    async move { sqlx::raw_sql(sqlx::AssertSqlSafe(&*settings)).execute(connection).await.map(drop) },
                )
            })
            .connect_lazy_with(options.connect.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(&self.bell.channel).await?;
        Ok(listener)
    }

    /// Another server may have taken over, to which not all that was acknowledged had come: the history that was told may not
    /// be the one that goes on. PostgreSQL numbers histories (timelines), and a takeover begins a new one.
    async fn look_at_history(&mut self, listener: &mut PgListener) -> Result<(), sqlx::Error> {
        let history: Option<String> = sqlx::query_scalar(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END",
        )
        .fetch_one(&mut *listener)
        .await?;
        let Some(history) = history else { return Ok(()) };
        let before = self.history.replace(history.clone());
        if before.is_some_and(|before| before != history) {
            tracing::warn!(history, "another server has taken over as the store; reading it anew");
            let row = sqlx::query("SELECT revision, compacted FROM meta").fetch_one(&mut *listener).await?;
            self.feed.restart(revision(&row, "revision")?, revision(&row, "compacted")?, false);
        }
        Ok(())
    }

    /// Tells the feed everything that it has not been told.
    async fn catch_up(&self, listener: &mut PgListener) -> Result<(), sqlx::Error> {
        loop {
            let row = sqlx::query("SELECT revision, compacted FROM meta").fetch_one(&mut *listener).await?;
            let (newest, compacted) = (revision(&row, "revision")?, revision(&row, "compacted")?);
            // Read after the row: what this process commits meanwhile is newer than the row says, not lost.
            let told = self.feed.newest();
            if newest < told && self.is_lost(listener, told).await? {
                tracing::error!(
                    told = told.0,
                    newest = newest.0,
                    "the store lost acknowledged writes (a failover without them, or a restored backup); reading it anew"
                );
                self.feed.restart(newest, compacted, false);
                continue;
            }
            if compacted > self.feed.compacted() {
                if compacted > told {
                    self.feed.restart(newest, compacted, true);
                } else {
                    self.feed.compact(compacted);
                }
            }
            if newest <= self.feed.newest() {
                return Ok(());
            }
            let connection: &mut sqlx::PgConnection = sqlx::Acquire::acquire(&mut *listener).await?;
            if let Ok(page) = page(connection, self.feed.newest()).await? {
                self.feed.publish(page.changes);
            }
        }
    }

    /// Whether the store is, now, at a revision before one that was told.
    async fn is_lost(&self, listener: &mut PgListener, told: Revision) -> Result<bool, sqlx::Error> {
        let row = sqlx::query("SELECT revision FROM meta").fetch_one(&mut *listener).await?;
        Ok(revision(&row, "revision")? < told)
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(too_slow()))
}
