//! All combinations of changes of half of the groups, within a loss.

use std::ops::Range;

use super::LANES;

/// Into how many steps losses are rounded to foresee how many combinations there are.
const BUCKETS: usize = 128;

/// How many of the steps there are at least up to where a list ends, so that it comes out about as long as it should; and how
/// often they are made finer for that.
const FEWEST_BUCKETS: usize = BUCKETS / 4;
const FINER: usize = 4;

/// The combination that is no change at all.
const ROOT: u32 = 0;
const NO_CHANGE: u32 = u32::MAX;

/// Another column for a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    /// What it gains less than the base.
    pub(super) loss: f64,
    /// The group's place in the window.
    pub(super) place: u32,
    pub(super) column: u32,
    /// Minus what it is worth more, and what it takes more of each row that has a lane.
    pub(super) takes: [f64; LANES],
}

/// A combination: another one and one change more.
#[derive(Debug, Clone, Copy)]
struct Node {
    loss: f64,
    parent: u32,
    change: u32,
}

/// A list of combinations, each of them reckoned from the base.
#[derive(Debug, Default)]
pub(super) struct Half {
    nodes: Vec<Node>,
    /// Of each combination, the sum of what its changes take.
    pub(super) lanes: Vec<[f32; LANES]>,
    /// The combinations, the smallest loss first.
    pub(super) order: Vec<u32>,
    /// Of each lane, the largest amount by size.
    pub(super) largest: [f64; LANES],
    keys: Vec<u64>,
    /// Of each group, where its changes begin and end; the group with the smallest loss first, and so are its changes.
    spans: Vec<Range<usize>>,
    counts: Vec<f64>,
    before: Vec<f64>,
}

impl Half {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn loss(&self, at: usize) -> f64 {
        self.nodes[at].loss
    }

    /// The changes of a combination.
    pub(super) fn chain(&self, at: usize) -> impl Iterator<Item = u32> {
        let mut at = at as u32;
        std::iter::from_fn(move || {
            let node = self.nodes[at as usize];
            at = node.parent;
            (node.change != NO_CHANGE).then_some(node.change)
        })
    }

    /// Lists the combinations of these groups that lose less than the gap, or of those so many that lose least. The looks
    /// that it took, and the loss within which it has all.
    pub(super) fn list(
        &mut self,
        groups: impl Iterator<Item = Range<usize>>,
        changes: &[Change],
        gap: f64,
        size: usize,
    ) -> (u64, f64) {
        self.spans.clear();
        self.spans.extend(groups);
        let (within, foreseen) = self.foresee(changes, gap, size);
        self.nodes.clear();
        self.lanes.clear();
        self.nodes.push(Node { loss: 0.0, parent: ROOT, change: NO_CHANGE });
        self.lanes.push([0.0; LANES]);
        self.largest = [0.0; LANES];
        let whole = self.extend(ROOT, 0, (0.0, [0.0; LANES]), changes, within, 2 * size);
        self.keys.clear();
        self.keys.extend(self.nodes.iter().enumerate().map(|(at, node)| {
            // Losses are not negative, so that their bits are in their order.
            (u64::from((node.loss as f32).to_bits()) << 32) | at as u64
        }));
        self.keys.sort_unstable();
        self.order.clear();
        self.order.extend(self.keys.iter().map(|&key| key as u32));
        ((foreseen + self.nodes.len() * 4) as u64, if whole { within } else { 0.0 })
    }

    /// The largest loss up to the gap within which there are about so many combinations at most; and the looks that it took.
    fn foresee(&mut self, changes: &[Change], gap: f64, size: usize) -> (f64, usize) {
        let (mut reach, mut looks) = (gap, 0);
        for finer in 0..=FINER {
            looks += self.spans.len() * BUCKETS / 16;
            let Some(end) = self.end(changes, reach, size) else { break };
            if end >= FEWEST_BUCKETS || finer == FINER {
                reach *= (end as f64 - 0.5).max(0.0) / BUCKETS as f64;
                break;
            }
            reach *= (end as f64 + 1.5) / BUCKETS as f64;
        }
        (reach, looks)
    }

    /// Up to which step of this loss there are more combinations than so many; `None`: there are not.
    fn end(&mut self, changes: &[Change], loss: f64, size: usize) -> Option<usize> {
        self.counts.clear();
        self.counts.resize(BUCKETS, 0.0);
        self.counts[0] = 1.0;
        let bucket = |of: f64| (of / loss * BUCKETS as f64 + 0.5) as usize;
        for span in &self.spans {
            self.before.clear();
            self.before.extend_from_slice(&self.counts);
            let within = changes[span.clone()].iter().map(|change| bucket(change.loss)).take_while(|&by| by < BUCKETS);
            for by in within {
                self.counts[by..].iter_mut().zip(&self.before).for_each(|(count, before)| *count += before);
            }
        }
        let mut all = 0.0;
        self.counts.iter().position(|count| {
            all += count;
            all > size as f64
        })
    }

    /// Lists what comes of a combination by changes of groups from one on; whether that is all.
    fn extend(
        &mut self,
        parent: u32,
        from: usize,
        (loss, takes): (f64, [f64; LANES]),
        changes: &[Change],
        within: f64,
        most: usize,
    ) -> bool {
        for at in from..self.spans.len() {
            let span = self.spans[at].clone();
            if loss + changes[span.start].loss > within {
                break;
            }
            for change in span {
                let by = &changes[change];
                let loss = loss + by.loss;
                if loss > within {
                    break;
                }
                if self.nodes.len() >= most {
                    return false;
                }
                let mut sum = takes;
                sum.iter_mut().zip(&by.takes).for_each(|(sum, takes)| *sum += takes);
                for (largest, sum) in self.largest.iter_mut().zip(&sum) {
                    *largest = largest.max(sum.abs());
                }
                let node = self.nodes.len() as u32;
                self.nodes.push(Node { loss, parent, change: change as u32 });
                self.lanes.push(sum.map(|sum| sum as f32));
                if !self.extend(node, at + 1, (loss, sum), changes, within, most) {
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_about_as_long_as_it_should_be_however_wide_the_gap() {
        let changes: Vec<Change> = (0..200)
            .map(|at| Change { loss: 0.001 * f64::from(at + 1), place: at, column: 0, takes: [0.0; LANES] })
            .collect();
        for gap in [0.3, 3.0, 300.0, 3e5] {
            let mut half = Half::default();
            let (_, within) = half.list((0..200).map(|at| at..at + 1), &changes, gap, 1000);
            assert!((250..=2000).contains(&half.len()), "{} for a gap of {gap}", half.len());
            assert!(within > 0.0 && within < gap, "{within} of {gap}");
        }
        // All that there is, where that is not much.
        let mut half = Half::default();
        let (_, within) = half.list((0..5).map(|at| at..at + 1), &changes, 300.0, 1000);
        assert_eq!((half.len(), within), (32, 300.0));
    }
}
