//! The coordination engine of coredinator: the agents of one plant act as one.
//!
//! What agents, problems and plans are, and what a strategy has to ensure, is in [`coredinator_core::coordination`]. Here
//! are the strategies themselves, and the engine that runs the cycles:
//!
//! - [`Coordinator`]: the handle. Agents register, say what they want, and are told what was decided;
//! - [`resolve`] and [`replay`]: one problem, or one recorded cycle, without an engine;
//! - [`AgentTransport`]: the way to agents that have an endpoint, [`HttpTransport`] by default.
//!
//! Deciding is pure: `cycle` (the life of one cycle) and `agents` (who is there, and what they said). `driver` (one task a
//! group) and `engine` (who leads) do the awaiting. What agents are told was written to the store before, under a lease: so
//! no agent ever acts on plans of two coredinators, nor on one that a crash could undo.

mod admission;
mod agents;
mod config;
mod coordinator;
mod cycle;
mod driver;
mod duties;
mod engine;
mod error;
mod events;
mod group;
mod negotiate;
mod persist;
mod reconfigure;
mod record;
mod replay;
mod resolve;
pub mod solver;
mod stats;
pub mod strategies;
mod surroundings;
pub mod transport;
mod union;

pub use admission::inadmissible;
pub use agents::{AgentState, AgentView};
pub use config::{AgentRule, CoordinationConfig, GroupConfig, HOST_RESOURCES};
pub use coordinator::{
    Accepted, CoordinationStatus, Coordinator, CoordinatorOptions, Decisions, GroupStatus, Registered,
};
pub use error::CoordError;
pub use events::{CoordinationEvent, EventKind, Events};
pub use persist::{Amount, highest_epoch};
pub use record::{
    CycleOutcome, CycleRecord, CycleSummary, DecidedBy, FaultKind, NegotiationRound, NegotiationWord, StrategyFault,
    Timings,
};
pub use replay::{Replayed, replay};
pub use resolve::{Chosen, Resolved, resolve};
pub use stats::{GroupStats, Latency};
pub use strategies::Strategies;
pub use surroundings::{EveryService, HostView, LeadView, ServiceView, UnknownHost};
pub use transport::{AgentTransport, HttpTransport};
