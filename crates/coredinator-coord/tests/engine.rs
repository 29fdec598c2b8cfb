//! The engine as its users see it, on the store in memory, with agents in this process.

#[path = "engine_suite/cycles.rs"]
mod cycles;
#[path = "engine_suite/support.rs"]
mod support;
