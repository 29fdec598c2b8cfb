//! Reads, each one statement and so one snapshot, tried once more where the connection turned out to be gone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use coredinator_core::{
    Change, Key, Lease, Listing, Record, Revision, StoreConnections, StoreError, StoreStatus, Timestamp,
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    connect::{Connector, Pool},
    error::{classify, is_connection, too_slow},
    schema::VERSION,
    transaction::{lease, stamp},
};
use crate::store::feed::{Log, PAGE, Page};

/// The longest pause between two attempts of a watcher to read on.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    connector: Arc<Connector>,
    pool: Pool,
    location: String,
    closed: CancellationToken,
}

/// Of the changes after some revision; the join always yields a row.
const CHANGES: &str = "
    SELECT meta.revision AS newest, meta.compacted, changes.revision, changes.key, changes.value
    FROM meta LEFT JOIN changes ON changes.revision > $1 AND changes.revision <= $2
    ORDER BY changes.revision, changes.position";

impl Reader {
    pub(super) fn new(connector: Arc<Connector>, size: usize) -> Self {
        let location = connector.options().location();
        Self { connector, pool: Pool::new(size), location, closed: CancellationToken::new() }
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Ends every read that waits, and refuses those to come.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.pool.close();
    }

    fn closed(&self) -> StoreError {
        StoreError::Unavailable {
            message: format!("the connection to {} has been closed", self.location),
            source: None,
        }
    }

    /// What one statement answers, in bounded time.
    async fn rows(&self, statement: &'static str, arguments: &[Argument<'_>]) -> Result<Vec<PgRow>, StoreError> {
        let reading = timeout(self.connector.options().patience(), self.try_rows(statement, arguments));
        tokio::select! {
            read = reading => read.unwrap_or_else(|_| Err(classify(&self.location, too_slow()))),
            () = self.closed.cancelled() => Err(self.closed()),
        }
    }

    async fn try_rows(&self, statement: &'static str, arguments: &[Argument<'_>]) -> Result<Vec<PgRow>, StoreError> {
        let mut again = true;
        loop {
            let mut lent = match self.pool.lend(&self.connector).await {
                None => return Err(self.closed()),
                Some(lent) => lent.map_err(|error| classify(&self.location, error))?,
            };
            let query = arguments.iter().fold(sqlx::query(statement), |query, argument| match *argument {
                Argument::Text(text) => query.bind(text),
                Argument::Revision(revision) => query.bind(signed(revision)),
            });
            match query.fetch_all(lent.connection()).await {
                Ok(rows) => {
                    lent.give_back();
                    return Ok(rows);
                }
                Err(error) if again && is_connection(&error) => {
                    drop(lent);
                    self.pool.forget_idle();
                    again = false;
                }
                Err(error) => return Err(classify(&self.location, error)),
            }
        }
    }

    fn wrong(&self, error: sqlx::Error) -> StoreError {
        classify(&self.location, error)
    }

    /// Those that read, and the two that write and follow.
    fn connections(&self) -> StoreConnections {
        let count = |connections: usize| u32::try_from(connections).unwrap_or(u32::MAX);
        let (in_use, idle) = self.pool.counts();
        StoreConnections {
            max: count(self.connector.options().max_connections),
            in_use: count(in_use + 2),
            idle: count(idle),
        }
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let rows =
            self.rows("SELECT value, revision FROM records WHERE key = $1", &[Argument::Text(key.as_str())]).await?;
        let record = rows.first().map(|row| record(row, key.clone()));
        record.transpose().map_err(|error| self.wrong(error))
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        // The join always yields a row, so that the revision comes with the records. Keys are visible ASCII: DEL ends a
        // prefix's range.
        const LIST: &str = "
            SELECT meta.revision AS newest, records.key, records.value, records.revision
            FROM meta LEFT JOIN records ON records.key >= $1 AND records.key < $1 || chr(127)
            ORDER BY records.key";
        let rows = self.rows(LIST, &[Argument::Text(prefix)]).await?;
        listing(&rows).map_err(|error| self.wrong(error))
    }

    /// A lease as it stands, whoever is writing meanwhile; `None`: there never was one. The time is the server's.
    pub(super) async fn lease(&self, name: &str) -> Result<(Option<Lease>, Timestamp), StoreError> {
        // The join always yields a row, so that the time comes with the lease.
        const LEASE: &str = "
            SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now, leases.name, leases.holder,
                leases.epoch AS number, leases.expires_at AS other
            FROM meta LEFT JOIN leases ON leases.name = $1";
        let rows = self.rows(LEASE, &[Argument::Text(name)]).await?;
        let read = |row: &PgRow| {
            let known = row.try_get::<Option<&str>, _>("name")?.is_some();
            Ok((known.then(|| lease(row)).transpose()?, stamp(row.try_get("now")?)?))
        };
        rows.first().map_or(Err(sqlx::Error::RowNotFound), read).map_err(|error| self.wrong(error))
    }

    pub(super) async fn revision(&self) -> Result<Revision, StoreError> {
        let rows = self.rows("SELECT revision FROM meta", &[]).await?;
        rows.first().map_or(Ok(Revision::ZERO), |row| revision(row, "revision")).map_err(|error| self.wrong(error))
    }

    pub(super) async fn status(&self, round_trip: Duration) -> Result<StoreStatus, StoreError> {
        const STATUS: &str = "
            SELECT revision, compacted, schema_version,
                floor(extract(epoch FROM compacted_at) * 1000000)::bigint AS compacted_at, current_setting('server_version') AS version,
                (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
                    WHERE relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace
                        WHERE nspname = current_setting('search_path'))) AS size
            FROM meta";
        let rows = self.rows(STATUS, &[]).await?;
        let row = rows.first().ok_or_else(|| self.wrong(sqlx::Error::RowNotFound))?;
        let leases = "SELECT name, holder, epoch AS number, expires_at AS other FROM leases ORDER BY name";
        let leases = self.rows(leases, &[]).await?.iter().map(lease).collect::<Result<_, _>>();
        let status = leases.and_then(|leases| self.read_status(row, leases, round_trip));
        status.map_err(|error| self.wrong(error))
    }

    fn read_status(&self, row: &PgRow, leases: Vec<Lease>, round_trip: Duration) -> Result<StoreStatus, sqlx::Error> {
        Ok(StoreStatus {
            backend: "postgres".to_owned(),
            location: self.location.clone(),
            version: row.try_get("version")?,
            schema_version: u32::try_from(row.try_get::<i32, _>("schema_version")?).unwrap_or(VERSION),
            revision: revision(row, "revision")?,
            compacted: revision(row, "compacted")?,
            size_bytes: row.try_get::<Option<i64>, _>("size")?.map(i64::unsigned_abs),
            round_trip_ms: round_trip.as_secs_f64() * 1e3,
            compacted_at: row.try_get::<Option<i64>, _>("compacted_at")?.map(stamp).transpose()?,
            connections: Some(self.connections()),
            leases,
            reads: None,
            writes: None,
        })
    }
}

