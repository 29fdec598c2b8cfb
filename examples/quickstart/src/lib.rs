//! The quickstart: a small simulated plant (`coreio`), its learning controllers (`corerl`), and coredinator keeping them
//! alive. `plant`, `tank`, `boiler`, `learner` and `wish` are pure and synchronous; `coreio` and `corerl` put them on HTTP.

pub mod action;
pub mod boiler;
pub mod cli;
pub mod coreio;
pub mod corerl;
pub mod learner;
pub mod plant;
pub mod problem;
pub mod serve;
pub mod state_file;
pub mod tank;
pub mod wish;
