//! Other options for a few parties where some are elastic: which ones go together best is not known before what is elastic
//! has been divided.

use coredinator_core::coordination::{Budget, Draft, Pick, Presence, Problem};

use super::refine::make_most;

/// With more parties than this, nothing is reconsidered.
const MOST_PARTIES: usize = 24;

/// Up to so many combinations, all are tried.
const MOST_TOGETHER: usize = 512;

/// How many times everyone is gone through for something better, where there are more.
const MAX_PASSES: usize = 4;

/// Divides anew what is elastic among the parties `open`, and if they are few and their choice is not known to be the best, tries
/// other options for them, for all at once or one after the other; `value` says what a candidate is worth in full. How
/// much more the best of all that is worth than what was picked.
pub(super) fn make_best(
    problem: &Problem,
    picks: &mut Vec<Pick>,
    open: &[usize],
    (optimal, budget): (bool, &Budget),
    value: impl Fn(usize) -> f64,
) -> f64 {
    let divided = make_most(problem, picks, open, &value);
    if optimal {
        return divided;
    }
    let is_elastic = |&party: &usize| {
        problem.parties()[party].options().any(|candidate| problem.candidates()[candidate].elastic.is_some())
    };
    if open.len() > MOST_PARTIES || !open.iter().any(is_elastic) {
        return divided;
    }
    let before = worth(problem, picks, open, &value);
    let mut search = Search { problem, open, best: before, picks, value };
    let choices: Vec<Vec<Pick>> = open.iter().map(|&party| search.choices(party)).collect();
    let together = choices.iter().try_fold(1_usize, |all, of| all.checked_mul(of.len()));
    if together.is_some_and(|together| together <= MOST_TOGETHER) {
        search.all(&choices, budget);
    } else {
        search.one_by_one(&choices, budget);
    }
    divided + search.best - before
}

/// What is picked for some parties is worth together.
fn worth(problem: &Problem, picks: &[Pick], open: &[usize], value: &impl Fn(usize) -> f64) -> f64 {
    let worth = |&party: &usize| match picks[party] {
        Pick::Option { candidate, fraction } => {
            let elastic = problem.candidates()[candidate].elastic;
            value(candidate) * elastic.map_or(1.0, |elastic| elastic.shape.worth(fraction))
        }
        Pick::Fallback => problem.parties()[party].fallback().map_or(0.0, value),
        Pick::Held | Pick::Nothing => 0.0,
    };
    open.iter().map(worth).sum()
}

struct Search<'s, F> {
    problem: &'s Problem,
    open: &'s [usize],
    picks: &'s mut Vec<Pick>,
    /// What they are worth.
    best: f64,
    value: F,
}

impl<F: Fn(usize) -> f64> Search<'_, F> {
    /// What a party could have, elastic options in the least fraction. One that was shed stays so.
    fn choices(&self, party: usize) -> Vec<Pick> {
        let of = &self.problem.parties()[party];
        if of.presence != Presence::Active || self.picks[party] == Pick::Nothing {
            return vec![self.picks[party]];
        }
        let options = of.options().map(|candidate| self.least(candidate));
        options.chain(of.fallback().map(|_| Pick::Fallback)).collect()
    }

    fn least(&self, candidate: usize) -> Pick {
        let elastic = self.problem.candidates()[candidate].elastic;
        Pick::Option { candidate, fraction: elastic.map_or(1.0, |elastic| elastic.min_fraction) }
    }

    fn all(&mut self, choices: &[Vec<Pick>], budget: &Budget) {
        let mut at = vec![0; choices.len()];
        loop {
            if budget.is_over() {
                return;
            }
            let chosen: Vec<Pick> = at.iter().zip(choices).map(|(&at, of)| of[at]).collect();
            self.attempt(&chosen);
            let Some(next) = (0..at.len()).find(|&next| at[next] + 1 < choices[next].len()) else { return };
            at[next] += 1;
            at[..next].fill(0);
        }
    }

    fn one_by_one(&mut self, choices: &[Vec<Pick>], budget: &Budget) {
        for _ in 0..MAX_PASSES {
            let before = self.best;
            for (place, of) in choices.iter().enumerate() {
                for &choice in of {
                    if budget.is_over() {
                        return;
                    }
                    let now = self.open.iter().map(|&party| match self.picks[party] {
                        Pick::Option { candidate, .. } => self.least(candidate),
                        other => other,
                    });
                    let mut chosen: Vec<Pick> = now.collect();
                    if chosen[place] != choice {
                        chosen[place] = choice;
                        self.attempt(&chosen);
                    }
                }
            }
            if self.best <= before {
                return;
            }
        }
    }

    /// Divides what is elastic among these choices, and keeps that if it fits and is better.
    fn attempt(&mut self, chosen: &[Pick]) {
        let mut draft = Draft::bare(self.problem);
        let mut all = self.picks.clone();
        self.open.iter().zip(chosen).for_each(|(&party, &pick)| all[party] = pick);
        let placed = |(party, &pick): (usize, &Pick)| match pick {
            Pick::Held | Pick::Nothing => true,
            pick => draft.set(party, pick),
        };
        if !all.iter().enumerate().all(placed) {
            return;
        }
        make_most(self.problem, &mut all, self.open, &self.value);
        let worth = worth(self.problem, &all, self.open, &self.value);
        if worth > self.best + 1e-9 * self.best.abs() {
            self.best = worth;
            *self.picks = all;
        }
    }
}
