//! Problems, and plans for them.

use std::sync::{Arc, OnceLock};

use coredinator_coord::Strategies;
use coredinator_core::{
    conformance::strategy::random_problem,
    coordination::{
        Agent, Budget, CoordinationStrategy, Fallback, Intention, NoNegotiator, Plan, PlanHeader, Problem,
        ProblemDocument, assemble, verify,
    },
};
use serde_json::{Value, json};

/// Every strategy that there is, as it comes, and some with options; without those that cannot be had without options.
pub(crate) fn strategies() -> Vec<(String, Arc<dyn CoordinationStrategy>)> {
    let known = Strategies::builtin();
    let variants = [
        json!({"priority_based": {"when_it_does_not_fit": "block"}}),
        json!({"priority_based": {"ageing": {"cycles": 2}, "hysteresis": 0.5, "grace": 1}}),
    ];
    let plain = known.names().map(|name| json!(name)).filter(|choice| known.make("", choice).is_ok());
    plain.chain(variants).map(|choice| (choice.to_string(), make(&choice))).collect()
}

/// A strategy.
pub(crate) fn make(choice: &Value) -> Arc<dyn CoordinationStrategy> {
    Strategies::builtin().make("", choice).unwrap()
}

/// The problem of a document.
pub(crate) fn problem(document: &ProblemDocument) -> Problem {
    Problem::new(document.clone()).unwrap()
}

/// The plan of a strategy for a problem, verified.
pub(crate) fn plan(strategy: &dyn CoordinationStrategy, problem: &Problem, told: &str) -> Plan {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let resolution = runtime.block_on(strategy.resolve(problem, &Budget::default(), &NoNegotiator)).unwrap();
    let header = PlanHeader { strategy: strategy.name().to_owned(), epoch: 3, fallback: false, elapsed_ms: 0.0 };
    let plan = assemble(problem, &resolution, &header).unwrap_or_else(|error| panic!("{told}: {error}"));
    if let Err(wrong) = verify(problem, &plan) {
        panic!("{told}: {}", wrong.join("; "));
    }
    plan
}

/// A problem made by chance, in which not getting anything takes nothing: all fall back to releasing what they hold.
pub(crate) fn without_safe_side(seed: u64, agents: usize) -> ProblemDocument {
    let mut document = random_problem(seed, agents);
    change_agents(&mut document, |agent| agent.fallback = Some(Fallback::Release));
    document
}

pub(crate) fn change_agents(document: &mut ProblemDocument, change: impl Fn(&mut Agent)) {
    document.agents.iter_mut().for_each(|agent| change(Arc::make_mut(agent)));
}

pub(crate) fn change_intentions(document: &mut ProblemDocument, mut change: impl FnMut(&mut Intention)) {
    document.intentions.iter_mut().for_each(|intention| change(Arc::make_mut(intention)));
}
