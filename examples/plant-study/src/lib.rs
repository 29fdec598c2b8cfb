//! What coordination is worth: the quickstart's plant and its learning controllers, for the same seeds, once with each
//! controller acting on its own wishes and once with each strategy. In one process and in simulated time; the same seed
//! gives the same course, bit for bit.

mod controller;
mod coordinator;
mod plot;
mod run;
mod study;
mod table;

pub use controller::{Controller, crew};
pub use coordinator::{CAPACITY, Coordinator, StudyError};
pub use plot::plot;
pub use run::{Moment, Run, Sharing, run};
pub use study::{ALONE, FIXED, study};
pub use table::{Case, Spread, jain, page, table};
