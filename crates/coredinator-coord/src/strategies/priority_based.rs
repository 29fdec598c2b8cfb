//! By priority.

use async_trait::async_trait;
use coredinator_core::{
    FieldError,
    coordination::{Budget, CoordinationStrategy, Draft, Negotiator, Problem, Resolution, StrategyError, by_priority},
    field::FieldReader,
};
use serde_json::Value;

/// The highest priority first.
#[derive(Debug, Clone, Default)]
pub struct PriorityBased {}

impl PriorityBased {
    /// Its name.
    pub const NAME: &str = "priority_based";

    /// Reads its options.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(pointer: &str, options: Value) -> Result<Self, Vec<FieldError>> {
        FieldReader::new(pointer, options).finish(Self::default)
    }
}

#[async_trait]
impl CoordinationStrategy for PriorityBased {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn resolve(&self, problem: &Problem, _: &Budget, _: &dyn Negotiator) -> Result<Resolution, StrategyError> {
        if let Some(easy) = Resolution::first_choices(problem) {
            return Ok(easy);
        }
        let mut draft = Draft::new(problem);
        for party in by_priority(problem) {
            let _ = problem.parties()[party].options().any(|candidate| draft.grant(candidate));
        }
        Ok(draft.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        coredinator_core::conformance::strategy::run(PriorityBased::default);
    }
}
