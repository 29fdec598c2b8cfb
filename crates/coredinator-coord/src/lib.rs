//! The coordination engine of coredinator: the agents of one plant act as one.
//!
//! What agents, problems and plans are, and what a strategy has to ensure, is in [`coredinator_core::coordination`]; here
//! are the strategies themselves.

pub mod solver;
pub mod strategies;

pub use strategies::Strategies;
