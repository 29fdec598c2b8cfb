//! Documents of coordination, read strictly: agents, intentions and problems, with every error at once.

mod read;
mod shape;

pub use read::{agent, intention, problem, problem_from_json};
