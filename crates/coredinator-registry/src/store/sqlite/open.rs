//! Opening: look first, without changing anything; then bring the schema up to date.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use coredinator_core::{Revision, StoreError};
use sqlx::{
    ConnectOptions, Connection, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::Instant;

use super::{
    SqliteOptions,
    error::{classify, damaged, is_locked, is_unfinished},
    history::History,
    schema::{APPLICATION_ID, MIGRATIONS, VERSION},
};

/// Enough for reads to overlap; they are short.
const READERS: u32 = 4;

/// How long SQLite itself waits for a lock, which covers the instants in which connections of this process meet.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

pub(super) struct Opened {
    pub(super) writer: SqliteConnection,
    pub(super) readers: SqlitePool,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) history: History,
}

pub(super) async fn open(path: &Path, options: &SqliteOptions) -> Result<Opened, StoreError> {
    let mut patience = Patience::new(path, options.lock_wait);
    let mut writer = loop {
        let attempt = async {
            inspect(path).await?;
            let mut writer = connect_writer(path, options, true).await?;
            migrate(&mut writer, path).await?;
            Ok(writer)
        };
        match attempt.await {
            Ok(writer) => break writer,
            Err(Refusal::Sqlite(error)) if is_locked(&error) => {
                patience.wait(error).await.map_err(|error| classify(path, error))?;
            }
            Err(Refusal::Sqlite(error)) => return Err(classify(path, error)),
            Err(Refusal::Told(error)) => return Err(error),
        }
    };
    let sqlite = |error| classify(path, error);
    let meta = sqlx::query("SELECT revision, compacted FROM meta").fetch_one(&mut writer).await.map_err(sqlite)?;
    let number = |column: &str| meta.try_get::<i64, _>(column).map(|n| Revision(n.unsigned_abs())).map_err(sqlite);
    let (revision, compacted) = (number("revision")?, number("compacted")?);
    let history = History::read(&mut writer).await.map_err(sqlite)?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .min_connections(1)
        .acquire_timeout(options.lock_wait.max(Duration::from_secs(1)))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(base(path).read_only(true))
        .await
        .map_err(sqlite)?;
    Ok(Opened { writer, readers, revision, compacted, history })
}

pub(super) fn base(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging()
}

/// The connection that writes. Only opening creates a file: one that vanishes later is not replaced by an empty one.
pub(super) async fn connect_writer(
    path: &Path,
    options: &SqliteOptions,
    create: bool,
) -> Result<SqliteConnection, sqlx::Error> {
    let mut connect =
        base(path).create_if_missing(create).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    if let Some(pages) = options.max_pages {
        connect = connect.pragma("max_page_count", pages.to_string());
    }
    connect.connect().await
}

pub(super) enum Refusal {
    Sqlite(sqlx::Error),
    Told(StoreError),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Refuses a file that is not ours to write, without having changed a byte of it.
pub(super) async fn inspect(path: &Path) -> Result<(), Refusal> {
    match header(path) {
        Ok(None) => return Ok(()),
        Ok(Some(header)) if header.starts_with(b"SQLite format 3\0") => {}
        Ok(Some(_)) => return Err(Refusal::Told(damaged(path, "it does not start as one"))),
        Err(error) => {
            let message = format!("{} cannot be read", path.display());
            return Err(Refusal::Told(StoreError::unavailable(message, error)));
        }
    }
    // A connection that only reads cannot check the write-ahead log in when it closes either.
    match look(path, base(path).read_only(true)).await {
        // Whoever wrote it was killed in the middle, before there was a write-ahead log. To read it at all, SQLite has to
        // take that unfinished change back first; nothing else is touched.
        Err(Refusal::Sqlite(error)) if is_unfinished(&error) => look(path, base(path)).await,
        verdict => verdict,
    }
}

async fn look(path: &Path, connect: SqliteConnectOptions) -> Result<(), Refusal> {
    let mut connection = connect.connect().await?;
    let verdict = examine(&mut connection, path).await;
    // Nothing hangs on how a connection that only looked says goodbye.
    let _ = connection.close().await;
    verdict
}

/// The first bytes; `None`: the file is absent or empty.
fn header(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut header = Vec::new();
    file.take(16).read_to_end(&mut header)?;
    Ok((!header.is_empty()).then_some(header))
}

async fn examine(connection: &mut SqliteConnection, path: &Path) -> Result<(), Refusal> {
    let file = path.display();
    let (application, version, tables) = identity(connection).await?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(Refusal::Told(StoreError::Unusable(format!(
            "{file} is a database, but not one of coredinator; it has been left as it is: name another file"
        ))));
    }
    if version > VERSION {
        return Err(Refusal::Told(StoreError::Unusable(format!(
            "{file} has schema version {version}, but this coredinator knows versions up to {VERSION}: \
             run the newer coredinator that wrote it, or restore a backup from before the upgrade"
        ))));
    }
    let report: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    if report != "ok" {
        let what = report.lines().collect::<Vec<_>>().join(" ");
        return Err(Refusal::Told(damaged(path, &what)));
    }
    Ok(())
}

async fn identity(connection: &mut SqliteConnection) -> Result<(u32, u32, u32), sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT application_id FROM pragma_application_id) AS application,
                (SELECT user_version FROM pragma_user_version) AS version,
                (SELECT count(*) FROM sqlite_schema) AS tables",
    )
    .fetch_one(connection)
    .await?;
    let number = |column: &str| row.try_get::<i64, _>(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Ok((number("application")?, number("version")?, number("tables")?))
}

/// Brings the schema up to date in one transaction, under SQLite's write lock: of two that try, one finds it done.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Refusal> {
    let (_, version, _) = identity(connection).await?;
    if version == VERSION {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let (_, version, _) = identity(&mut transaction).await?;
    let Some(pending) = MIGRATIONS.get(version as usize..) else {
        return Err(Refusal::Told(StoreError::Unusable(format!(
            "{} was upgraded to schema version {version} just now by a newer coredinator",
            path.display()
        ))));
    };
    for step in pending {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(stamp)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    if version > 0 {
        tracing::info!(file = %path.display(), from = version, to = VERSION, "schema upgraded");
    }
    Ok(())
}

/// Waits for a lock with back-off, says so, and gives up in the end.
pub(super) struct Patience {
    path: PathBuf,
    since: Instant,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(path: &Path, limit: Duration) -> Self {
        Self { path: path.to_owned(), since: Instant::now(), limit, pause: Duration::from_millis(20) }
    }

    /// Returns when it is time to try again; the error, when it has taken too long.
    pub(super) async fn wait(&mut self, error: sqlx::Error) -> Result<(), sqlx::Error> {
        let waited = self.since.elapsed();
        if waited >= self.limit {
            return Err(error);
        }
        let pause = self.pause.min(self.limit - waited);
        tracing::warn!(
            file = %self.path.display(), waited_ms = waited.as_millis() as u64, retry_in_ms = pause.as_millis() as u64,
            "the store is locked by another process; waiting for it",
        );
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(1));
        Ok(())
    }
}
