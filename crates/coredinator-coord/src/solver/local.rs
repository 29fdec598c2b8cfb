//! Better choices by exact search of windows.
//!
//! Most groups are sure of their column at good prices; what is open is a core of groups for which another column costs
//! little. Windows of the core are searched exactly, all else fixed, first along the order of that cost, then at random
//! with a preference for the front (a large-neighbourhood search, Shaw, 1998).

use coredinator_core::coordination::Budget;

use super::{
    join::Join,
    search::{Guide, Outcome, Search},
    state::State,
};

/// How many looks at columns one window may cost, depth first.
const WINDOW_STEPS: u64 = 1_000;

/// How many groups a window has, and one of a small component, and how many groups the core has at most.
const WIDTH: usize = 12;
const NARROW: usize = 8;
const CORE: usize = 600;

/// How many groups a window of lists has.
const LISTED_WIDTH: usize = 32;

/// Where windows do not find anything more, they become wider by this, and lists longer; so often.
const WIDER: f64 = 1.5;
const LONGER: usize = 2;
const WIDENED: usize = 3;

/// How many windows are taken at random before the core is looked at anew.
const RANDOM: usize = 16;

/// What searches windows.
pub(super) enum Searcher<'s> {
    /// Depth first.
    Tree(&'s mut Search),
    /// By lists of such a length.
    Lists(&'s mut Join, usize),
}

impl Searcher<'_> {
    /// How many groups a window has.
    fn width(&self, groups: usize, widened: usize) -> usize {
        let width = match self {
            Self::Tree(_) if groups <= 2 * WIDTH => NARROW,
            Self::Tree(_) => WIDTH,
            Self::Lists(..) => (LISTED_WIDTH as f64 * WIDER.powi(widened as i32)) as usize,
        };
        width.min(groups)
    }

    fn window(
        &mut self,
        state: &mut State<'_>,
        window: &[u32],
        guide: &Guide<'_>,
        (limit, widened): (u64, usize),
        budget: &Budget,
    ) -> Outcome {
        match self {
            Self::Tree(search) => search.window(state, window, guide, limit.min(WINDOW_STEPS), budget),
            Self::Lists(join, size) => {
                join.window(state, window, guide, (*size * LONGER.pow(widened as u32), limit), budget)
            }
        }
    }
}

/// Improves a state with about so many steps.
pub(super) fn improve(
    state: &mut State<'_>,
    mut searcher: Searcher<'_>,
    guide: &Guide<'_>,
    (limit, seed): (u64, u64),
    budget: &Budget,
) -> u64 {
    let model = state.model;
    let groups = model.groups();
    let (mut steps, mut widened) = (0, 0);
    let mut chance = Chance(seed);
    let mut window: Vec<u32> = Vec::new();
    let mut order: Vec<(f64, u32)> = Vec::with_capacity(groups);
    let mut taken = vec![false; groups];
    while steps < limit && !budget.is_over() {
        rank(state, guide, &mut order);
        steps += (model.candidate.len() / 2 + groups * 2) as u64;
        let width = searcher.width(groups, widened);
        let core = order.len().min(CORE).max(width);
        let mut improved = false;
        for round in 0..2 * core / width + RANDOM {
            window.clear();
            let from = round * width / 2;
            if from + width <= core {
                window.extend(order[from..from + width].iter().map(|&(_, group)| group));
            } else {
                while window.len() < width {
                    let part = chance.next();
                    let at = ((part * part) * core as f64) as usize;
                    let mut at = at.min(core - 1);
                    while taken[order[at].1 as usize] {
                        at = (at + 1) % core;
                    }
                    taken[order[at].1 as usize] = true;
                    window.push(order[at].1);
                }
                window.iter().for_each(|&group| taken[group as usize] = false);
            }
            let outcome = searcher.window(state, &window, guide, (limit.saturating_sub(steps), widened), budget);
            steps += outcome.steps + (width * (16 + model.rows())) as u64;
            improved |= outcome.improved;
            if steps >= limit || budget.is_over() {
                return steps;
            }
        }
        widened = if improved { 0 } else { (widened + 1).min(WIDENED) };
        if !improved && groups <= width {
            break;
        }
    }
    steps
}

/// The groups, those first that would lose least by another column, or win most.
fn rank(state: &State<'_>, guide: &Guide<'_>, order: &mut Vec<(f64, u32)>) {
    let (model, gains) = (state.model, guide.gains);
    order.clear();
    for group in 0..model.groups() {
        let now = state.choice[group] as usize;
        let others = model.columns(group).filter(|&column| column != now).map(|column| gains[column]);
        order.push((gains[now] - others.fold(f64::NEG_INFINITY, f64::max), group as u32));
    }
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
}

/// A sequence of numbers that look random (Steele, Lea, Flood, 2014: SplitMix).
struct Chance(u64);

impl Chance {
    /// The next, from 0 to below 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
