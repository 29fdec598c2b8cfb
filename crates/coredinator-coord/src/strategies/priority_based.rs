//! By priority.

mod class;
mod incumbents;
mod rules;
mod worth;

use std::collections::BTreeMap;

use async_trait::async_trait;
use class::Classes;
use coredinator_core::{
    FieldError,
    coordination::{Budget, CoordinationStrategy, Needs, Negotiator, Note, Pick, Problem, Resolution, StrategyError},
};
use incumbents::Incumbents;
pub use rules::{Ageing, PriorityBased, WhenItDoesNotFit};
use serde_json::Value;

/// How often holders that lose may be given grace one after the other, before all that have any left get it at once.
const GRACE_ROUNDS: usize = 4;

impl PriorityBased {
    /// Its name.
    pub const NAME: &str = "priority_based";

    /// Reads its options; see the fields of [`PriorityBased`].
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(pointer: &str, options: Value) -> Result<Self, Vec<FieldError>> {
        rules::parse(pointer, options)
    }

    pub(super) fn decide(&self, problem: &Problem, budget: &Budget) -> Resolution {
        let incumbents = Incumbents::of(problem, self);
        let classes = Classes::of(problem, self, &incumbents);
        if let Some(mut easy) = Resolution::first_choices(problem) {
            easy.values = classes.agreed();
            return easy;
        }
        let mut pins: BTreeMap<usize, Pick> = BTreeMap::new();
        let first = classes.run(&pins, budget);
        let mut last = None;
        for round in 0.. {
            let run = last.as_ref().unwrap_or(&first);
            let losers = incumbents.outranked(problem, run, &classes);
            let mut spared: Vec<usize> =
                losers.into_iter().filter(|&party| incumbents.has_grace(party) && !pins.contains_key(&party)).collect();
            if spared.is_empty() {
                break;
            }
            if round >= GRACE_ROUNDS {
                spared = (0..problem.parties().len()).filter(|&party| incumbents.has_grace(party)).collect();
            }
            pins.extend(spared.into_iter().filter_map(|party| Some((party, incumbents.held(party)?))));
            last = Some(classes.run(&pins, budget));
            if round >= GRACE_ROUNDS {
                break;
            }
        }
        let run = last.as_ref().unwrap_or(&first);
        let mut notes: BTreeMap<usize, Note> = BTreeMap::new();
        // Who is left without anything has not been preempted but shed, which is told otherwise.
        let outranked = incumbents.outranked(problem, run, &classes).into_iter();
        for party in outranked.filter(|&party| run.picks[party] != Pick::Nothing) {
            notes.insert(party, incumbents.outranked_note(problem, party, run));
        }
        for &party in pins.keys() {
            notes.insert(party, incumbents.grace_note(problem, party));
        }
        if !pins.is_empty() {
            for party in Incumbents::waiting(problem, &first, run, &classes, &pins) {
                notes.entry(party).or_insert_with(|| Incumbents::waiting_note(party, &pins, problem));
            }
        }
        let mut resolution = last.unwrap_or(first);
        // Who gives way to a holder hears of that before what is saved up.
        resolution.notes.extend(notes);
        resolution.cut_short = budget.is_over();
        resolution
    }
}

#[async_trait]
impl CoordinationStrategy for PriorityBased {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn needs(&self) -> Needs {
        let ageing = self.ageing.map_or(0, |ageing| ageing.cycles as usize * ageing.at_most as usize);
        Needs { history: ageing.max(self.grace as usize).min(Needs::MAX_HISTORY) }
    }

    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        _: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError> {
        Ok(self.decide(problem, budget))
    }
}

#[cfg(test)]
mod tests;
