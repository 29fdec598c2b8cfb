//! The quickstart: a small simulated plant (`coreio`), its learning controllers (`corerl`), and coredinator keeping them
//! alive. `plant`, `tank`, `boiler`, `learner`, `wish` and `mandate` are pure and synchronous; `coreio` and `corerl` put them
//! on HTTP, and `agent` takes part in coordination.

pub mod action;
pub mod agent;
pub mod boiler;
pub mod cli;
pub mod controller;
pub mod coreio;
pub mod corerl;
pub mod learner;
pub mod link;
pub mod mandate;
pub mod plant;
pub mod problem;
pub mod serve;
pub mod state_file;
pub mod tank;
pub mod wish;
