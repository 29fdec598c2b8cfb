//! How conflicts are resolved: one strategy a file, and the [catalogue](Strategies) that makes them by name.

mod catalogue;
mod centralized;
mod consensus;
mod game_theoretic;
mod groups;
mod http;
mod priority_based;
mod reconsider;
mod refine;
mod resource_based;
mod shares;

pub use catalogue::Strategies;
pub use centralized::Centralized;
pub use consensus::Consensus;
pub use game_theoretic::GameTheoretic;
pub use http::Http;
pub use priority_based::{Ageing, PriorityBased, WhenItDoesNotFit};
pub use resource_based::ResourceBased;
