//! Changes of pairs of changes.

use super::{Change, Exchange, MOST_MOVES};

/// Of how many changes all pairs are looked at, and how many of what comes of that are kept.
const PAIRED: usize = 512;
const KEPT: usize = 4096;

/// How much what a change gives up counts beside what it takes and gives of a row, both at the prices.
const LOSS: f64 = 3.0;

/// How many numbers are multiplied at once.
const LANES: usize = 8;

/// So many products of as many numbers are one step.
const PRODUCTS_AT_ONCE: usize = 16;

/// A change, or two, with the square of its length.
#[derive(Debug, Clone, Copy)]
struct Composed {
    square: f32,
    one: u32,
    /// The same again: there is no other.
    other: u32,
}

impl Composed {
    fn is_before(&self, other: &Self) -> std::cmp::Ordering {
        self.square.total_cmp(&other.square).then((self.one, self.other).cmp(&(other.one, other.other)))
    }
}

impl Exchange {
    /// Replaces the changes by the shortest that they are or make in pairs, the shortest first.
    pub(super) fn compose(&mut self, prices: &[f64]) {
        let found = self.shortest(prices);
        let rows = self.room.len();
        let (mut changes, mut takes) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len() * rows));
        for Composed { one, other, .. } in found {
            let of = |at: u32| &self.takes[at as usize * rows..(at as usize + 1) * rows];
            if one == other {
                changes.push(self.changes[one as usize]);
                takes.extend_from_slice(of(one));
            } else {
                changes.push(join(&self.changes[one as usize], &self.changes[other as usize]));
                takes.extend(of(one).iter().zip(of(other)).map(|(one, other)| one + other));
            }
        }
        (self.changes, self.takes) = (changes, takes);
        self.sift();
    }

    fn shortest(&mut self, prices: &[f64]) -> Vec<Composed> {
        let count = self.changes.len().min(PAIRED);
        let vectors = self.vectors(count, prices);
        let width = vectors.len() / count.max(1);
        let vector = |at: usize| &vectors[at * width..(at + 1) * width];
        let squares: Vec<f32> = (0..count).map(|at| product(vector(at), vector(at))).collect();
        let mut found: Vec<Composed> = Vec::with_capacity(4 * KEPT + 1);
        let mut longest = f32::INFINITY;
        for one in 0..count {
            found.push(Composed { square: squares[one], one: one as u32, other: one as u32 });
            for other in 0..one {
                let square = squares[one] + squares[other] + 2.0 * product(vector(one), vector(other));
                let (a, b) = (&self.changes[one], &self.changes[other]);
                if square < longest && a.count + b.count <= MOST_MOVES && a.loss + b.loss < self.worth && !a.meets(b) {
                    found.push(Composed { square, one: one as u32, other: other as u32 });
                }
            }
            if found.len() > 3 * KEPT {
                found.select_nth_unstable_by(KEPT, Composed::is_before);
                found.truncate(KEPT);
                longest = found.iter().map(|composed| composed.square).fold(0.0, f32::max);
            }
        }
        found.sort_unstable_by(Composed::is_before);
        found.truncate(KEPT);
        self.steps += (count * count / 2 * width / PRODUCTS_AT_ONCE) as u64;
        found
    }

    /// Of each of the first changes, what it takes of each row at the prices, and what it gives up.
    fn vectors(&self, count: usize, prices: &[f64]) -> Vec<[f32; LANES]> {
        let rows = self.room.len();
        let width = (rows + 1).div_ceil(LANES);
        let mut vectors = vec![[0.0; LANES]; count * width];
        for (at, vector) in vectors.chunks_mut(width).enumerate() {
            let takes = self.takes[at * rows..(at + 1) * rows].iter().zip(prices).map(|(takes, price)| takes * price);
            let all = takes.chain([LOSS * self.changes[at].loss]);
            vector.as_flattened_mut().iter_mut().zip(all).for_each(|(to, from)| *to = from as f32);
        }
        vectors
    }
}

/// Both at once.
fn join(one: &Change, other: &Change) -> Change {
    let mut moves = one.moves;
    moves[one.count..one.count + other.count].copy_from_slice(other.moves());
    let count = one.count + other.count;
    Change { loss: one.loss + other.loss, value: one.value + other.value, moves, count }
}

/// The scalar product. The order of its sums is fixed, so that it is the same on every machine.
fn product(one: &[[f32; LANES]], other: &[[f32; LANES]]) -> f32 {
    let mut sums = [0.0; LANES];
    for (one, other) in one.iter().zip(other) {
        for ((sum, one), other) in sums.iter_mut().zip(one).zip(other) {
            *sum += one * other;
        }
    }
    sums.iter().sum()
}
