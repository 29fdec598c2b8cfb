//! Connections: made with the session's settings, in bounded time, and lent to readers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, PgConnection};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{PostgresOptions, error::too_slow};

/// Makes connections.
pub(super) struct Connector {
    options: PostgresOptions,
    settings: String,
}

impl Connector {
    pub(super) fn new(options: PostgresOptions) -> Self {
        let millis = |duration: Duration| duration.as_millis();
        let (statement, connect) = (millis(options.statement_timeout), millis(options.connect_timeout));
        // A process that stops within a transaction holds up everybody who writes: the server ends its session. What a
        // user set for the database (the isolation level, no waiting for the disk) must not break what a store promises.
        let settings = format!(
            "SET search_path = {schema};
             SET statement_timeout = {statement};
             SET lock_timeout = {statement};
             SET idle_in_transaction_session_timeout = {statement};
             SET tcp_user_timeout = {connect};
             SET default_transaction_isolation = 'read committed';
             SET standard_conforming_strings = on;
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
            schema = options.schema,
        );
        Self { options, settings }
    }

    pub(super) fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// The settings of every session, as statements.
    pub(super) fn settings(&self) -> &str {
        &self.settings
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = async {
            let mut connection = self.options.connect.connect().await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(self.settings.as_str())).execute(&mut connection).await?;
            Ok(connection)
        };
        timeout(self.options.connect_timeout, connecting).await.unwrap_or_else(|_| Err(too_slow()))
    }
}

/// The connections of those who read. A connection whose call was not finished is dropped, not used again: so a reader that
/// gave up leaves nothing behind that could hold up the next.
pub(super) struct Pool {
    slots: Semaphore,
    size: usize,
    idle: Mutex<Vec<PgConnection>>,
}

impl Pool {
    pub(super) fn new(size: usize) -> Self {
        Self { slots: Semaphore::new(size), size, idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for one call, once there is one; `None`: the pool is closed.
    pub(super) async fn lend(&self, connector: &Connector) -> Option<Result<Lent<'_>, sqlx::Error>> {
        let slot = self.slots.acquire().await.ok()?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => Ok(connection),
            None => connector.connect().await,
        };
        Some(connection.map(|connection| Lent { pool: self, connection, _slot: slot }))
    }

    /// Drops the connections that nobody uses: they are probably as broken as the one that was found to be.
    pub(super) fn forget_idle(&self) {
        self.idle().clear();
    }

    /// How many connections are lent, and wait to be.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.size.saturating_sub(self.slots.available_permits()), self.idle().len())
    }

    /// Lends nothing any more.
    pub(super) fn close(&self) {
        self.slots.close();
        self.forget_idle();
    }
}

/// A connection on loan; it goes back only after a call that ended well.
pub(super) struct Lent<'p> {
    pool: &'p Pool,
    connection: PgConnection,
    _slot: SemaphorePermit<'p>,
}

impl Lent<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Gives it back after a call that ended well.
    pub(super) fn give_back(self) {
        self.pool.idle().push(self.connection);
    }
}
