//! A whole file as a snapshot, and back.

use std::path::Path;

use coredinator_core::{Change, Key, Record, StoreError};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::{
    SqliteOptions,
    error::{classify, damaged},
    open::{self, Refusal},
    reader::{revision, signed},
    transaction::lease,
};
use crate::store::Snapshot;

/// Reads a file that may be in use, as it stands, without changing anything.
pub(super) async fn read(path: &Path) -> Result<Option<Snapshot>, StoreError> {
    // An empty file is one that nobody has opened yet.
    if std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        return Ok(None);
    }
    let read = async {
        open::inspect(path).await?;
        let mut connection = open::base(path).read_only(true).connect().await?;
        let mut transaction = connection.begin().await?;
        let snapshot = read_within(&mut transaction).await?;
        drop(transaction);
        let _ = connection.close().await;
        Ok(Some(snapshot))
    };
    read.await.map_err(|refusal| told(path, refusal))
}

fn told(path: &Path, refusal: Refusal) -> StoreError {
    match refusal {
        Refusal::Sqlite(error) => classify(path, error),
        Refusal::Told(error) => error,
    }
}

async fn read_within(connection: &mut SqliteConnection) -> Result<Snapshot, sqlx::Error> {
    let meta = sqlx::query("SELECT revision, compacted FROM meta").fetch_one(&mut *connection).await?;
    let mut snapshot = Snapshot {
        revision: revision(&meta, "revision")?,
        compacted: revision(&meta, "compacted")?,
        ..Snapshot::default()
    };
    let key = |text: String| Key::new(text).map_err(|error| sqlx::Error::Decode(error.into()));
    let records = "SELECT key, value, revision FROM records ORDER BY key";
    for row in sqlx::query(records).fetch_all(&mut *connection).await? {
        let (value, revision) = (row.try_get("value")?, revision(&row, "revision")?);
        snapshot.records.push(Record { key: key(row.try_get("key")?)?, value, revision });
    }
    let changes = "SELECT revision, key, value FROM changes ORDER BY revision, id";
    for row in sqlx::query(changes).fetch_all(&mut *connection).await? {
        let (at, entry) = (revision(&row, "revision")?, (key(row.try_get("key")?)?, row.try_get("value")?));
        match snapshot.changes.last_mut() {
            Some(change) if change.revision == at => change.entries.push(entry),
            _ => snapshot.changes.push(Change { revision: at, entries: vec![entry] }),
        }
    }
    let leases = "SELECT name, holder, epoch AS number, expires_at AS other FROM leases ORDER BY name";
    for row in sqlx::query(leases).fetch_all(&mut *connection).await? {
        snapshot.leases.push(lease(&row)?);
    }
    Ok(snapshot)
}

/// Fills a file, which is created if it is absent, in one transaction; `false`, and nothing is changed, if it holds something
/// that is not to be replaced.
pub(super) async fn write(path: &Path, snapshot: &Snapshot, replace: bool) -> Result<bool, StoreError> {
    let mut connection = open::open(path, &SqliteOptions::default()).await?.writer;
    let done = write_within(&mut connection, snapshot, replace).await.map_err(|error| classify(path, error))?;
    connection.close().await.map_err(|error| classify(path, error))?;
    if done && read(path).await?.is_none_or(|written| written.records != snapshot.records) {
        return Err(damaged(path, "what was written is not what is read"));
    }
    Ok(done)
}

async fn write_within(
    connection: &mut SqliteConnection,
    snapshot: &Snapshot,
    replace: bool,
) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let newest: i64 = sqlx::query_scalar("SELECT revision FROM meta").fetch_one(&mut *transaction).await?;
    if newest != 0 && !replace {
        return Ok(false);
    }
    sqlx::raw_sql("DELETE FROM records; DELETE FROM changes;").execute(&mut *transaction).await?;
    for record in &snapshot.records {
        sqlx::query("INSERT INTO records (key, value, revision) VALUES (?1, ?2, ?3)")
            .bind(record.key.as_str())
            .bind(&record.value)
            .bind(signed(record.revision))
            .execute(&mut *transaction)
            .await?;
    }
    for change in &snapshot.changes {
        for (key, value) in &change.entries {
            sqlx::query("INSERT INTO changes (revision, key, value) VALUES (?1, ?2, ?3)")
                .bind(signed(change.revision))
                .bind(key.as_str())
                .bind(value.as_deref())
                .execute(&mut *transaction)
                .await?;
        }
    }
    for lease in &snapshot.leases {
        // An epoch never falls, whatever is restored.
        sqlx::query(
            "INSERT INTO leases (name, holder, epoch, expires_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
        )
        .bind(&lease.name)
        .bind(&lease.holder)
        .bind(i64::try_from(lease.epoch.0).unwrap_or(i64::MAX))
        .bind(lease.expires_at.as_microsecond())
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query("UPDATE meta SET revision = ?1, compacted = ?2")
        .bind(signed(snapshot.revision))
        .bind(signed(snapshot.compacted))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}
