//! Which of many changes could fit, by bits.
//!
//! Along each lane the changes fall into levels by what they take of it, and each level has the set of all changes that take
//! no more, a bit for each. What could fit into all lanes is in all of the sets: a few words to intersect for each lane, until
//! none is left (a bitmap index with ranges; Chan and Ioannidis, 1998).

/// Into how many levels what is taken of a lane falls.
const LEVELS: usize = 32;

/// How many lanes have sets: hardly anything gets through so many without fitting into the others, too.
const LANES: usize = 24;

/// What is the least that a change takes of a lane, and how many levels a unit is.
#[derive(Debug, Clone, Copy)]
struct Lane {
    least: f64,
    levels_each: f64,
}

impl Lane {
    /// The level of an amount, from the least on. It never falls where the amount grows.
    fn level(self, amount: f64) -> usize {
        (((amount - self.least) * self.levels_each) as usize).min(LEVELS - 1)
    }
}

/// The sets of all lanes, a bit for each change, by place.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    lanes: Vec<Lane>,
    /// Of each lane and each of its levels in turn, the set of all changes of this level and those below.
    sets: Vec<u64>,
    changes: usize,
    /// How many words a set has.
    words: usize,
    /// What has passed last.
    passed: Vec<u64>,
}

impl Sieve {
    /// Takes over so many changes by what each of them takes of so many lanes, of which the first count.
    pub(super) fn fill(&mut self, changes: usize, lanes: usize, takes: impl Fn(usize, usize) -> f64) {
        self.changes = changes;
        self.words = changes.div_ceil(64).max(1);
        self.lanes.clear();
        self.sets.clear();
        for at in 0..lanes.min(LANES) {
            let amounts = (0..changes).map(|change| takes(at, change));
            let (least, most) = amounts.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), amount| {
                (least.min(amount), most.max(amount))
            });
            let lane = Lane { least, levels_each: (LEVELS - 1) as f64 / (most - least).max(f64::MIN_POSITIVE) };
            let first = self.sets.len();
            self.sets.resize(first + LEVELS * self.words, 0);
            let sets = &mut self.sets[first..];
            for change in 0..changes {
                sets[lane.level(takes(at, change)) * self.words + change / 64] |= 1 << (change % 64);
            }
            for level in 1..LEVELS {
                let (below, rest) = sets.split_at_mut(level * self.words);
                let below = &below[(level - 1) * self.words..];
                rest.iter_mut().zip(below).for_each(|(word, below)| *word |= below);
            }
            self.lanes.push(lane);
        }
    }

    /// Lets through those of the changes before `end` that could fit into what is left of each lane, and says how many lanes
    /// it looked at. Some of them do not fit, but none that does is missing.
    pub(super) fn pass(&mut self, end: usize, left: impl Fn(usize) -> f64) -> usize {
        let end = end.min(self.changes);
        self.passed.clear();
        self.passed.resize(end.div_ceil(64), u64::MAX);
        if let Some(last) = self.passed.last_mut()
            && !end.is_multiple_of(64)
        {
            *last = (1 << (end % 64)) - 1;
        }
        for (at, lane) in self.lanes.iter().enumerate() {
            let left = left(at);
            let mut any = 0;
            if left >= lane.least {
                let fitting = &self.sets[(at * LEVELS + lane.level(left)) * self.words..];
                for (word, fitting) in self.passed.iter_mut().zip(fitting) {
                    *word &= fitting;
                    any |= *word;
                }
            }
            if any == 0 {
                self.passed.clear();
                return at + 1;
            }
        }
        self.lanes.len()
    }

    /// The places of what has passed, in their order.
    pub(super) fn passed(&self) -> impl Iterator<Item = usize> {
        self.passed.iter().enumerate().flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < u64::BITS).then_some(at * 64 + bit as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever fits gets through, and what is not before the end does not.
        #[test]
        fn what_fits_gets_through(
            takes in prop::collection::vec(prop::collection::vec(-9..9_i8, 3), 0..200),
            left in prop::collection::vec(-12..12_i8, 3),
            end in 0..260_usize,
        ) {
            let mut sieve = Sieve::default();
            sieve.fill(takes.len(), 3, |lane, change| f64::from(takes[change][lane]));
            sieve.pass(end, |lane| f64::from(left[lane]));
            let through: Vec<usize> = sieve.passed().collect();
            for (at, takes) in takes.iter().enumerate().take(end) {
                if takes.iter().zip(&left).all(|(takes, left)| takes <= left) {
                    prop_assert!(through.contains(&at), "{at} of {through:?}");
                }
            }
            prop_assert!(through.iter().all(|&at| at < end.min(takes.len())));
        }
    }
}
