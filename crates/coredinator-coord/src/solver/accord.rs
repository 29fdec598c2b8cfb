//! Who agrees with whom about variables.
//!
//! Columns claim intervals of variables and push them up or down. Intervals on a line have a point in common as soon as each
//! two of them have, so agreement is a matter of pairs; to tell whether a column agrees with all that are in, it is enough
//! to count those that end before it begins, and those that begin after it ends.

/// What the columns of a model claim and push.
#[derive(Debug, Clone, Default)]
pub(super) struct Accord {
    /// Of each column, where its claims and its pushes begin; and the ends. Empty where nobody claims or pushes anything.
    claim_start: Vec<u32>,
    push_start: Vec<u32>,
    claims: Vec<RankedClaim>,
    /// Twice the variable, and 1 more where the push is upwards.
    pushes: Vec<u32>,
    /// Of each variable, where its ranks begin; and the end.
    ranks: Vec<u32>,
}

/// A claim by its places among all claims on the variable.
#[derive(Debug, Clone, Copy)]
struct RankedClaim {
    variable: u32,
    /// Its places among the lowest values, and among the highest.
    low: u32,
    high: u32,
    /// How many of the highest values are below its lowest, and of the lowest are not above its highest.
    ended: u32,
    begun: u32,
    bounds: (f64, f64),
}

/// How those columns that are in claim and push.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Of each rank of each variable, how many begin there, and end there.
    low: Vec<u32>,
    high: Vec<u32>,
    /// Of each variable, how many claims there are.
    total: Vec<u32>,
    /// Of each variable, how many push it down and up.
    ways: Vec<u32>,
}

/// Gathers an [`Accord`], column by column.
#[derive(Debug)]
pub(super) struct AccordBuilder {
    variables: usize,
    claims: Vec<(u32, (f64, f64))>,
    pushes: Vec<u32>,
    claim_start: Vec<u32>,
    push_start: Vec<u32>,
}

impl AccordBuilder {
    pub(super) fn new(variables: usize) -> Self {
        Self { variables, claims: Vec::new(), pushes: Vec::new(), claim_start: vec![0], push_start: vec![0] }
    }

    pub(super) fn claim(&mut self, variable: usize, bounds: (f64, f64)) {
        self.claims.push((variable as u32, bounds));
    }

    pub(super) fn push(&mut self, variable: usize, up: bool) {
        self.pushes.push(2 * variable as u32 + u32::from(up));
    }

    pub(super) fn end_column(&mut self) {
        self.claim_start.push(self.claims.len() as u32);
        self.push_start.push(self.pushes.len() as u32);
    }

    pub(super) fn finish(self) -> Accord {
        if self.claims.is_empty() && self.pushes.is_empty() {
            return Accord::default();
        }
        let mut ends: Vec<(Vec<f64>, Vec<f64>)> = vec![(Vec::new(), Vec::new()); self.variables];
        for &(variable, bounds) in &self.claims {
            ends[variable as usize].0.push(bounds.0);
            ends[variable as usize].1.push(bounds.1);
        }
        let mut ranks = vec![0];
        for (lows, highs) in &mut ends {
            for side in [&mut *lows, &mut *highs] {
                side.sort_by(f64::total_cmp);
                side.dedup();
            }
            ranks.push(ranks[ranks.len() - 1] + lows.len().max(highs.len()) as u32);
        }
        let rank = |&(variable, bounds): &(u32, (f64, f64))| {
            let (lows, highs) = &ends[variable as usize];
            RankedClaim {
                variable,
                low: lows.partition_point(|&at| at < bounds.0) as u32,
                high: highs.partition_point(|&at| at < bounds.1) as u32,
                ended: highs.partition_point(|&at| at < bounds.0) as u32,
                begun: lows.partition_point(|&at| at <= bounds.1) as u32,
                bounds,
            }
        };
        let claims = self.claims.iter().map(rank).collect();
        Accord { claim_start: self.claim_start, push_start: self.push_start, claims, pushes: self.pushes, ranks }
    }
}

impl Accord {
    /// Whether nothing excludes anything.
    pub(super) fn is_empty(&self) -> bool {
        self.claim_start.is_empty()
    }

    fn claims(&self, column: usize) -> &[RankedClaim] {
        &self.claims[self.claim_start[column] as usize..self.claim_start[column + 1] as usize]
    }

