//! As a game.

mod bargain;
mod congestion;
mod play;
mod spread;
mod vcg;

use std::collections::BTreeMap;

use async_trait::async_trait;
use coredinator_core::{
    FieldError,
    coordination::{
        AgentId, Budget, CoordinationStrategy, Negotiator, Problem, Resolution, StrategyError, by_priority,
    },
    field::{FieldReader, join},
};
use serde::Deserialize;
use serde_json::Value;

use super::refine::improve;
use congestion::Congestion;

/// How many rounds of best responses are played where the budget says nothing.
const ROUNDS: u32 = 100;

/// What agents that each want the best for themselves can agree on.
///
/// # `solution: nash` (the default)
/// **Rule.** Weighted Nash bargaining. Without an agreement everyone is denied: its fallback, worth its `disagreement` (or
/// what the fallback's own utility says; without a fallback the disagreement, 0 where none is given). Of all plans, those in
/// which the fewest have less than that (nobody, as long as everyone has a fallback that fits); of these, those in which the
/// most gain; of these, the one with the largest product of gains, each to the power of its agent's weight.
///
/// **Guarantee.** Nobody gets less than its disagreement. Nobody could be given more without taking from somebody; agents
/// that are alike get the same as far as options allow; and no agent's plan depends on the unit or zero of anybody's
/// utilities, which are never compared: rewards of learning agents are not comparable. (Where the same number could gain in
/// different ways, a gain counts as a share of the largest that its agent could hope for.) The best there is where the plan
/// says `optimal`: all-or-nothing options that the solver has searched through, and elastic ones where everyone gains by its
/// only option. Elsewhere elastic options are first chosen in eight fractions each, then divided exactly; thousands of agents
/// that hang together get what prices and exchanges lead to. Those are within all limits, but not proven best.
///
/// # `solution: vcg`
/// **Rule.** The plan with the largest sum of weight times utility, and everyone pays what its being there costs the others:
/// what they could have had without it (it being denied) less what they have.
///
/// **Guarantee.** As long as the plan says `optimal`, no agent can do better than to tell its true utilities, whatever the
/// others say, and nobody pays more than it gains. Where the solver could not prove a plan best, or there was no time to ask
/// what everyone's absence would change, payments are given all the same (then at the margin: the amounts taken at their
/// prices), never above the gain, and `optimal` is false: exaggeration may pay. Elastic options are chosen in a few
/// fractions each, then divided anew, in the plan and in what the others could have had alike.
///
/// `credit` is what an agent may spend in one cycle, in the unit of the objective (weight times utility): one number for
/// all, or an object by agent (others are not limited). It is the operator's word. What an agent says it would gain counts up
/// to its credit only, so it never pays more; nothing is carried over from cycle to cycle: whoever keeps accounts deducts
/// [`payments`](coredinator_core::coordination::Plan::payments) and sets what is left. Absent: nobody is limited.
///
/// # `solution: best_response`
/// **Rule.** Agents in turn (the highest priority first) change to the option that is best for them, given what the others
/// have chosen: of a resource that too many want each expects the share in proportion to its demand, of a variable that is
/// claimed at values that exclude each other one chance among all. In the end an elastic option is granted in that share;
/// others by priority; and whatever is left to those to whom it is worth most by their own account.
///
/// **Guarantee.** Always a plan within all limits. `converged`: nobody would change alone. That is certain to be reached only
/// where the game has a potential: options that take one resource each, all the same amount of it, with nothing lost by
/// being denied (a congestion game). Elsewhere rounds may go in circles: after 100, or the budget's iterations, they are
/// stopped, and `converged` is false. The sum of utilities may be far below the best.
///
/// **Complexity.** `nash` one solve, and a Newton method with one row for each resource that is short; `vcg` one solve and
/// one more for each winner among those that hang together with it, in at most 30 million steps (or the budget's
/// iterations); `best_response` rounds times all options of all agents.
///
/// **References.** Nash 1950 (the bargaining problem); Kalai 1977 (weights); Vickrey 1961, Clarke 1971, Groves 1973
/// (payments); Rosenthal 1973 (congestion games), Monderer, Shapley 1996 (potential games), Milchtaich 1996 (player-specific
/// payoffs).
#[derive(Debug, Clone, Default)]
pub struct GameTheoretic {
    solution: Solution,
    credit: Credit,
}

