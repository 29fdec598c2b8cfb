//! By negotiation.

mod auction;
mod blend;
mod market;
mod negotiation;
mod settle;

use async_trait::async_trait;
use coredinator_core::{
    FieldError,
    coordination::{Budget, CoordinationStrategy, Negotiator, Presence, Problem, Resolution, StrategyError},
    field::FieldReader,
};
use serde_json::Value;

use negotiation::Negotiation;

/// Agents negotiate through the coordinator, in bounded rounds, until everyone chooses by itself what the plan gives it.
///
/// **Rule.** Every resource that can be short has a price. In a round the price of each in turn is set to where demand meets
/// supply (dual ascent, exact along each resource; the dual's subgradient where that gets stuck), everyone having what is
/// best for it alone at these prices: weight times utility less the cost. On variables that are blended, claimants agree by
/// the alternating direction method of multipliers. In the end the choices are repaired to a plan: an auction at the prices
/// and one without prices, each improved as long as anyone can be given more, the fractions of what is elastic divided
/// exactly; the better one counts. Whoever `negotiates` is put the prices and its part of that plan, and may revise its
/// intention; prices are then found anew. Who is silent twice in a row, or revises to what cannot be used, is not asked
/// again; it is settled by its last usable intention. Revisions because of which somebody would be left with nothing are
/// refused.
///
/// **Guarantee.** The optimum of weighted utility for concave utilities (elastic options, small least fractions), to
/// rounding; `bound` is the dual, so the gap says how near it came in any case. All-or-nothing options need not have
/// clearing prices: then the plan is worth at least what a greedy auction reaches, which for single tasks is half of the
/// optimum, and `converged` is false. `converged`: at these prices nobody would choose another option than it gets.
/// Feasible whenever it is stopped, whatever agents answer.
///
/// **Complexity.** A round takes, for each resource, some ten to ninety looks at all options of those that could demand
/// it. At most 50 rounds (`rounds`, or the budget's iterations); where agents negotiate, at most 10 times of asking
/// (`negotiation_rounds`, or the budget's iterations if these are fewer), each after up to 50 rounds of prices, and
/// `rounds` of the plan counts the times of asking.
///
/// **References.** Kelly, Maulloo, Tan 1998 (prices for proportional fairness); Polyak 1969 (step of the subgradient);
/// Boyd, Parikh, Chu, Peleato, Eckstein 2011 (ADMM); Choi, Brunet, How 2009 (consensus-based auctions).
#[derive(Debug, Clone)]
pub struct Consensus {
    rounds: u32,
    negotiation_rounds: u32,
}

impl Default for Consensus {
    fn default() -> Self {
        Self { rounds: 50, negotiation_rounds: 10 }
    }
}

impl Consensus {
    /// Its name.
    pub const NAME: &str = "consensus";

    /// Reads its options: `rounds` (1 to 10,000) of prices, and `negotiation_rounds` (0 to 100; 0: nobody is asked).
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(pointer: &str, options: Value) -> Result<Self, Vec<FieldError>> {
        let mut reader = FieldReader::new(pointer, options);
        let default = Self::default();
        let read = Self {
            rounds: reader.or("rounds", default.rounds),
            negotiation_rounds: reader.or("negotiation_rounds", default.negotiation_rounds),
        };
        if !(1..=10_000).contains(&read.rounds) {
            reader.error("rounds", format!("must be 1 to 10000, but is {}", read.rounds));
        }
        if read.negotiation_rounds > 100 {
            reader.error("negotiation_rounds", format!("must be 0 to 100, but is {}", read.negotiation_rounds));
        }
        reader.finish(|| read)
    }
}

#[async_trait]
impl CoordinationStrategy for Consensus {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        negotiator: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError> {
        if let Some(easy) = Resolution::first_choices(problem) {
            // Nothing is short, so nothing costs anything.
            return Ok(Resolution { prices: Some(vec![0.0; problem.resources().len()]), ..easy });
        }
        let most = budget.iterations().map(|iterations| u32::try_from(iterations.max(1)).unwrap_or(u32::MAX));
        let negotiates =
            problem.parties().iter().any(|party| party.presence == Presence::Active && party.agent.negotiates);
        if !negotiates || self.negotiation_rounds == 0 {
            let rounds = most.unwrap_or(self.rounds);
            return Ok(settle::settle(problem, budget, rounds, None));
        }
        let asking = most.unwrap_or(u32::MAX).min(self.negotiation_rounds);
        Ok(Negotiation::new(problem, budget, self.rounds).run(asking, negotiator).await)
    }
}
