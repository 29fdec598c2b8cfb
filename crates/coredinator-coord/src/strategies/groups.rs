//! Who can be in whose way.

use std::collections::BTreeMap;

use coredinator_core::coordination::{Presence, Problem};

use crate::union::Union;

/// Parties that can be in each other's way: those that could demand what could run short, or claim or push one variable.
/// Who is in nobody's is in no group.
pub(super) fn groups(problem: &Problem) -> Vec<Vec<usize>> {
    let resources = problem.resources().len();
    let mut peak = vec![0.0; resources];
    let mut touched: Vec<Vec<usize>> = Vec::with_capacity(problem.parties().len());
    for party in problem.parties() {
        let mut most: BTreeMap<usize, f64> = BTreeMap::new();
        if party.presence != Presence::Holding {
            for candidate in party.options().chain(party.fallback()) {
                for demand in problem.demands(candidate) {
                    let known = most.entry(demand.resource).or_default();
                    *known = known.max(demand.amount);
                }
                let claimed = problem.claims(candidate).iter().filter(|claim| !claim.soft).map(|claim| claim.variable);
                let pushed = problem.pushes(candidate).iter().map(|push| push.variable);
                most.extend(claimed.chain(pushed).map(|variable| (resources + variable, 0.0)));
            }
        }
        most.range(..resources).for_each(|(&resource, amount)| peak[resource] += amount);
        touched.push(most.into_keys().collect());
    }
    let matters = |at: usize| at >= resources || peak[at] > problem.available()[at];
    let mut union = Union::new(resources + problem.variables().len());
    for touched in &mut touched {
        touched.retain(|&at| matters(at));
        touched.windows(2).for_each(|pair| union.join(pair[0], pair[1]));
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (party, touched) in touched.iter().enumerate() {
        if let Some(&first) = touched.first() {
            groups.entry(union.name(first)).or_default().push(party);
        }
    }
    groups.into_values().collect()
}
