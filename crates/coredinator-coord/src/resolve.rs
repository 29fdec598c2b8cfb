//! From a problem to a plan that may be acted on, whatever the strategy does.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use coredinator_core::coordination::{
    Budget, CoordinationStrategy, Draft, Needs, Negotiator, NoNegotiator, Plan, PlanHeader, Problem, Resolution,
    StrategyError, assemble, verify,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    CoordError,
    negotiate::{Witness, tell_revised},
    record::{DecidedBy, FaultKind, StrategyFault},
    strategies::PriorityBased,
};

/// A strategy that has been chosen.
pub struct Chosen {
    pub(crate) choice: Value,
    pub(crate) strategy: Arc<dyn CoordinationStrategy>,
    pub(crate) name: String,
    pub(crate) needs: Needs,
    /// Whether a thread still hangs in it.
    busy: Arc<AtomicBool>,
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen").field("choice", &self.choice).finish_non_exhaustive()
    }
}

impl Chosen {
    /// A strategy, with the words that it was chosen by.
    ///
    /// # Errors
    /// [`CoordError::Invalid`]: it panics when it is asked for its name or needs.
    pub fn new(choice: Value, strategy: Arc<dyn CoordinationStrategy>) -> Result<Self, CoordError> {
        let asked = catch_unwind(AssertUnwindSafe(|| (strategy.name().to_owned(), strategy.needs())));
        let (name, needs) = asked.map_err(|panic| {
            CoordError::Invalid(vec![coredinator_core::FieldError::new("", format!("it panics: {}", told(&*panic)))])
        })?;
        Ok(Self { choice, strategy, name, needs, busy: Arc::default() })
    }
}

/// What came of a problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// The plan, verified. Absent: not even what is safe for everyone could be verified.
    pub plan: Option<Plan>,
    /// Who made it.
    pub decided_by: DecidedBy,
    /// What the strategy, and whoever stepped in for it, did wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<StrategyFault>,
    /// How long strategies took, in milliseconds.
    pub resolve_ms: f64,
    /// How long writing out and checking took, in milliseconds.
    pub verify_ms: f64,
}

/// How long after time was called a strategy is still listened to, at least.
const GRACE: Duration = Duration::from_millis(50);
/// The shortest time for `priority_based` when it steps in.
const STEP_IN: Duration = Duration::from_millis(500);

/// Has a problem solved by the strategy within `deadline`, on a thread of its own; a plan that may be acted on comes of it
/// whatever the strategy does:
///
/// - at the deadline its budget ends; if it answers soon (a quarter of the deadline, at least 50 ms) with what it has, that
///   counts, with status `fallback`; if not, it is left behind, and not asked again while it hangs;
/// - if it panics, hangs, fails, its plan breaks a rule, or refers to a revision that no agent made, `priority_based` decides, with status `fallback`, and if that
///   fails as well, everyone gets what is safe.
///
/// Must be called on a tokio runtime.
pub async fn resolve(
    problem: Arc<Problem>,
    chosen: &Chosen,
    negotiator: Arc<dyn Negotiator>,
    epoch: u64,
    deadline: Duration,
) -> Resolved {
    let mut resolved =
        Resolved { plan: None, decided_by: DecidedBy::Strategy, faults: Vec::new(), resolve_ms: 0.0, verify_ms: 0.0 };
    let first = Attempt {
        strategy: Arc::clone(&chosen.strategy),
        name: chosen.name.clone(),
        busy: Arc::clone(&chosen.busy),
        fallback: false,
        deadline,
    };
    if first.run(&problem, negotiator, epoch, &mut resolved).await {
        return resolved;
    }
    resolved.decided_by = DecidedBy::PriorityBased;
    let second = Attempt {
        strategy: Arc::new(PriorityBased::default()),
        name: PriorityBased::NAME.to_owned(),
        busy: Arc::default(),
        fallback: true,
        deadline: deadline.max(STEP_IN),
    };
    if second.run(&problem, Arc::new(NoNegotiator), epoch, &mut resolved).await {
        return resolved;
    }
    resolved.decided_by = DecidedBy::SafeSide;
    safe_side(&problem, epoch, &mut resolved);
    resolved
}

/// Everyone gets what is safe.
fn safe_side(problem: &Problem, epoch: u64, resolved: &mut Resolved) {
    let resolution = Draft::new(problem).finish();
    let header = PlanHeader { strategy: SAFE_SIDE.to_owned(), epoch, fallback: true, elapsed_ms: resolved.resolve_ms };
    match plan(problem, &resolution, &header) {
        Ok(plan) => resolved.plan = Some(plan),
        Err((kind, details)) => {
            resolved.faults.push(StrategyFault { strategy: SAFE_SIDE.to_owned(), kind, details });
        }
    }
}

const SAFE_SIDE: &str = "safe_side";

/// One strategy's try.
struct Attempt {
    strategy: Arc<dyn CoordinationStrategy>,
    name: String,
    busy: Arc<AtomicBool>,
    fallback: bool,
    deadline: Duration,
}

