//! Other options for a few parties where some are elastic: which ones go together best is not known before what is elastic
//! has been divided.

use coredinator_core::coordination::{Budget, Draft, Pick, Presence, Problem};

use super::{groups::groups, refine::make_most};

/// Among more parties than this nothing is reconsidered.
const MOST_PARTIES: usize = 24;

/// Up to so many combinations of what a group can have, all are tried.
const MOST_TOGETHER: usize = 512;

/// How many times everyone is gone through for something better, where there are more.
const MAX_PASSES: usize = 4;

/// How many combinations are tried at most, for all groups together.
const MOST_ATTEMPTS: usize = 4_000;

/// What is known of choices, and how much may be spent on better ones.
#[derive(Clone, Copy)]
pub(super) struct Known<'b> {
    /// Whether they are the best there are, but for how what is elastic is divided.
    pub(super) optimal: bool,
    /// How many parties count; whoever compares what parties have with what others would have without them says the same for
    /// both, so that both are looked at as closely.
    pub(super) parties: usize,
    /// The steps that are left, if they are counted.
    pub(super) steps: Option<u64>,
    /// The time.
    pub(super) budget: &'b Budget,
}

/// Divides anew what is elastic among the parties `open`, and if they are few and their choice is not known to be the best, tries
/// other options for those that can be in each other's way, for all at once or one after the other; `value` says what a
/// candidate is worth in full. Whether what is picked then is known to be the best.
pub(super) fn make_best(
    problem: &Problem,
    picks: &mut Vec<Pick>,
    open: &[usize],
    known: Known<'_>,
    value: impl Fn(usize) -> f64,
) -> bool {
    let divided = make_most(problem, picks, open, &value);
    let is_elastic = |&party: &usize| {
        problem.parties()[party].options().any(|candidate| problem.candidates()[candidate].elastic.is_some())
    };
    if known.optimal || known.parties > MOST_PARTIES || !open.iter().any(is_elastic) {
        return known.optimal;
    }
    let best = worth(problem, picks, open, &value);
    let attempts = known.steps.map_or(MOST_ATTEMPTS, |steps| {
        usize::try_from(steps / open.len().max(1) as u64).unwrap_or(MOST_ATTEMPTS).min(MOST_ATTEMPTS)
    });
    let mut search = Search { problem, open, best, picks, value, attempts, exact: divided.exact };
    for mut group in groups(problem) {
        group.retain(|party| open.contains(party));
        search.exact &= search.reconsider(&group, known.budget);
    }
    // Whoever is in nobody's way has what is best for it; who was shed has not.
    let is_shed = |&party: &usize| search.picks[party] == Pick::Nothing && has_something(problem, party);
    search.exact && !open.iter().any(is_shed)
}

fn has_something(problem: &Problem, party: usize) -> bool {
    let of = &problem.parties()[party];
    of.options().chain(of.fallback()).any(|candidate| problem.candidates()[candidate].possible)
}

/// What is picked for some parties is worth together, where `value` says what a candidate is worth in full.
pub(super) fn worth(problem: &Problem, picks: &[Pick], open: &[usize], value: &impl Fn(usize) -> f64) -> f64 {
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
    /// How many combinations may still be tried.
    attempts: usize,
    /// Whether no division that was tried was less than the best.
    exact: bool,
}

impl<F: Fn(usize) -> f64> Search<'_, F> {
    /// Tries other options for a group. Whether there was time for all.
    fn reconsider(&mut self, group: &[usize], budget: &Budget) -> bool {
        let choices: Vec<Vec<Pick>> = group.iter().map(|&party| self.choices(party)).collect();
        let together = choices.iter().try_fold(1_usize, |all, of| all.checked_mul(of.len()));
        if together.is_some_and(|together| together <= MOST_TOGETHER.min(self.attempts)) {
            self.all(group, &choices, budget)
        } else {
            self.one_by_one(group, &choices, budget);
            false
        }
    }

    /// What a party could have, elastic options in the least fraction. One that was shed stays so.
    fn choices(&self, party: usize) -> Vec<Pick> {
        let of = &self.problem.parties()[party];
        if self.picks[party] == Pick::Nothing || of.presence != Presence::Active {
            return vec![self.picks[party]];
        }
        let possible = |&candidate: &usize| self.problem.candidates()[candidate].possible;
        let options = of.options().filter(possible).map(|candidate| self.least(candidate));
        options.chain(of.fallback().filter(possible).map(|_| Pick::Fallback)).collect()
    }

    fn least(&self, candidate: usize) -> Pick {
        let elastic = self.problem.candidates()[candidate].elastic;
        Pick::Option { candidate, fraction: elastic.map_or(1.0, |elastic| elastic.min_fraction) }
    }

    fn all(&mut self, group: &[usize], choices: &[Vec<Pick>], budget: &Budget) -> bool {
        let mut at = vec![0; choices.len()];
        loop {
            if budget.is_over() {
                return false;
            }
            let chosen: Vec<Pick> = at.iter().zip(choices).map(|(&at, of)| of[at]).collect();
            self.attempt(group, &chosen);
            let Some(next) = (0..at.len()).find(|&next| at[next] + 1 < choices[next].len()) else { return true };
            at[next] += 1;
            at[..next].fill(0);
        }
    }

    fn one_by_one(&mut self, group: &[usize], choices: &[Vec<Pick>], budget: &Budget) {
        for _ in 0..MAX_PASSES {
            let before = self.best;
            for (place, of) in choices.iter().enumerate() {
                for &choice in of {
                    if budget.is_over() || self.attempts == 0 {
                        return;
                    }
                    let now = group.iter().map(|&party| match self.picks[party] {
                        Pick::Option { candidate, .. } => self.least(candidate),
                        other => other,
                    });
                    let mut chosen: Vec<Pick> = now.collect();
                    if chosen[place] != choice {
                        chosen[place] = choice;
                        self.attempt(group, &chosen);
                    }
                }
            }
            if self.best <= before {
                return;
            }
        }
    }

    /// Divides what is elastic among these choices of a group, and keeps that if it fits and is better.
    fn attempt(&mut self, group: &[usize], chosen: &[Pick]) {
        self.attempts = self.attempts.saturating_sub(1);
        let mut draft = Draft::bare(self.problem);
        let mut all = self.picks.clone();
        group.iter().zip(chosen).for_each(|(&party, &pick)| all[party] = pick);
        for (party, pick) in all.iter_mut().enumerate() {
            // Those that stay as they are take what they take, but for rounding.
            if let Pick::Option { candidate, fraction } = pick
                && let Some(largest) = draft.largest_fraction(*candidate)
            {
                *fraction = fraction.min(largest);
            }
            if !matches!(pick, Pick::Held | Pick::Nothing) && !draft.set(party, *pick) {
                return;
            }
        }
        self.exact &= make_most(self.problem, &mut all, self.open, &self.value).exact;
        let worth = worth(self.problem, &all, self.open, &self.value);
        if worth > self.best + 1e-9 * self.best.abs() {
            self.best = worth;
            *self.picks = all;
        }
    }
}
