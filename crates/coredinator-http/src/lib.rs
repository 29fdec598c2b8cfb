//! The API, the command line and the binary of coredinator.

pub mod api;
pub mod cli;
pub mod config;
