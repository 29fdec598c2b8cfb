//! How conflicts are resolved: one strategy a file, and the [catalogue](Strategies) that makes them by name.

mod catalogue;
mod priority_based;

pub use catalogue::Strategies;
pub use priority_based::{Ageing, PriorityBased, WhenItDoesNotFit};
