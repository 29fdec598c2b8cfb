//! That taking turns is a strategy, and that it is taking turns.

use coredinator_core::{
    conformance::strategy,
    coordination::{
        Budget, CoordinationStrategy, DecisionOutcome, NoNegotiator, Plan, PlanHeader, Problem, ProblemDocument,
        assemble, verify,
    },
};
use custom_strategy::RoundRobin;

#[test]
fn conforms() {
    strategy::run(|| RoundRobin);
}

/// Three agents want the one pump; each could do without.
fn one_pump(cycle: u64) -> ProblemDocument {
    let document = serde_json::from_str(include_str!("../examples/pump.json")).expect("a document");
    ProblemDocument { cycle, ..document }
}

fn plan(cycle: u64) -> Plan {
    let problem = Problem::new(one_pump(cycle)).expect("a problem");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let answer = runtime.block_on(RoundRobin.resolve(&problem, &Budget::default(), &NoNegotiator)).expect("an answer");
    let header = PlanHeader { strategy: RoundRobin.name().to_owned(), epoch: 1, fallback: false, elapsed_ms: 0.0 };
    let plan = assemble(&problem, &answer, &header).expect("a plan");
    verify(&problem, &plan).expect("one that holds");
    plan
}

#[test]
fn everybody_is_first_in_turn() {
    let winner = |cycle| {
        let plan = plan(cycle);
        let granted = plan.decisions.iter().filter(|decision| decision.outcome == DecisionOutcome::Granted);
        granted.map(|decision| decision.agent_id.to_string()).collect::<Vec<_>>()
    };
    let winners: Vec<_> = (0..6).flat_map(winner).collect();
    assert_eq!(winners, ["a", "b", "c", "a", "b", "c"]);
}
