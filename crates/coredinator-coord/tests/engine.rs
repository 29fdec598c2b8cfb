//! The engine as its users see it, on the store in memory, with agents in this process.

#[path = "engine_suite/agents.rs"]
mod agents;
#[path = "engine_suite/cycles.rs"]
mod cycles;
#[path = "engine_suite/durability.rs"]
mod durability;
#[path = "engine_suite/negotiation.rs"]
mod negotiation;
#[path = "engine_suite/reconfigure.rs"]
mod reconfigure;
#[path = "engine_suite/strategies.rs"]
mod strategies;
#[path = "engine_suite/support.rs"]
mod support;
