//! Combinations by what they take.

use super::{LANES, half::Half};

/// How many lanes are axes at most.
const AXES: usize = 4;

/// So many cells for each combination, at most.
const CELLS_EACH: usize = 2;

/// How many cells of the innermost axis the gap is.
const FINE: f64 = 4.0;

/// An axis: what is measured along it, from where, in cells of which width, and how many there are.
#[derive(Debug, Clone, Copy, Default)]
struct Axis {
    lane: usize,
    least: f64,
    width: f64,
    cells: usize,
}

impl Axis {
    fn new(lane: usize, (least, most): (f64, f64), width: f64) -> Self {
        Self { lane, least, width, cells: ((most - least) / width) as usize + 1 }
    }

    fn cell(&self, at: f64) -> usize {
        (((at - self.least) / self.width) as usize).min(self.cells - 1)
    }

    /// The cells from `low` to `high`, if there are any.
    fn cells(&self, low: f64, high: f64) -> Option<(usize, usize)> {
        (high >= self.least && (low - self.least) < self.width * self.cells as f64)
            .then(|| (self.cell(low.max(self.least)), self.cell(high)))
    }
}

/// Which combinations are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// What they may be in each lane at most, and by how much lanes are rounded.
    pub(super) limits: [f64; LANES],
    pub(super) rounding: [f64; LANES],
    /// What they may take at the prices, at most.
    pub(super) priced: f64,
    /// How much less they may take, at the prices: of all rows together, and so of each that has a price.
    pub(super) spare: f64,
}

/// The combinations of a list in the order of cells. The innermost axis is what they take, at the prices; the others are
/// lanes.
#[derive(Debug, Default)]
pub(super) struct Grid {
    axes: Vec<Axis>,
    start: Vec<u32>,
    cell: Vec<u32>,
    lanes: Vec<[f32; LANES]>,
    which: Vec<u32>,
}

impl Grid {
    /// Takes over a list, for gaps up to this.
    pub(super) fn fill(&mut self, list: &Half, gap: f64, has_price: &[bool; LANES]) {
        let priced = |at: usize| list.loss(at) - f64::from(list.lanes[at][0]);
        let along = |lane: usize, at: usize| if lane == 0 { priced(at) } else { f64::from(list.lanes[at][lane]) };
        let span = |lane: usize| {
            let all = (0..list.len()).map(|at| along(lane, at));
            all.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), at| (least.min(at), most.max(at)))
        };
        let most = CELLS_EACH * list.len() + 8;
        self.axes.clear();
        let (least, high) = span(0);
        let fine = (gap / FINE).max((high - least) / (most as f64).min(64.0));
        self.axes.push(Axis::new(0, (least, high), fine.max(f64::MIN_POSITIVE)));
        let mut cells = self.axes[0].cells;
        let mut spans: Vec<(usize, (f64, f64))> =
            (1..LANES).filter(|&lane| has_price[lane]).map(|lane| (lane, span(lane))).collect();
        spans.sort_by(|a, b| (b.1.1 - b.1.0).total_cmp(&(a.1.1 - a.1.0)).then(a.0.cmp(&b.0)));
        for (lane, span) in spans.into_iter().take(AXES) {
            let axis = Axis::new(lane, span, gap);
            if axis.cells < 2 || cells * axis.cells > most {
                break;
            }
            cells *= axis.cells;
            self.axes.push(axis);
        }
        self.start.clear();
        self.start.resize(cells + 1, 0);
        self.cell.clear();
        for at in 0..list.len() {
            let cell = self.axes.iter().rev().fold(0, |cell, axis| cell * axis.cells + axis.cell(along(axis.lane, at)));
            self.cell.push(cell as u32);
            self.start[cell + 1] += 1;
        }
        for cell in 0..cells {
            self.start[cell + 1] += self.start[cell];
        }
        self.lanes.clear();
        self.lanes.resize(list.len(), [0.0; LANES]);
        self.which.clear();
        self.which.resize(list.len(), 0);
        for at in 0..list.len() {
            let to = &mut self.start[self.cell[at] as usize];
            self.lanes[*to as usize] = list.lanes[at];
            self.which[*to as usize] = at as u32;
            *to += 1;
        }
        // Each cell now says where the next one begins.
        self.start.rotate_right(1);
        self.start[0] = 0;
    }

    /// Calls `found` for each combination that may be in the window, as far as rounding lets see; it says what the limit of
    /// the first lane is from now on. How many were looked at.
    pub(super) fn visit(&self, window: &Window, mut found: impl FnMut(usize) -> f64) -> usize {
        let limit = |lane: usize, limit: f64| (limit + window.rounding[lane]) as f32;
        let mut limits: [f32; LANES] = std::array::from_fn(|lane| limit(lane, window.limits[lane]));
        let mut spans = [(0, 0); AXES + 1];
        for (axis, span) in self.axes.iter().zip(&mut spans) {
            let high = if axis.lane == 0 { window.priced } else { window.limits[axis.lane] };
            let rounding = 2.0 * window.rounding[axis.lane];
            match axis.cells(high - window.spare - rounding, high + rounding) {
                Some(cells) => *span = cells,
                None => return 1,
            }
        }
        let outer = self.axes.len() - 1;
        let mut at = [0; AXES + 1];
        for axis in 1..=outer {
            at[axis] = spans[axis].0;
        }
        let mut looked = 0;
        loop {
            let row = (1..=outer).rev().fold(0, |cell, axis| cell * self.axes[axis].cells + at[axis]);
            let from = row * self.axes[0].cells;
            let (begin, end) = (self.start[from + spans[0].0] as usize, self.start[from + spans[0].1 + 1] as usize);
            looked += 4 + end - begin;
            for place in begin..end {
                let over =
                    self.lanes[place].iter().zip(&limits).fold(false, |over, (lane, limit)| over | (lane > limit));
                if !over {
                    limits[0] = limit(0, found(self.which[place] as usize));
                }
            }
            let Some(axis) = (1..=outer).find(|&axis| at[axis] < spans[axis].1) else { return looked };
            at[axis] += 1;
            for inner in 1..axis {
                at[inner] = spans[inner].0;
            }
        }
    }
}
