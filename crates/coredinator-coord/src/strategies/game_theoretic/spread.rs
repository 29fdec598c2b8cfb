//! Elastic options as several fixed ones, so that what is exact for these can be asked about them.

use std::{borrow::Cow, sync::Arc};

use coredinator_core::coordination::{Limits, Presence, Problem, ProblemDocument};

/// Into how many fractions an elastic option is cut.
const CUTS: usize = 8;

/// A problem without anything elastic, and what its candidates stand for.
pub(super) struct Spread<'p> {
    /// The problem; parties, resources and variables have the places that they had.
    pub(super) problem: Cow<'p, Problem>,
    /// Of each of its candidates, the candidate and the fraction that it stands for.
    pub(super) origin: Vec<(usize, f64)>,
}

impl<'p> Spread<'p> {
    /// Cuts every elastic option into fractions from `least` of it to all of it. `None`: it cannot be written down.
    pub(super) fn new(problem: &'p Problem, least: impl Fn(usize) -> f64) -> Option<Self> {
        if problem.candidates().iter().all(|candidate| candidate.elastic.is_none()) {
            let origin = (0..problem.candidates().len()).map(|candidate| (candidate, 1.0)).collect();
            return Some(Self { problem: Cow::Borrowed(problem), origin });
        }
        let mut document = ProblemDocument::clone(problem.document());
        let mut origin = Vec::new();
        let mut limits = Limits { options: 1, entries: 1 };
        for party in problem.parties() {
            if let (Presence::Active, Some(intention)) = (party.presence, &party.intention) {
                let mut cut = (**intention).clone();
                cut.options.clear();
                for (candidate, option) in party.options().zip(&intention.options) {
                    let of = &problem.candidates()[candidate];
                    for fraction in cuts(of.elastic.is_some(), least(candidate)) {
                        let mut fixed = option.clone();
                        fixed.id = cut.options.len().to_string();
                        fixed.elastic = None;
                        fixed.utility = of.utility_at(fraction);
                        fixed.demands.values_mut().for_each(|amount| *amount *= fraction);
                        let entries = [fixed.demands.len(), fixed.claims.len(), fixed.effects.len()];
                        limits.entries = entries.into_iter().fold(limits.entries, usize::max);
                        cut.options.push(fixed);
                        origin.push((candidate, fraction));
                    }
                }
                limits.options = limits.options.max(cut.options.len());
                document.intentions.retain(|known| known.agent_id != cut.agent_id);
                document.intentions.push(Arc::new(cut));
            }
            origin.extend(party.fallback().map(|fallback| (fallback, 1.0)));
        }
        let problem = Problem::with_limits(document, &limits).ok()?;
        (problem.candidates().len() == origin.len()).then_some(Self { problem: Cow::Owned(problem), origin })
    }
}

fn cuts(elastic: bool, least: f64) -> Vec<f64> {
    if !elastic || least >= 1.0 {
        return vec![1.0];
    }
    (0..CUTS).rev().map(|cut| least + (1.0 - least) * cut as f64 / (CUTS - 1) as f64).collect()
}
