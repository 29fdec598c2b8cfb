//! Problems on paper for the tests of strategies: written as JSON, resolved, assembled and verified.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use coredinator_core::coordination::{
    Budget, CoordinationStrategy, Decision, Limits, Negotiator, NoNegotiator, Plan, PlanHeader, Problem, Resolution,
    assemble, verify,
};
use serde_json::{Value, json};

/// The problem that a document describes.
pub(crate) fn problem(document: Value) -> Problem {
    Problem::new(serde_json::from_value(document).unwrap()).unwrap()
}

/// An agent that may go without.
pub(crate) fn agent(id: &str) -> Value {
    json!({"agent_id": id, "fallback": "release"})
}

/// Runs what never waits.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// What a strategy answers, as a verified plan.
pub(crate) fn plan(strategy: &dyn CoordinationStrategy, problem: &Problem) -> Plan {
    negotiated(strategy, problem, &Budget::default(), &NoNegotiator).0
}

/// What a strategy answers with a budget and agents that negotiate, as a verified plan.
pub(crate) fn negotiated(
    strategy: &dyn CoordinationStrategy,
    problem: &Problem,
    budget: &Budget,
    negotiator: &dyn Negotiator,
) -> (Plan, Resolution) {
    let resolution = ready(strategy.resolve(problem, budget, negotiator)).unwrap();
    let header = PlanHeader { strategy: strategy.name().to_owned(), epoch: 1, fallback: false, elapsed_ms: 0.0 };
    let of = problem.revised(resolution.revisions.clone(), &Limits::default()).unwrap();
    let plan = assemble(&of, &resolution, &header).unwrap();
    if let Err(wrong) = verify(&of, &plan) {
        panic!("{wrong:?}\n{}", serde_json::to_string(problem.document()).unwrap());
    }
    (plan, resolution)
}

/// What an agent is granted of a resource.
pub(crate) fn granted(plan: &Plan, agent: &str, resource: &str) -> f64 {
    decision(plan, agent).grant.get(resource).copied().unwrap_or(0.0)
}

/// An agent's decision.
pub(crate) fn decision<'p>(plan: &'p Plan, agent: &str) -> &'p Decision {
    plan.decision(agent).unwrap()
}

/// Whether two numbers are the same to within a thousandth.
#[track_caller]
pub(crate) fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-3, "{found} instead of {expected}");
}
