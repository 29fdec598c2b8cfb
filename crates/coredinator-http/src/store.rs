//! The stores that URLs name: opened for a server, or looked at and moved by the command line.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use coredinator_core::{Store, StoreCheck, StoreError};
#[cfg(feature = "postgres")]
use coredinator_registry::store::{PostgresOptions, PostgresStore};
use coredinator_registry::{
    DataDir,
    store::{MemoryStore, Snapshot, SqliteStore},
};

use crate::{
    StartError,
    config::{Config, DatabaseUrl},
};

/// Where a store is.
pub(crate) enum Place {
    /// Nowhere: it forgets.
    Memory,
    /// A file of SQLite's.
    File(PathBuf),
    /// A schema of a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Server(Box<PostgresOptions>),
}

impl Place {
    /// Where a URL points.
    pub(crate) fn parse(url: &DatabaseUrl) -> Result<Self, StartError> {
        match url.expose().split_once(':') {
            Some(("sqlite", path)) => Ok(Self::File(path.strip_prefix("//").unwrap_or(path).into())),
            Some(("memory", _)) => Ok(Self::Memory),
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", _)) => Ok(Self::Server(Box::new(PostgresOptions::new(url.expose())?))),
            other => Err(StartError::Database { scheme: other.map_or("", |(scheme, _)| scheme).to_owned() }),
        }
    }

    /// The one that a configuration names: by default, the file of the data directory.
    pub(crate) fn of(config: &Config) -> Result<Self, StartError> {
        let file = || Self::File(config.data_dir.join("store.sqlite"));
        config.database_url.as_ref().map_or_else(|| Ok(file()), Self::parse)
    }

    /// For people, without secrets.
    pub(crate) fn location(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::File(path) => path.display().to_string(),
            #[cfg(feature = "postgres")]
            Self::Server(options) => options.location(),
        }
    }

    /// Whether it is fit for use, part by part; nothing is left behind. A file that does not exist is not made.
    pub(crate) async fn verify(&self) -> Vec<StoreCheck> {
        match self {
            Self::Memory => MemoryStore::new().verify().await,
            Self::File(path) => verify_file(path).await,
            #[cfg(feature = "postgres")]
            Self::Server(options) => PostgresStore::verify(options.as_ref().clone()).await,
        }
    }

    /// All that it holds; `None` where there is nothing.
    pub(crate) async fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        match self {
            Self::Memory => Ok(None),
            Self::File(path) => SqliteStore::snapshot(path).await,
            #[cfg(feature = "postgres")]
            Self::Server(options) => PostgresStore::snapshot(options.as_ref().clone()).await,
        }
    }

    /// Fills it; `false` if it holds something that is not to be replaced.
    pub(crate) async fn restore(&self, snapshot: &Snapshot, replace: bool) -> Result<bool, StoreError> {
        match self {
            Self::Memory => Err(StoreError::Invalid("a store in memory cannot be filled".to_owned())),
            Self::File(path) => SqliteStore::restore(path, snapshot, replace).await,
            #[cfg(feature = "postgres")]
            Self::Server(options) => PostgresStore::restore(options.as_ref().clone(), snapshot, replace).await,
        }
    }
}

/// A file is opened only if it is there already: opening makes it.
async fn verify_file(path: &Path) -> Vec<StoreCheck> {
    let shown = path.display();
    if path.exists() {
        // It is read without being changed before it is opened, which may bring it up to date.
        return match SqliteStore::snapshot(path).await {
            Ok(_) => vec![
                StoreCheck::ok("connectivity", format!("{shown} can be read")),
                StoreCheck::ok("migrations", "a schema that is known"),
                StoreCheck::skipped("round_trip", "a file that may be in use is not written"),
            ],
            Err(error) => {
                vec![StoreCheck::failed("connectivity", error.to_string(), "name another file, or restore a backup")]
            }
        };
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        vec![StoreCheck::ok("connectivity", format!("{shown} does not exist; it is made at the first start"))]
    } else {
        let hint = format!("make the directory {}", folder.display());
        vec![StoreCheck::failed("connectivity", format!("{shown} cannot be made"), hint)]
    }
}

/// Whether a candidate is fit for use.
///
/// # Errors
/// A URL that names no store, in words without secrets.
pub(crate) async fn verify(url: &DatabaseUrl) -> Result<Vec<StoreCheck>, StartError> {
    Ok(Place::parse(url)?.verify().await)
}

/// An open store, and how it is closed.
pub(crate) enum OpenedStore {
    /// One that needs no closing, or is somebody else's to close.
    Given(Arc<dyn Store>),
    Sqlite(SqliteStore),
    #[cfg(feature = "postgres")]
    Postgres(PostgresStore),
}

impl OpenedStore {
    /// A store that was opened elsewhere.
    pub(crate) fn given(store: Arc<dyn Store>) -> Self {
        Self::Given(store)
    }

    /// Opens what the configuration names: by default, the file of the data directory.
    pub(crate) async fn open(config: &Config, data_dir: &DataDir) -> Result<Self, StartError> {
        let place = match &config.database_url {
            None => Place::File(data_dir.store()),
            Some(url) => Place::parse(url)?,
        };
        Ok(match place {
            Place::Memory => Self::Given(Arc::new(MemoryStore::new())),
            Place::File(path) => Self::Sqlite(SqliteStore::open(path).await?),
            #[cfg(feature = "postgres")]
            Place::Server(options) => Self::Postgres(PostgresStore::open_with(*options).await?),
        })
    }

    /// The store itself.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Given(store) => Arc::clone(store),
            Self::Sqlite(store) => Arc::new(store.clone()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Closes it, once what was handed in has been written.
    pub(crate) async fn close(self) {
        match self {
            Self::Given(_) => {}
            // Without this a part of it would stay in SQLite's log beside it, and a copy of the file would not be whole.
            Self::Sqlite(store) => store.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.close().await,
        }
    }
}
