//! Public test suites: what each trait's documentation asks, as named cases that an implementor runs.
//!
//! A suite takes a factory that makes a fresh back end for each case, with a guard whose drop cleans up, and runs the
//! cases that the back end's declared capabilities call for. A failing case panics, as a test does, and names itself.

pub mod probe;
pub mod runtime;
pub mod store;
pub mod strategy;
