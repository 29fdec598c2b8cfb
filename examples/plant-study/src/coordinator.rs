//! A cycle of coordination, without the engine around it: the contract of `coredinator-core` and a strategy.

use std::sync::Arc;

use coredinator_core::{
    FieldError,
    coordination::{
        Agent, Budget, BudgetDocument, Conflict, CoordinationStrategy, DEFAULT_GROUP, Intention, NoNegotiator,
        OnConflict, Plan, PlanHeader, Problem, ProblemDocument, Resource, ResourceKind, StrategyError, Variable,
        assemble, verify,
    },
};
use quickstart::{
    action::Action,
    wish::{FEED, STEAM},
};

/// What the boiler can give at most, in t/h.
pub const CAPACITY: f64 = 18.0;
/// By how much the feed may be moved in one cycle, in t/h.
const FEED_RATE: f64 = 10.0;

/// What went wrong in a study. None of it is worth another try.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The controllers make no problem.
    #[error("the wishes make no problem: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problem(Vec<FieldError>),
    /// The operating system has no more for an event loop.
    #[error("cannot start an event loop")]
    Runtime(#[from] std::io::Error),
    /// The strategy made no plan.
    #[error("{0} made no plan")]
    Strategy(String, #[source] StrategyError),
    /// The strategy made a plan that nobody may act on.
    #[error("{0} made a plan that does not hold: {1}")]
    Plan(String, String),
}

/// Coordinates by one strategy.
pub struct Coordinator {
    strategy: Arc<dyn CoordinationStrategy>,
    runtime: tokio::runtime::Runtime,
}

impl Coordinator {
    /// By this strategy.
    ///
    /// # Errors
    /// [`StudyError::Runtime`].
    pub fn new(strategy: Arc<dyn CoordinationStrategy>) -> Result<Self, StudyError> {
        Ok(Self { strategy, runtime: tokio::runtime::Builder::new_current_thread().enable_time().build()? })
    }

    /// The conflicts among these wishes, at this feed.
    ///
    /// # Errors
    /// [`StudyError::Problem`].
    pub fn conflicts(
        cycle: u64,
        feed: f64,
        agents: Vec<Arc<Agent>>,
        intentions: Vec<Intention>,
    ) -> Result<Vec<Conflict>, StudyError> {
        Ok(problem(cycle, feed, agents, intentions)?.conflicts().to_vec())
    }

    /// One cycle: a plan that has been verified.
    ///
    /// # Errors
    /// The wishes make no problem, or the strategy no plan.
    pub fn cycle(
        &self,
        cycle: u64,
        feed: f64,
        agents: Vec<Arc<Agent>>,
        intentions: Vec<Intention>,
    ) -> Result<Plan, StudyError> {
        let problem = problem(cycle, feed, agents, intentions)?;
        let name = || self.strategy.name().to_owned();
        // Not a clock's word: a study gives the same on every machine.
        let budget = Budget::new(None);
        let resolution = self
            .runtime
            .block_on(self.strategy.resolve(&problem, &budget, &NoNegotiator))
            .map_err(|error| StudyError::Strategy(name(), error))?;
        let header = PlanHeader { strategy: name(), epoch: 1, fallback: false, elapsed_ms: 0.0 };
        let mut plan = assemble(&problem, &resolution, &header).map_err(|wrong| StudyError::Plan(name(), wrong))?;
        verify(&problem, &plan).map_err(|wrong| StudyError::Plan(name(), wrong.join("; ")))?;
        plan.verified = true;
        Ok(plan)
    }
}

fn problem(cycle: u64, feed: f64, agents: Vec<Arc<Agent>>, intentions: Vec<Intention>) -> Result<Problem, StudyError> {
    let steam = Resource {
        name: STEAM.to_owned(),
        capacity: CAPACITY,
        unit: "t/h".to_owned(),
        reserve: 0.0,
        kind: ResourceKind::Divisible,
    };
    let feed = Variable {
        name: FEED.to_owned(),
        unit: "t/h".to_owned(),
        min: Action::MIN_FLOW,
        max: Action::MAX_FLOW,
        max_rate: Some(FEED_RATE),
        current: Some(feed),
        default: None,
        tolerance: 1.0,
        on_conflict: OnConflict::Exclusive,
    };
    Problem::new(ProblemDocument {
        group: DEFAULT_GROUP.to_owned(),
        cycle,
        budget: BudgetDocument::default(),
        seed: cycle,
        resources: vec![steam],
        variables: vec![feed],
        agents,
        intentions: intentions.into_iter().map(Arc::new).collect(),
        holdings: Vec::new(),
        history: Vec::new(),
    })
    .map_err(StudyError::Problem)
}
