//! Room for one for whom there seems to be none.

use super::{
    super::{
        problem::{Presence, Problem, TOLERANCE},
        resolution::Pick,
    },
    Draft, modesty,
};

/// How many looks at candidates the search for room may cost, for all parties of a problem together.
pub(super) const MOST_LOOKS: usize = 200_000;

/// How many parties may be placed anew to make room for one.
const MOST_MOVED: usize = 24;

/// Places a party that has nothing: with one of its options, where its fallback does not fit, and by moving others that have a
/// place already to something else of their own, those with whom it shares resources and variables, or who share some with
/// these. Whether there was room; if not, or if that would take more than what is left of `looks`, everyone is where it was.
pub(super) fn make_room(draft: &mut Draft<'_>, party: usize, looks: &mut usize) -> bool {
    let Some(moved) = neighbours(draft, party, looks) else { return false };
    let before: Vec<(usize, Pick)> = moved.iter().map(|&party| (party, draft.pick(party))).collect();
    for &(party, _) in &before {
        draft.set(party, Pick::Nothing);
    }
    let problem = draft.problem();
    let choices = moved.iter().map(|&party| choices(problem, party)).collect();
    let mut search = Search { draft, choices, looks };
    let mut open: Vec<usize> = (0..moved.len()).collect();
    let found = search.place(&mut open);
    if !found {
        for (party, pick) in before {
            draft.set(party, pick);
        }
    }
    found
}

/// The party, and who may have to be moved for it; `None`: looking for them takes too long.
fn neighbours(draft: &Draft<'_>, party: usize, looks: &mut usize) -> Option<Vec<usize>> {
    let problem = draft.problem();
    let mut resources = vec![false; problem.resources().len()];
    let mut variables = vec![false; problem.variables().len()];
    let mut moved = vec![party];
    let mut seen = 0;
    while seen < moved.len() && moved.len() <= MOST_MOVED {
        *looks = looks.checked_sub(problem.candidates().len())?;
        for &party in &moved[seen..] {
            for candidate in candidates(problem, party) {
                problem.demands(candidate).iter().for_each(|demand| resources[demand.resource] = true);
                let claims = problem.claims(candidate).iter().filter(|claim| !claim.soft);
                claims.for_each(|claim| variables[claim.variable] = true);
                problem.pushes(candidate).iter().for_each(|push| variables[push.variable] = true);
            }
        }
        seen = moved.len();
        let meets = |&candidate: &usize| {
            problem.demands(candidate).iter().any(|demand| resources[demand.resource])
                || problem.claims(candidate).iter().any(|claim| !claim.soft && variables[claim.variable])
                || problem.pushes(candidate).iter().any(|push| variables[push.variable])
        };
        let is_met = |&other: &usize| {
            draft.taken(other).is_some_and(|(candidate, _)| meets(&candidate))
                && candidates(problem, other).nth(1).is_some()
        };
        let others = (0..problem.parties().len()).filter(|other| !moved.contains(other));
        let met: Vec<usize> = others.filter(is_met).take(MOST_MOVED + 1 - moved.len()).collect();
        moved.extend(met);
    }
    Some(moved)
}

/// What a party can have if nobody else wants anything: its fallback, and its options.
fn candidates(problem: &Problem, party: usize) -> impl Iterator<Item = usize> {
    let of = &problem.parties()[party];
    let options = if of.presence == Presence::Active { of.options() } else { 0..0 };
    of.fallback().into_iter().chain(options).filter(|&candidate| problem.candidates()[candidate].possible)
}

/// The same, its fallback first, then what takes the smallest share of anything.
fn choices(problem: &Problem, party: usize) -> Vec<(usize, Pick)> {
    let fallback = problem.parties()[party].fallback();
    let mut choices: Vec<usize> = candidates(problem, party).collect();
    let size = |candidate: usize| if Some(candidate) == fallback { -1.0 } else { modesty(problem, candidate) };
    choices.sort_by(|&a, &b| size(a).total_cmp(&size(b)).then(a.cmp(&b)));
    let pick = |candidate: usize| match fallback {
        Some(fallback) if fallback == candidate => (candidate, Pick::Fallback),
        _ => (candidate, Pick::Option { candidate, fraction: problem.candidates()[candidate].min_fraction() }),
    };
    choices.into_iter().map(pick).collect()
}

/// A search in depth: whoever has the fewest choices left goes first.
struct Search<'s, 'p> {
    draft: &'s mut Draft<'p>,
    /// Of each party to be placed.
    choices: Vec<Vec<(usize, Pick)>>,
    looks: &'s mut usize,
}

impl Search<'_, '_> {
    /// Places those that are open, by their place among `choices`; whether there is room for all of them.
    fn place(&mut self, open: &mut Vec<usize>) -> bool {
        let problem = self.draft.problem();
        let mut scarcest: Option<(usize, Vec<(usize, Pick)>)> = None;
        let mut least = Vec::new();
        for (at, &next) in open.iter().enumerate() {
            let Some(left) = self.looks.checked_sub(self.choices[next].len()) else { return false };
            *self.looks = left;
            let fits = |&&(candidate, _): &&(usize, Pick)| self.draft.largest_fraction(candidate).is_some();
            let fitting: Vec<(usize, Pick)> = self.choices[next].iter().filter(fits).copied().collect();
            if fitting.is_empty() {
                return false;
            }
            least.extend(least_demands(problem, &fitting));
            if scarcest.as_ref().is_none_or(|(_, known)| fitting.len() < known.len()) {
                scarcest = Some((at, fitting));
            }
        }
        let Some((at, fitting)) = scarcest else { return true };
        if !self.is_enough(least) {
            return false;
        }
        let next = open.swap_remove(at);
        for (candidate, pick) in fitting {
            let party = problem.candidates()[candidate].party;
            if self.draft.set(party, pick) {
                if self.place(open) {
                    return true;
                }
                self.draft.set(party, Pick::Nothing);
            }
        }
        open.push(next);
        let last = open.len() - 1;
        open.swap(at, last);
        false
    }

    /// Whether there is as much left as all take together at least.
    fn is_enough(&self, mut least: Vec<(usize, f64)>) -> bool {
        least.sort_by_key(|&(resource, _)| resource);
        least.chunk_by(|a, b| a.0 == b.0).all(|all| {
            let resource = all[0].0;
            let slack = self.draft.problem().resources()[resource].capacity * TOLERANCE;
            all.iter().map(|(_, amount)| amount).sum::<f64>() <= self.draft.left()[resource] + slack
        })
    }
}

/// What is taken of each resource whichever of these is chosen.
fn least_demands(problem: &Problem, choices: &[(usize, Pick)]) -> Vec<(usize, f64)> {
    let amount = |candidate: usize, resource: usize| {
        let demands = problem.demands(candidate);
        // They are in the order of the resources.
        let at = demands.binary_search_by_key(&resource, |demand| demand.resource).ok()?;
        Some(demands[at].amount * problem.candidates()[candidate].min_fraction())
    };
    let Some(&(first, _)) = choices.first() else { return Vec::new() };
    let resources = problem.demands(first).iter().map(|demand| demand.resource);
    let least = |resource: usize| {
        let amounts = choices.iter().map(|&(candidate, _)| amount(candidate, resource).unwrap_or(0.0));
        (resource, amounts.fold(f64::INFINITY, f64::min))
    };
    resources.map(least).filter(|&(_, amount)| amount > 0.0).collect()
}
