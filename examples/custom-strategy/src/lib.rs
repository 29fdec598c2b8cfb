//! A strategy of one's own, in a crate that names `coredinator-core` alone: [`RoundRobin`], taking turns.
//! How it came to be, step by step: `docs/custom-strategy.md`.

use async_trait::async_trait;
use coredinator_core::coordination::{
    Budget, CoordinationStrategy, Draft, Negotiator, Presence, Problem, Resolution, StrategyError,
};

/// Everybody is first in turn.
///
/// In each cycle the agents choose one after the other, in the order of their names, each the first of its options that
/// still fits; who begins is the next one with each cycle. Among n agents that stay, each is first once in n cycles.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobin;

#[async_trait]
impl CoordinationStrategy for RoundRobin {
    fn name(&self) -> &str {
        "round_robin"
    }

    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        _: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError> {
        if let Some(easy) = Resolution::first_choices(problem) {
            return Ok(easy);
        }
        let mut draft = Draft::new(problem);
        let mut cut_short = false;
        for party in turns(problem) {
            cut_short = budget.is_over();
            if cut_short {
                break;
            }
            // `grant` says whether it fitted: the first option that does is the one.
            let _ = problem.parties()[party].options().any(|candidate| draft.grant(candidate));
        }
        Ok(Resolution { cut_short, ..draft.finish() })
    }
}

/// Who takes part, as places among the parties, beginning with the one whose turn it is.
fn turns(problem: &Problem) -> Vec<usize> {
    let parties = problem.parties().iter().enumerate();
    let mut active: Vec<usize> =
        parties.filter(|(_, party)| party.presence == Presence::Active).map(|(at, _)| at).collect();
    let count = active.len().max(1) as u64;
    // A remainder of a length is one that fits.
    active.rotate_left((problem.cycle() % count) as usize);
    active
}

/// The guide's code, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/custom-strategy.md")]
struct Guide;
