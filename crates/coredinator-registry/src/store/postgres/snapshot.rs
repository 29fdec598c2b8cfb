//! A whole schema as a snapshot, and back.

use coredinator_core::{Change, Record, StoreError};
use sqlx::{Connection, PgConnection, Row};

use super::{
    connect::Connector,
    error::{Failure, explain},
    open,
    reader::{key, revision, signed},
    transaction::{Columns, lease},
};
use crate::store::Snapshot;

/// How many rows travel at once.
const ROWS: usize = 1000;

/// Reads a schema that may be in use, as it stands, without changing anything.
pub(super) async fn read(connector: &Connector) -> Result<Option<Snapshot>, StoreError> {
    let location = connector.options().location();
    let read = async {
        let mut connection = connector.connect().await?;
        // A whole store takes longer than one call may.
        sqlx::raw_sql("SET statement_timeout = 0").execute(&mut connection).await?;
        if open::inspect(&mut connection, &location).await?.is_none() {
            return Ok(None);
        }
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut connection).await?;
        let snapshot = read_within(&mut connection).await?;
        let _ = connection.close().await;
        Ok::<_, Failure>(Some(snapshot))
    };
    read.await.map_err(|failure| explain(&location, failure))
}

async fn read_within(connection: &mut PgConnection) -> Result<Snapshot, sqlx::Error> {
    let meta = sqlx::query("SELECT revision, compacted FROM meta").fetch_one(&mut *connection).await?;
    let mut snapshot = Snapshot {
        revision: revision(&meta, "revision")?,
        compacted: revision(&meta, "compacted")?,
        ..Snapshot::default()
    };
    let records = "SELECT key, value, revision FROM records ORDER BY key";
    for row in sqlx::query(records).fetch_all(&mut *connection).await? {
        if let Some(key) = key(&row)? {
            let (value, revision) = (row.try_get("value")?, revision(&row, "revision")?);
            snapshot.records.push(Record { key, value, revision });
        }
    }
    let changes = "SELECT revision, key, value FROM changes ORDER BY revision, position";
    for row in sqlx::query(changes).fetch_all(&mut *connection).await? {
        let (at, key, value) = (revision(&row, "revision")?, key(&row)?, row.try_get("value")?);
        let entry = key.map(|key| (key, value));
        match snapshot.changes.last_mut() {
            Some(change) if change.revision == at => change.entries.extend(entry),
            _ => snapshot.changes.push(Change { revision: at, entries: entry.into_iter().collect() }),
        }
    }
    let leases = "SELECT name, holder, epoch AS number, expires_at AS other FROM leases ORDER BY name";
    for row in sqlx::query(leases).fetch_all(&mut *connection).await? {
        snapshot.leases.push(lease(&row)?);
    }
    Ok(snapshot)
}

/// Fills a schema, which is made if it is absent, in one transaction; `false`, and nothing is changed, if it holds something
/// that is not to be replaced.
pub(super) async fn write(connector: &Connector, snapshot: &Snapshot, replace: bool) -> Result<bool, StoreError> {
    let location = connector.options().location();
    let mut connection = open::open(connector).await?.writer;
    let written = write_within(&mut connection, snapshot, replace).await;
    let done = written.map_err(|error| explain(&location, error.into()))?;
    let _ = connection.close().await;
    if done && read(connector).await?.is_none_or(|written| written.records != snapshot.records) {
        return Err(StoreError::Unusable(format!("what was written to {location} is not what is read there")));
    }
    Ok(done)
}

async fn write_within(connection: &mut PgConnection, snapshot: &Snapshot, replace: bool) -> Result<bool, sqlx::Error> {
    sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).await?;
    let mut transaction = connection.begin().await?;
    let newest: i64 = sqlx::query_scalar("SELECT revision FROM meta FOR UPDATE").fetch_one(&mut *transaction).await?;
    if newest != 0 && !replace {
        return Ok(false);
    }
    sqlx::raw_sql("DELETE FROM records; DELETE FROM changes;").execute(&mut *transaction).await?;
    for records in snapshot.records.chunks(ROWS) {
        sqlx::query(
            "INSERT INTO records (key, value, revision) SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[])",
        )
        .bind(records.iter().map(|record| record.key.as_str()).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.value.as_slice()).collect::<Vec<_>>())
        .bind(records.iter().map(|record| signed(record.revision)).collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
    }
    let mut weight = 0;
    for changes in snapshot.changes.chunks(ROWS) {
        let columns = Columns::of(changes);
        weight += columns.weight;
        sqlx::query(
            "INSERT INTO changes (revision, position, key, value)
                SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::bytea[])",
        )
        .bind(columns.revisions)
        .bind(columns.positions)
        .bind(columns.keys)
        .bind(columns.values)
        .execute(&mut *transaction)
        .await?;
    }
    for lease in &snapshot.leases {
        // An epoch never falls, whatever is restored.
        sqlx::query(
            "INSERT INTO leases (name, holder, epoch, expires_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE SET epoch = greatest(leases.epoch, excluded.epoch)",
        )
        .bind(&lease.name)
        .bind(&lease.holder)
        .bind(i64::try_from(lease.epoch.0).unwrap_or(i64::MAX))
        .bind(lease.expires_at.as_microsecond())
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query("UPDATE meta SET revision = $1, compacted = $2, weight = $3")
        .bind(signed(snapshot.revision))
        .bind(signed(snapshot.compacted))
        .bind(i64::try_from(weight).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}
