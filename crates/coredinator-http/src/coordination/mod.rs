//! What the engine of coordination needs of its neighbours: documents read strictly, with every error at once, and what it
//! is told of services and the machine.

mod follow;
mod read;
mod shape;
mod surroundings;

pub(crate) use follow::follow;
pub use read::{agent, intention, problem, problem_from_json};
pub(crate) use surroundings::{Lead, Machine, Services};
