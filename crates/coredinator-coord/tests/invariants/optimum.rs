//! How good plans are, against the best of all choices of small problems.

use std::sync::Arc;

use coredinator_core::{
    conformance::strategy::random_problem,
    coordination::{Presence, Problem, ProblemDocument, TOLERANCE},
};
use serde_json::json;

use crate::kit::{change_intentions, make, plan, problem, strategies};

const CASES: u64 = 1500;

/// A problem in which nothing is elastic.
fn discrete(seed: u64) -> ProblemDocument {
    let mut document = random_problem(seed, 6);
    change_intentions(&mut document, |intention| {
        intention.options.iter_mut().for_each(|option| option.elastic = None);
    });
    document
}

/// All choices in which everybody gets something that it can live with.
struct All<'p> {
    problem: &'p Problem,
    left: Vec<f64>,
    spans: Vec<(f64, f64)>,
    ways: Vec<(bool, bool)>,
    best: Option<f64>,
}

impl<'p> All<'p> {
    /// The largest sum of weight times utility; `None`: somebody always has to be shed.
    fn best(problem: &'p Problem) -> Option<f64> {
        let everything = (f64::NEG_INFINITY, f64::INFINITY);
        let spans = vec![everything; problem.variables().len()];
        let ways = vec![(false, false); spans.len()];
        let mut all = Self { problem, left: problem.available().to_vec(), spans, ways, best: None };
        all.from(0, 0.0);
        all.best
    }

    fn from(&mut self, party: usize, sum: f64) {
        let Some(of) = self.problem.parties().get(party) else {
            self.best = Some(self.best.map_or(sum, |best| best.max(sum)));
            return;
        };
        let candidates: Vec<usize> = of.options().chain(of.fallback()).collect();
        if candidates.is_empty() || of.presence == Presence::Holding {
            self.from(party + 1, sum);
            return;
        }
        for candidate in candidates.into_iter().filter(|&at| self.problem.candidates()[at].possible) {
            let before = (self.left.clone(), self.spans.clone(), self.ways.clone());
            if self.take(candidate) {
                let worth = of.agent.weight * self.problem.candidates()[candidate].utility;
                self.from(party + 1, sum + worth);
            }
            (self.left, self.spans, self.ways) = before;
        }
    }

    fn take(&mut self, candidate: usize) -> bool {
        let mut fits = true;
        for demand in self.problem.demands(candidate) {
            self.left[demand.resource] -= demand.amount;
            fits &= self.left[demand.resource] >= -self.problem.resources()[demand.resource].capacity * TOLERANCE * 0.1;
        }
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let (low, high) = &mut self.spans[claim.variable];
            (*low, *high) = (low.max(claim.bounds.0), high.min(claim.bounds.1));
            fits &= low <= high;
        }
        for push in self.problem.pushes(candidate) {
            let (up, down) = &mut self.ways[push.variable];
            (*up, *down) = (*up || push.strength > 0.0, *down || push.strength < 0.0);
            fits &= !(*up && *down);
        }
        fits
    }
}

#[test]
fn no_gap_is_smaller_than_the_true_one() {
    for (name, strategy) in strategies() {
        let mut tried = 0;
        for seed in 0..CASES {
            let problem = problem(&discrete(seed));
            let Some(best) = All::best(&problem) else { continue };
            let plan = plan(strategy.as_ref(), &problem, &format!("{name}, problem {seed}"));
            let slack = 1e-9 * (1.0 + best.abs());
            assert!(
                plan.shed.is_empty(),
                "{name}, problem {seed}: {:?} are shed, though all could be served",
                plan.shed
            );
            tried += 1;
            assert!(plan.objective <= best + slack, "{name}, problem {seed}: {} is above {best}", plan.objective);
            assert!(plan.bound >= best - slack, "{name}, problem {seed}: bound {} is below {best}", plan.bound);
        }
        assert!(tried > CASES / 3, "only {tried} problems in which nobody has to be shed");
    }
}

#[test]
fn centralized_finds_the_best() {
    let strategy = make(&json!("centralized"));
    for seed in 0..CASES {
        let problem = problem(&discrete(seed));
        let Some(best) = All::best(&problem).filter(|_| !problem.conflicts().is_empty()) else { continue };
        let plan = plan(strategy.as_ref(), &problem, &format!("problem {seed}"));
        assert!(plan.objective >= best - 1e-9 * (1.0 + best.abs()), "problem {seed}: {} of {best}", plan.objective);
    }
}

#[test]
fn more_capacity_never_lowers_the_optimum() {
    let strategy = make(&json!("centralized"));
    for seed in 0..CASES {
        let document = random_problem(seed, 6);
        let mut more = document.clone();
        let mut rng = fastrand::Rng::with_seed(seed);
        more.resources.iter_mut().for_each(|resource| resource.capacity += f64::from(rng.u8(0..4)));
        let told = format!("problem {seed}");
        let [before, after] = [&document, &more].map(|document| plan(strategy.as_ref(), &problem(document), &told));
        if before.shed.is_empty() && before.gap <= 1e-9 && after.gap <= 1e-9 {
            let slack = 1e-6 * (1.0 + before.objective.abs());
            assert!(
                after.objective >= before.objective - slack,
                "{told}: {} was {}",
                after.objective,
                before.objective
            );
        }
    }
}

#[test]
fn weights_and_utilities_in_another_unit_change_nothing() {
    let strategy = make(&json!("centralized"));
    for seed in 0..CASES {
        let document = discrete(seed);
        let mut other = document.clone();
        // A power of two, so that ties stay ties.
        change_intentions(&mut other, |intention| {
            intention.disagreement = intention.disagreement.map(|known| known * 4.0);
            intention.options.iter_mut().for_each(|option| option.utility *= 4.0);
        });
        other.agents.iter_mut().for_each(|agent| {
            let agent = Arc::make_mut(agent);
            agent.weight *= 0.5;
            if let Some(coredinator_core::coordination::Fallback::Option(option)) = &mut agent.fallback {
                option.utility *= 4.0;
            }
        });
        let told = format!("problem {seed}");
        let [one, other] = [&document, &other].map(|document| plan(strategy.as_ref(), &problem(document), &told));
        for (one, other) in one.decisions.iter().zip(&other.decisions) {
            assert_eq!((&one.option_id, &one.grant), (&other.option_id, &other.grant), "{told}: {}", one.agent_id);
        }
    }
}
