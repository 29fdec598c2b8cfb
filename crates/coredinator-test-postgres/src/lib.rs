//! Throw-away PostgreSQL servers for tests: a cluster in a temporary folder, on a port of its own, gone when it is dropped or
//! when the process that started it ends, however it ends.
//!
//! ```no_run
//! # use coredinator_test_postgres::Cluster;
//! let Some(cluster) = Cluster::start() else { return }; // and a line on stderr says why
//! let url = cluster.database();
//! ```
//!
//! Where PostgreSQL is missing, it is installed by `apt-get` if that may be done (as root, on Debian and its like).

mod cluster;
mod install;
mod server;

pub use cluster::Cluster;