/// What counts as the solution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Solution {
    #[default]
    Nash,
    Vcg,
    BestResponse,
}

/// What agents may spend in one cycle.
#[derive(Debug, Clone, PartialEq, Default)]
enum Credit {
    #[default]
    Unlimited,
    Everyone(f64),
    Each(BTreeMap<AgentId, f64>),
}

impl Credit {
    fn of(&self, agent: &AgentId) -> Option<f64> {
        match self {
            Self::Unlimited => None,
            Self::Everyone(amount) => Some(*amount),
            Self::Each(amounts) => amounts.get(agent).copied(),
        }
    }

    fn parse(pointer: &str, value: Value) -> Result<Self, Vec<FieldError>> {
        let amount = |pointer: &str, value: &Value| match value.as_f64() {
            Some(amount) if amount >= 0.0 && amount.is_finite() => Ok(amount),
            _ => Err(vec![FieldError::new(pointer, format!("must be a number of 0 or more, but is {value}"))]),
        };
        let Value::Object(each) = value else { return amount(pointer, &value).map(Self::Everyone) };
        let mut amounts = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, value) in &each {
            let at = join(pointer, name);
            match AgentId::new(name) {
                Ok(agent) => match amount(&at, value) {
                    Ok(amount) => drop(amounts.insert(agent, amount)),
                    Err(wrong) => errors.extend(wrong),
                },
                Err(wrong) => errors.push(FieldError::new(at, wrong.to_string())),
            }
        }
        if errors.is_empty() { Ok(Self::Each(amounts)) } else { Err(errors) }
    }
}

impl GameTheoretic {
    /// Its name.
    pub const NAME: &str = "game_theoretic";

    /// Reads its options: `solution` (`nash`, `vcg` or `best_response`), and for `vcg` `credit`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(pointer: &str, options: Value) -> Result<Self, Vec<FieldError>> {
        let mut reader = FieldReader::new(pointer, options);
        let solution = reader.or("solution", Solution::default());
        let credit = reader.parsed("credit", Credit::parse).unwrap_or_default();
        if credit != Credit::Unlimited && solution != Solution::Vcg {
            reader.error("credit", "only vcg has payments");
        }
        reader.finish(|| Self { solution, credit })
    }
}

#[async_trait]
impl CoordinationStrategy for GameTheoretic {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        _: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError> {
        if let Some(easy) = Resolution::first_choices(problem) {
            let nothing = (self.solution == Solution::Vcg).then(|| vec![0.0; problem.parties().len()]);
            return Ok(Resolution { payments: nothing, ..easy });
        }
        match self.solution {
            Solution::Nash => bargain::bargain(problem, budget)
                .ok_or_else(|| StrategyError::new("the problem could not be written with fixed fractions")),
            Solution::Vcg => Ok(vcg::vcg(problem, &self.credit, budget)),
            Solution::BestResponse => Ok(best_response(problem, budget)),
        }
    }
}

fn best_response(problem: &Problem, budget: &Budget) -> Resolution {
    let order = by_priority(problem);
    let mut game = Congestion::new(problem);
    let players = game.players(&order);
    let rounds = budget.iterations().map_or(ROUNDS, |most| u32::try_from(most.max(1)).unwrap_or(u32::MAX));
    let course = play::play(&mut game, &players, rounds, budget);
    let mut draft = game.settle(&order);
    improve(&mut draft, &order);
    let cut_short = budget.is_over();
    Resolution { rounds: course.rounds, converged: course.at_rest, cut_short, ..draft.finish() }
}
