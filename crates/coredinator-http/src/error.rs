//! Why coredinator could not start.

use std::io;

use coredinator_coord::CoordError;
use coredinator_core::{RuntimeError, StoreError};
use coredinator_registry::{DataDirError, RegistryError, leadership::JoinError};

/// Why coredinator could not start. Nothing has been started then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be had.
    #[error("cannot use the data directory")]
    DataDir(#[from] DataDirError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was to be listened on.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The database is none that this build can use.
    #[error(
        "database URL with scheme {scheme:?} is not supported (use {}sqlite:PATH, memory:, or none for the data directory)",
        if cfg!(feature = "postgres") { "postgresql://…, " } else { "" }
    )]
    Database {
        /// What the URL starts with.
        scheme: String,
    },
    /// The store cannot be opened or read.
    #[error("cannot open the store")]
    Store(#[from] StoreError),
    /// It cannot join the replicas on the store.
    #[error("cannot join the replicas of coredinator on this store")]
    Join(#[from] JoinError),
    /// A runtime cannot be set up.
    #[error("cannot set up a runtime")]
    Runtime(#[from] RuntimeError),
    /// A strategy of the configuration cannot be made.
    #[error("cannot set up coordination")]
    Coordinate(#[from] CoordError),
    /// What the configuration declares is refused.
    #[error("cannot declare the configured services")]
    Declare(#[from] RegistryError),
}
