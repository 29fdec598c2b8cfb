//! The API, the command line and the binary of coredinator, composed of its library crates.
//!
//! - [`Coredinator`]: puts the parts together and starts them; runtimes, probes and stores of one's own are given here;
//! - [`api`]: the HTTP API;
//! - [`cli`]: the command line;
//! - [`config`]: the configuration file; [`reload`]: read anew while coredinator runs; [`validator`]: who judges it over HTTP;
//! - [`serve()`]: runs coredinator in the foreground; [`logging`]: its own log.

pub mod api;
mod beginning;
pub mod cli;
mod compose;
pub mod config;
pub mod coordination;
mod error;
pub mod logging;
mod metrics;
mod node;
pub mod reload;
mod serve;
mod store;
pub mod validator;

pub use compose::{Coredinator, Identity, Running};
pub use coredinator_registry::{ConfigValidation, OnUnreachable};
pub use coredinator_supervisor::Shutdown;
pub use error::StartError;
pub use serve::{ServeError, serve, server};
