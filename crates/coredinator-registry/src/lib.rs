//! Who exists, where, and how healthy.

pub mod health;
pub mod store;
