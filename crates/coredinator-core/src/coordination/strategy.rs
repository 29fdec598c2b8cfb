//! The contract of what resolves conflicts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;

use super::{intention::Intention, plan::Decision, problem::Problem, resolution::Resolution};

/// How long a strategy may work on a problem.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    iterations: Option<u64>,
    over: Arc<AtomicBool>,
}

impl Budget {
    /// So many steps of the strategy's own kind; `None`: as many as it thinks fit. Never over by the clock until
    /// [`end`](Self::end) is called on this or a clone.
    #[must_use]
    pub fn new(iterations: Option<u64>) -> Self {
        Self { iterations, over: Arc::default() }
    }

    /// How many steps it may make; `None`: as many as it thinks fit.
    #[must_use]
    pub fn iterations(&self) -> Option<u64> {
        self.iterations
    }

    /// Whether time is up: then a strategy answers at once with what it has, marked [`cut_short`](Resolution::cut_short).
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Calls time, in all clones.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// What is put to an agent in a round of negotiation.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The agent, as its place in [`Problem::parties`].
    pub party: usize,
    /// What it would get.
    pub proposed: Decision,
}

/// What an agent says to an offer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is content.
    Accepts,
    /// It would rather have one of these.
    Revises(Box<Intention>),
    /// Nothing, in time or of use: it is out of this round.
    Silent,
}

/// The way to the agents during a cycle.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Negotiator: Send + Sync {
    /// Puts offers to agents, side by side, with the round's number and the price of each resource (by its place in
    /// [`Problem::resources`]; none: empty), and answers for each offer, in their order.
    ///
    /// To ensure correctness:
    /// - it returns within a time of its own, however silent the agents are;
    /// - a revised intention has been checked: it is the agent's own and names what exists;
    /// - an agent that does not negotiate is silent.
    async fn ask(&self, round: u32, prices: &[f64], offers: Vec<Offer>) -> Vec<Answer>;
}

/// A way to nobody: all are silent.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNegotiator;

#[async_trait]
impl Negotiator for NoNegotiator {
    async fn ask(&self, _: u32, _: &[f64], offers: Vec<Offer>) -> Vec<Answer> {
        vec![Answer::Silent; offers.len()]
    }
}

/// What a strategy wants to know of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// How many earlier cycles [`Problem::history`] is to hold; 0: none. At most [`Needs::MAX_HISTORY`] are kept.
    pub history: usize,
}

impl Needs {
    /// The most cycles that a history holds.
    pub const MAX_HISTORY: usize = 1000;
}

/// Why a strategy made no plan. The cycle ends by `priority_based` then, and this is told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StrategyError {
    /// What is the matter.
    pub message: String,
    /// What lies behind it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StrategyError {
    /// An error with nothing behind it.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

/// Resolves the conflicts of a cycle.
///
/// It gets a problem that has been checked, and sees nothing else of the world: what it answers is a pure function of the
/// problem, the iterations it may make, and what agents answer to the negotiator. What it answers is verified before
/// anybody acts on it, so a strategy can make a bad plan but never an unsafe one.
/// Implementors run [`conformance::strategy`](crate::conformance::strategy).
#[async_trait]
pub trait CoordinationStrategy: Send + Sync + 'static {
    /// The name by which it is configured: a word in snake case.
    fn name(&self) -> &str;

    /// What it wants to know of the past.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Chooses for each party.
    ///
    /// To ensure correctness:
    /// - it answers for every party, with options that the party offered, in fractions that they allow; what has been
    ///   granted fits into what is available, and claims on one variable agree ([`Draft`](super::Draft) sees to all that);
    /// - where nothing conflicts ([`Problem::conflicts`] is empty) everyone gets its first choice, unless an agent's own
    ///   utilities contradict the order of its options;
    /// - it uses no clock and no chance but [`Problem::seed`]; the same problem and iterations give the same answer;
    /// - once [`Budget::is_over`], it returns within milliseconds with what it has. It is called on a thread that may
    ///   compute; one that goes on regardless is left behind, and nothing that it answers then counts.
    ///
    /// # Errors
    /// Whatever keeps it from a plan.
    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        negotiator: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError>;
}
