//! The store that a configuration names.

use std::{path::Path, sync::Arc};

use coredinator_core::Store;
#[cfg(feature = "postgres")]
use coredinator_registry::store::PostgresStore;
use coredinator_registry::{
    DataDir,
    store::{MemoryStore, SqliteStore},
};

use crate::{compose::StartError, config::Config};

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
        let Some(url) = &config.database_url else {
            return Ok(Self::Sqlite(SqliteStore::open(data_dir.store()).await?));
        };
        match url.expose().split_once(':') {
            Some(("sqlite", path)) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                Ok(Self::Sqlite(SqliteStore::open(Path::new(path)).await?))
            }
            Some(("memory", _)) => Ok(Self::Given(Arc::new(MemoryStore::new()))),
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(PostgresStore::open(url.expose()).await?)),
            other => Err(StartError::Database { scheme: other.map_or("", |(scheme, _)| scheme).to_owned() }),
        }
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