    fn pushes(&self, column: usize) -> &[u32] {
        &self.pushes[self.push_start[column] as usize..self.push_start[column + 1] as usize]
    }

    /// How many variables there are; 0 where nobody claims or pushes any.
    pub(super) fn variables(&self) -> usize {
        self.ranks.len().saturating_sub(1)
    }

    /// Whether a column claims or pushes any variable that matters.
    pub(super) fn binds(&self, column: usize, matters: &[bool]) -> bool {
        let mut binds = false;
        self.each_claim(column, |variable, _| binds |= matters[variable]);
        self.each_push(column, |variable, _| binds |= matters[variable]);
        binds
    }

    /// The variables that a column claims, and within which bounds.
    pub(super) fn each_claim(&self, column: usize, mut act: impl FnMut(usize, (f64, f64))) {
        if !self.is_empty() {
            self.claims(column).iter().for_each(|claim| act(claim.variable as usize, claim.bounds));
        }
    }

    /// The variables that a column pushes, and whether upwards.
    pub(super) fn each_push(&self, column: usize, mut act: impl FnMut(usize, bool)) {
        if !self.is_empty() {
            self.pushes(column).iter().for_each(|push| act(*push as usize / 2, push % 2 == 1));
        }
    }

    /// What some of the columns claim and push; `None`: a column that claims and pushes nothing.
    pub(super) fn select(&self, columns: &[Option<usize>]) -> Self {
        self.select_if(columns, |_| true)
    }

    /// As [`select`](Self::select), where only these variables matter.
    pub(super) fn select_if(&self, columns: &[Option<usize>], matters: impl Fn(u32) -> bool) -> Self {
        if self.is_empty() {
            return Self::default();
        }
        let mut builder = AccordBuilder::new(self.ranks.len() - 1);
        for column in columns {
            if let Some(column) = *column {
                let claims = self.claims(column).iter().filter(|claim| matters(claim.variable));
                claims.for_each(|claim| builder.claim(claim.variable as usize, claim.bounds));
                let pushes = self.pushes(column).iter().filter(|&&push| matters(push / 2));
                pushes.for_each(|&push| builder.push(push as usize / 2, push % 2 == 1));
            }
            builder.end_column();
        }
        builder.finish()
    }
}

impl Tally {
    /// Nobody is in.
    pub(super) fn new(accord: &Accord) -> Self {
        let variables = accord.ranks.len().saturating_sub(1);
        let ranks = accord.ranks.last().copied().unwrap_or(0) as usize;
        Self { low: vec![0; ranks], high: vec![0; ranks], total: vec![0; variables], ways: vec![0; 2 * variables] }
    }

    /// Whether a column agrees with all that are in.
    pub(super) fn admits(&self, accord: &Accord, column: usize) -> bool {
        if accord.is_empty() {
            return true;
        }
        let meets = |claim: &RankedClaim| {
            let variable = claim.variable as usize;
            let from = accord.ranks[variable] as usize;
            if self.total[variable] == 0 {
                return true;
            }
            let end = accord.ranks[variable + 1] as usize;
            let ended = self.high[from..from + claim.ended as usize].iter().any(|&count| count > 0);
            let later = (from + claim.begun as usize).min(end);
            !ended && !self.low[later..end].iter().any(|&count| count > 0)
        };
        accord.claims(column).iter().all(meets)
            && accord.pushes(column).iter().all(|&push| self.ways[(push ^ 1) as usize] == 0)
    }

    pub(super) fn enter(&mut self, accord: &Accord, column: usize) {
        self.change(accord, column, u32::wrapping_add);
    }

    pub(super) fn leave(&mut self, accord: &Accord, column: usize) {
        self.change(accord, column, u32::wrapping_sub);
    }

    fn change(&mut self, accord: &Accord, column: usize, by: impl Fn(u32, u32) -> u32) {
        if accord.is_empty() {
            return;
        }
        for claim in accord.claims(column) {
            let from = accord.ranks[claim.variable as usize] as usize;
            for count in [
                &mut self.low[from + claim.low as usize],
                &mut self.high[from + claim.high as usize],
                &mut self.total[claim.variable as usize],
            ] {
                *count = by(*count, 1);
            }
        }
        for &push in accord.pushes(column) {
            let count = &mut self.ways[push as usize];
            *count = by(*count, 1);
        }
    }
}
