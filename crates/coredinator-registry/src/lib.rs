//! Who exists, where, and how healthy.

mod data_dir;
pub mod health;
pub mod store;

pub use data_dir::{DataDir, DataDirError};
