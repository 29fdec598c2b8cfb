//! Coordination: how the agents of one plant are made to act as one.
//!
//! Every cycle, agents say what they want ([`Intention`]: options with demands on shared resources, claims on shared
//! variables, and what each is worth). Where these collide ([`Conflict`]), a [`CoordinationStrategy`] chooses, and the
//! outcome is a [`Plan`]: one [`Decision`] for each agent, feasible as a whole, and explained. Everything here is pure: the
//! same [`ProblemDocument`] gives the same plan.
//!
//! The way of a cycle, as functions: [`Problem::new`] checks and indexes a document and detects its conflicts;
//! [`CoordinationStrategy::resolve`] answers a [`Resolution`]; [`assemble`] writes it out as a plan; [`verify`] checks that
//! plan, whoever made it.

mod agent;
mod assemble;
mod compile;
mod conflict;
mod detect;
mod document;
mod draft;
mod explain;
mod intention;
mod number;
mod plan;
mod problem;
mod resolution;
mod resource;
mod strategy;
mod verify;

pub use agent::{Agent, AgentId, DEFAULT_GROUP, Fallback, InvalidAgentId};
pub use assemble::{PlanHeader, assemble};
pub use conflict::{Conflict, ConflictSubtype, ConflictType};
pub use detect::conflicts;
pub use document::{BudgetDocument, Holding, PastCycle, PastDecision, ProblemDocument};
pub use draft::Draft;
pub use intention::{ActionOption, Claim, Elastic, Intention, Known, Limits, Shape};
pub use number::{LARGEST, not_positive};
pub use plan::{Decision, DecisionOutcome, DecisionReason, Plan, PlanStatus, Utilization};
pub use problem::{Candidate, Demand, Party, PlacedClaim, Presence, Problem, Push, TOLERANCE};
pub use resolution::{Note, Pick, Resolution, by_priority};
pub use resource::{OnConflict, Resource, ResourceKind, Variable};
#[cfg(feature = "mock")]
pub use strategy::MockNegotiator;
pub use strategy::{Answer, Budget, CoordinationStrategy, Needs, Negotiator, NoNegotiator, Offer, StrategyError};
pub use verify::verify;