/// What a strategy's thread says.
type Said = Result<Result<Resolution, StrategyError>, Box<dyn Any + Send>>;

impl Attempt {
    /// Whether it came to a plan.
    async fn run(
        self,
        problem: &Arc<Problem>,
        negotiator: Arc<dyn Negotiator>,
        epoch: u64,
        resolved: &mut Resolved,
    ) -> bool {
        let (name, fallback) = (self.name.clone(), self.fallback);
        let (begun, took) = (Instant::now(), resolved.resolve_ms);
        let (shared, runtime) = (Arc::clone(problem), Handle::current());
        let witness = Arc::new(Witness::new(Arc::clone(problem), negotiator));
        let negotiator = Arc::clone(&witness);
        // The blocking thread only waits, and never longer than the deadline and a little: it is the strategy's own thread that
        // may be left behind.
        let waited = tokio::task::spawn_blocking(move || self.wait(&shared, negotiator, &runtime)).await;
        resolved.resolve_ms = took + millis(begun);
        let begun = Instant::now();
        let said = waited.unwrap_or_else(|_| Err((FaultKind::Failed, vec!["the runtime is shutting down".to_owned()])));
        let planned = said.and_then(|resolution| {
            let invented = witness.invented(&resolution.revisions);
            if !invented.is_empty() {
                return Err((FaultKind::IllFormed, invented));
            }
            let header = PlanHeader { strategy: name.clone(), epoch, fallback, elapsed_ms: resolved.resolve_ms };
            plan(problem, &resolution, &header)
        });
        resolved.verify_ms += millis(begun);
        match planned {
            Ok(plan) => {
                resolved.plan = Some(plan);
                true
            }
            Err((kind, details)) => {
                tracing::warn!(strategy = name, fault = kind.as_str(), ?details, "a strategy failed");
                resolved.faults.push(StrategyFault { strategy: name, kind, details });
                false
            }
        }
    }

    fn wait(
        self,
        problem: &Arc<Problem>,
        negotiator: Arc<Witness>,
        runtime: &Handle,
    ) -> Result<Resolution, (FaultKind, Vec<String>)> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err((FaultKind::Busy, vec!["it still hangs in an earlier cycle".to_owned()]));
        }
        let budget = Budget::new(problem.document().budget.iterations);
        let (sender, receiver) = mpsc::sync_channel::<Said>(1);
        let spawned = {
            let (problem, budget, runtime) = (Arc::clone(problem), budget.clone(), runtime.clone());
            let (strategy, busy) = (self.strategy, Arc::clone(&self.busy));
            std::thread::Builder::new().name(format!("coord-{}", self.name)).spawn(move || {
                let said = catch_unwind(AssertUnwindSafe(|| {
                    runtime.block_on(strategy.resolve(&problem, &budget, negotiator.as_ref()))
                }));
                busy.store(false, Ordering::Release);
                // Nobody may be listening any more.
                let _ = sender.send(said);
            })
        };
        if let Err(error) = spawned {
            self.busy.store(false, Ordering::Release);
            return Err((FaultKind::Failed, vec![format!("no thread can be had: {error}")]));
        }
        let said = receiver.recv_timeout(self.deadline).or_else(|_| {
            budget.end();
            receiver.recv_timeout(GRACE.max(self.deadline / 4))
        });
        match said {
            Ok(Ok(Ok(resolution))) => Ok(resolution),
            Ok(Ok(Err(error))) => Err((FaultKind::Failed, chain(&error))),
            Ok(Err(panic)) => Err((FaultKind::Panicked, vec![told(&*panic)])),
            Err(_) => Err((FaultKind::Hung, vec![format!("no answer within {:?}", self.deadline)])),
        }
    }
}

/// Writes choices out, and checks them; never panics, whatever they are.
fn plan(problem: &Problem, resolution: &Resolution, header: &PlanHeader) -> Result<Plan, (FaultKind, Vec<String>)> {
    let planned = catch_unwind(AssertUnwindSafe(|| {
        let revised;
        let first = problem;
        let problem = if resolution.revisions.is_empty() {
            problem
        } else {
            let limits = coredinator_core::coordination::Limits::default();
            revised = problem
                .revised(resolution.revisions.clone(), &limits)
                .map_err(|errors| (FaultKind::IllFormed, errors.iter().map(ToString::to_string).collect()))?;
            &revised
        };
        let mut plan = assemble(problem, resolution, header).map_err(|wrong| (FaultKind::IllFormed, vec![wrong]))?;
        verify(problem, &plan).map_err(|wrong| (FaultKind::Infeasible, wrong))?;
        plan.verified = true;
        if !resolution.revisions.is_empty() {
            tell_revised(&mut plan, first, &resolution.revisions);
        }
        Ok(plan)
    }));
    planned.unwrap_or_else(|panic| Err((FaultKind::IllFormed, vec![told(&*panic)])))
}

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").chars().take(1000).collect()
}

fn chain(error: &StrategyError) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        texts.push(error.to_string());
        source = error.source();
    }
    texts
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