/// What a statement is given.
#[derive(Clone, Copy)]
enum Argument<'a> {
    Text(&'a str),
    Revision(Revision),
}

#[async_trait]
impl Log for Reader {
    /// Waits while the server is away: who watches is told everything later.
    async fn page(&self, after: Revision) -> Result<Page, StoreError> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.rows(CHANGES, &[Argument::Revision(after), Argument::Revision(until(after))]).await {
                Ok(rows) => {
                    let page = read_page(&rows, after).map_err(|error| self.wrong(error))?;
                    return page.map_err(StoreError::Compacted);
                }
                Err(error) if error.is_retryable() && !self.closed.is_cancelled() => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The oldest changes after `after`; the revision up to which there are none any more, where they are forgotten.
pub(super) async fn page(
    connection: &mut PgConnection,
    after: Revision,
) -> Result<Result<Page, Revision>, sqlx::Error> {
    let rows = sqlx::query(CHANGES).bind(signed(after)).bind(signed(until(after))).fetch_all(connection).await?;
    read_page(&rows, after)
}

/// The newest revision of the page after `after`.
fn until(after: Revision) -> Revision {
    Revision(after.0.saturating_add(PAGE as u64))
}

fn read_page(rows: &[PgRow], after: Revision) -> Result<Result<Page, Revision>, sqlx::Error> {
    let mut page = Page { changes: Vec::new(), up_to: after };
    for row in rows {
        let compacted = revision(row, "compacted")?;
        if after < compacted {
            return Ok(Err(compacted));
        }
        page.up_to = until(after).min(revision(row, "newest")?);
        let Some(key) = key(row)? else { break };
        let value = row.try_get("value")?;
        let at = revision(row, "revision")?;
        match page.changes.last_mut() {
            Some(change) if change.revision == at => change.entries.push((key, value)),
            _ => page.changes.push(Change { revision: at, entries: vec![(key, value)] }),
        }
    }
    Ok(Ok(page))
}

fn listing(rows: &[PgRow]) -> Result<Listing, sqlx::Error> {
    let mut listing = Listing::default();
    for row in rows {
        listing.revision = revision(row, "newest")?;
        if let Some(key) = key(row)? {
            listing.records.push(record(row, key)?);
        }
    }
    Ok(listing)
}

fn record(row: &PgRow, key: Key) -> Result<Record, sqlx::Error> {
    Ok(Record { key, value: row.try_get("value")?, revision: revision(row, "revision")? })
}

pub(super) fn key(row: &PgRow) -> Result<Option<Key>, sqlx::Error> {
    let text: Option<String> = row.try_get("key")?;
    text.map(Key::new).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn revision(row: &PgRow, column: &str) -> Result<Revision, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|number| Revision(number.unsigned_abs()))
}

/// PostgreSQL's integers are signed; no store lives to see the difference.
pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
