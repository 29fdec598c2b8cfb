//! Reads, each one statement and so one snapshot.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{Change, Key, Lease, Listing, Record, Revision, StoreError, StoreStatus};
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use super::{
    error::{classify, damaged},
    schema::VERSION,
    transaction::lease,
};
use crate::store::feed::{Log, PAGE, Page};

pub(super) struct Reader {
    path: PathBuf,
    pool: SqlitePool,
}

impl Reader {
    pub(super) fn new(path: PathBuf, pool: SqlitePool) -> Self {
        Self { path, pool }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    fn sqlite(&self, error: sqlx::Error) -> StoreError {
        classify(&self.path, error)
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let row = sqlx::query("SELECT key, value, revision FROM records WHERE key = ?1")
            .bind(key.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.sqlite(error))?;
        row.map(|row| {
            Ok(Record {
                key: key.clone(),
                value: row.try_get("value").map_err(|error| self.sqlite(error))?,
                revision: revision(&row, "revision").map_err(|error| self.sqlite(error))?,
            })
        })
        .transpose()
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        // The join always yields a row, so that the revision comes with the records. Keys are visible ASCII: DEL ends a
        // prefix's range.
        let rows = sqlx::query(
            "SELECT meta.revision AS newest, records.key, records.value, records.revision
             FROM meta LEFT JOIN records ON records.key >= ?1 AND records.key < ?1 || char(127)
             ORDER BY records.key",
        )
        .bind(prefix)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.sqlite(error))?;
        let mut listing = Listing::default();
        for row in rows {
            listing.revision = revision(&row, "newest").map_err(|error| self.sqlite(error))?;
            if let Some(key) = self.key(&row)? {
                listing.records.push(Record {
                    key,
                    value: row.try_get("value").map_err(|error| self.sqlite(error))?,
                    revision: revision(&row, "revision").map_err(|error| self.sqlite(error))?,
                });
            }
        }
        Ok(listing)
    }

    /// A lease as it stands, whoever is writing meanwhile; `None`: there never was one.
    pub(super) async fn lease(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let row = sqlx::query("SELECT name, holder, epoch AS number, expires_at AS other FROM leases WHERE name = ?1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.sqlite(error))?;
        row.as_ref().map(lease).transpose().map_err(|error| self.sqlite(error))
    }

    pub(super) async fn revision(&self) -> Result<Revision, StoreError> {
        let newest: i64 = sqlx::query_scalar("SELECT revision FROM meta")
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.sqlite(error))?;
        Ok(Revision(newest.unsigned_abs()))
    }

    pub(super) async fn status(&self, round_trip: Duration) -> Result<StoreStatus, StoreError> {
        let row = sqlx::query("SELECT revision, compacted, sqlite_version() AS version FROM meta")
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.sqlite(error))?;
        let leases = sqlx::query("SELECT name, holder, epoch AS number, expires_at AS other FROM leases ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.sqlite(error))?;
        let leases = leases.iter().map(lease).collect::<Result<_, _>>().map_err(|error| self.sqlite(error))?;
        Ok(StoreStatus {
            backend: "sqlite".to_owned(),
            location: self.path.display().to_string(),
            version: row.try_get("version").map_err(|error| self.sqlite(error))?,
            schema_version: VERSION,
            revision: revision(&row, "revision").map_err(|error| self.sqlite(error))?,
            compacted: revision(&row, "compacted").map_err(|error| self.sqlite(error))?,
            size_bytes: size(&self.path),
            round_trip_ms: round_trip.as_secs_f64() * 1e3,
            compacted_at: None,
            connections: None,
            leases,
            reads: None,
            writes: None,
        })
    }

    fn key(&self, row: &SqliteRow) -> Result<Option<Key>, StoreError> {
        let text: Option<String> = row.try_get("key").map_err(|error| self.sqlite(error))?;
        text.map(Key::new).transpose().map_err(|error| damaged(&self.path, &error.to_string()))
    }
}

#[async_trait]
impl Log for Reader {
    async fn page(&self, after: Revision) -> Result<Page, StoreError> {
        let until = Revision(after.0.saturating_add(PAGE as u64));
        let rows = sqlx::query(
            "SELECT meta.revision AS newest, meta.compacted, changes.revision, changes.key, changes.value
             FROM meta LEFT JOIN changes ON changes.revision > ?1 AND changes.revision <= ?2
             ORDER BY changes.revision, changes.id",
        )
        .bind(signed(after))
        .bind(signed(until))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.sqlite(error))?;
        let mut page = Page { changes: Vec::new(), up_to: after };
        for row in rows {
            let read = |column: &str| revision(&row, column).map_err(|error| self.sqlite(error));
            let compacted = read("compacted")?;
            if after < compacted {
                return Err(StoreError::Compacted(compacted));
            }
            page.up_to = until.min(read("newest")?);
            let Some(key) = self.key(&row)? else { break };
            let value = row.try_get("value").map_err(|error| self.sqlite(error))?;
            let at = read("revision")?;
            match page.changes.last_mut() {
                Some(change) if change.revision == at => change.entries.push((key, value)),
                _ => page.changes.push(Change { revision: at, entries: vec![(key, value)] }),
            }
        }
        Ok(page)
    }
}

pub(super) fn revision(row: &SqliteRow, column: &str) -> Result<Revision, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|number| Revision(number.unsigned_abs()))
}

/// SQLite's integers are signed; no store lives to see the difference.
pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// The file and its write-ahead log.
fn size(path: &Path) -> Option<u64> {
    let main = std::fs::metadata(path).ok()?.len();
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    Some(main + std::fs::metadata(wal).map_or(0, |wal| wal.len()))
}
