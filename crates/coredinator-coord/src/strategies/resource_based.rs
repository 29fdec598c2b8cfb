//! By fair shares of what there is.

mod filling;
mod supply;

use async_trait::async_trait;
use coredinator_core::{
    FieldError,
    coordination::{Budget, CoordinationStrategy, Negotiator, Problem, Resolution, StrategyError},
    field::FieldReader,
};
use filling::Filling;
use serde_json::Value;

/// Equal shares of what each needs most: weighted dominant resource fairness, by progressive filling.
///
/// **Rule.** An agent's dominant share is the largest share that it takes of any resource (of what is available: capacity
/// less reserve less what silent agents hold), divided by its weight. Beginning with what is safe for everyone, the poorest
/// goes next, again and again. It moves to the most modest of those of its options that fit and that it wants more than
/// what it has (the order is that of its list; it does not matter what the options are worth). What is elastic begins with
/// its smallest fraction and then grows evenly with all others as poor, until it is whole or something that it needs is
/// used up. An option that does not fit at its turn is skipped, and the next poorest goes on. When something was given back
/// on the way, all are asked again. Ties go by priority, then by name. Agents that claim one variable at different values
/// take turns by the same rule; who no longer agrees is skipped.
///
/// An agent that could do with any number of tasks offers them as options of 1 to k tasks, the largest first; one that can
/// use any fraction offers one elastic option, which with a single resource gives the weighted max-min shares.
///
/// **Guarantee.** Where everything is elastic and fallbacks take nothing: nobody gets less than its weight's share of every
/// resource would give it (sharing incentive), nobody would rather have what another of its weight has, nobody could have
/// more without another getting less, and asking for what one does not need does not pay (Ghodsi et al., Dominant Resource
/// Fairness, NSDI 2011). What comes in whole options gets as near to that as one step (Parkes, Procaccia and Shah, Beyond
/// Dominant Resource Fairness, EC 2012). The units of resources and of utilities do not matter.
///
/// **Cost.** O(n log n) for n options, demands included: from event to event, without steps.
///
/// It has no options of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceBased;

impl ResourceBased {
    /// Its name.
    pub const NAME: &str = "resource_based";

    /// Reads its options, of which there are none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(pointer: &str, options: Value) -> Result<Self, Vec<FieldError>> {
        FieldReader::new(pointer, options).finish(Self::default)
    }

    fn decide(problem: &Problem, budget: &Budget) -> Resolution {
        let mut resolution = Filling::new(problem).run(budget);
        resolution.cut_short = budget.is_over();
        resolution
    }
}

#[async_trait]
impl CoordinationStrategy for ResourceBased {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        _: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError> {
        Ok(Resolution::first_choices(problem).unwrap_or_else(|| Self::decide(problem, budget)))
    }
}

#[cfg(test)]
mod tests;
