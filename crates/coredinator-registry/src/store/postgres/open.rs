//! Opening: look first, without changing anything; then bring the schema up to date.

use std::time::Duration;

use coredinator_core::{Revision, StoreError};
use sqlx::{PgConnection, Row};
use tokio::time::Instant;

use super::{
    connect::Connector,
    error::{Failure, explain, is_missing},
    reader::revision,
    schema::{MIGRATIONS, VERSION},
};

/// What a store starts from.
pub(super) struct Opened {
    pub(super) writer: PgConnection,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

pub(super) async fn open(connector: &Connector) -> Result<Opened, StoreError> {
    let location = connector.options().location();
    let since = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match try_open(connector, &location).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => explain(&location, failure),
        };
        if !error.is_retryable() || since.elapsed() >= connector.options().open_wait {
            return Err(error);
        }
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, source, retry_in_ms = pause.as_millis() as u64, "waiting for the store");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn try_open(connector: &Connector, location: &str) -> Result<Opened, Failure> {
    let mut writer = connector.connect().await?;
    if inspect(&mut writer, location).await? != Some(VERSION) {
        migrate(&mut writer, connector.options().schema.as_str(), location).await?;
    }
    let row = sqlx::query("SELECT revision, compacted FROM meta").fetch_one(&mut writer).await?;
    Ok(Opened { revision: revision(&row, "revision")?, compacted: revision(&row, "compacted")?, writer })
}

/// The version of the tables; `None`: there are none.
pub(super) async fn inspect(connection: &mut PgConnection, location: &str) -> Result<Option<u32>, Failure> {
    if let Some(look) = look(connection, location).await? {
        return Ok(look);
    }
    // There are tables, and a moment ago ours were not among them. Another coredinator may have made them in between, all at
    // once: then they are there now.
    let again = look(connection, location).await?;
    again.ok_or_else(|| foreign(location))
}

/// One look; `None`: there are tables, but not ours.
async fn look(connection: &mut PgConnection, location: &str) -> Result<Option<Option<u32>>, Failure> {
    let found = sqlx::query("SELECT application, schema_version, compatible_from FROM meta WHERE id = 0")
        .persistent(false)
        .fetch_optional(&mut *connection)
        .await;
    let row = match found {
        Ok(Some(row)) => row,
        Ok(None) => return Err(foreign(location)),
        Err(error) if is_missing(&error) => {
            let others: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace
                    WHERE nspname = current_setting('search_path'))",
            )
            .persistent(false)
            .fetch_one(connection)
            .await?;
            return Ok(if others == 0 { Some(None) } else { None });
        }
        Err(error) => return Err(error.into()),
    };
    let number = |column: &str| row.try_get::<i32, _>(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let (version, compatible_from) = (number("schema_version")?, number("compatible_from")?);
    check_version(location, version, compatible_from)?;
    Ok(Some(Some(version.min(VERSION))))
}

fn foreign(location: &str) -> Failure {
    Failure::Told(format!(
        "{location} holds tables that are not coredinator's; they have been left as they are: name another schema \
         (?schema=…) or database"
    ))
}

/// Refuses tables that this code does not know how to use.
pub(super) fn check_version(location: &str, version: u32, compatible_from: u32) -> Result<(), Failure> {
    if compatible_from <= VERSION {
        return Ok(());
    }
    Err(Failure::Told(format!(
        "{location} has schema version {version}, which takes a coredinator that knows version {compatible_from} or newer, \
         but this one knows versions up to {VERSION}: run the newer coredinator, or restore a backup from before the upgrade"
    )))
}

/// Brings the schema up to date in one transaction, under an advisory lock: of several that try, one does it and the others
/// find it done.
async fn migrate(connection: &mut PgConnection, schema: &str, location: &str) -> Result<(), Failure> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('coredinator:' || $1, 0))")
        .bind(schema)
        .persistent(false)
        .execute(&mut *connection)
        .await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        // Its name is one that needs no quoting: options see to that.
        let create = format!("CREATE SCHEMA {schema}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut *connection).await?;
    }
    let found = inspect_within(connection, location).await?;
    for (version, migration) in MIGRATIONS.iter().enumerate().skip(found.unwrap_or(0) as usize) {
        sqlx::raw_sql(migration.sql).execute(&mut *connection).await?;
        sqlx::query("UPDATE meta SET schema_version = $1, compatible_from = $2")
            .bind(i32::try_from(version + 1).unwrap_or(i32::MAX))
            .bind(i32::try_from(migration.compatible_from).unwrap_or(i32::MAX))
            .persistent(false)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
    if let Some(from) = found.filter(|from| *from < VERSION) {
        tracing::info!(location, from, to = VERSION, "schema upgraded");
    }
    Ok(())
}

/// The same look within a transaction, where a statement that fails would end it.
async fn inspect_within(connection: &mut PgConnection, location: &str) -> Result<Option<u32>, Failure> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass('meta') IS NOT NULL")
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    if there { inspect(connection, location).await } else { Ok(None) }
}
