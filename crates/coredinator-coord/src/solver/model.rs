//! The flat form of a scope, or of one component of it.

use coredinator_core::coordination::{Presence, Shape};

use super::{
    accord::{Accord, AccordBuilder},
    scope::Scope,
};

/// The candidate of the column that is nothing at all.
pub(super) const NOTHING: u32 = u32::MAX;

/// Into how many fractions an elastic option is cut.
const CUTS: usize = 6;

/// How many sums are reckoned at once.
const ABREAST: usize = 4;

/// Groups of columns, of which each group gets one, under capacities: everything by place, in flat arrays.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// Of each group, the party.
    pub(super) party: Vec<u32>,
    /// Of each group, where its columns begin; and the end.
    pub(super) first: Vec<u32>,
    /// Of each column, the candidate and how much of it.
    pub(super) candidate: Vec<u32>,
    pub(super) fraction: Vec<f64>,
    /// Of each column, what it is worth.
    pub(super) value: Vec<f64>,
    /// Of each column, where its entries begin; and the end.
    pub(super) start: Vec<u32>,
    /// Of each entry, the row and the amount, above 0.
    pub(super) row: Vec<u32>,
    pub(super) amount: Vec<f64>,
    /// Of each row, how much there is, and of which resource.
    pub(super) capacity: Vec<f64>,
    pub(super) resource: Vec<u32>,
    /// Which columns exclude each other by what they claim and push.
    pub(super) accord: Accord,
    /// What an elastic option is worth in any fraction: the continuous truth behind some of the columns.
    pub(super) curves: Vec<Curve>,
}

/// An elastic option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve {
    pub(super) group: u32,
    /// One of its columns, whose amounts are its demands times that column's fraction.
    pub(super) column: u32,
    /// What it is worth in full.
    pub(super) value: f64,
    pub(super) shape: Shape,
    /// The least and the largest fraction that could be had.
    pub(super) span: (f64, f64),
}

impl Model {
    /// A scope as one model. Parties that have nothing to choose from are left out.
    pub(super) fn of(scope: &Scope<'_>) -> Self {
        let problem = scope.problem;
        let mut model = Self {
            first: vec![0],
            start: vec![0],
            capacity: (0..problem.resources().len()).map(|at| scope.capacity(at)).collect(),
            resource: (0..problem.resources().len() as u32).collect(),
            ..Self::default()
        };
        let mut accord = AccordBuilder::new(problem.variables().len());
        for &party in &scope.parties {
            let of = &problem.parties()[party];
            if of.presence == Presence::Holding {
                continue;
            }
            for candidate in of.options().chain(of.fallback()) {
                if scope.admits(candidate) {
                    model.add_candidate(scope, candidate, &mut accord);
                }
            }
            let end = model.candidate.len() as u32;
            if model.first.last() != Some(&end) {
                model.party.push(party as u32);
                model.first.push(end);
            }
        }
        model.accord = accord.finish();
        model
    }

    fn add_candidate(&mut self, scope: &Scope<'_>, candidate: usize, accord: &mut AccordBuilder) {
        let value = scope.values[candidate];
        let Some(elastic) = scope.problem.candidates()[candidate].elastic else {
            self.add_column(scope, candidate, 1.0, value, accord);
            return;
        };
        let demands = scope.problem.demands(candidate).iter();
        let fits = demands.map(|d| scope.capacity(d.resource) / d.amount).fold(1.0, f64::min);
        let span = (elastic.min_fraction, fits.max(elastic.min_fraction));
        let curve = Curve {
            group: self.party.len() as u32,
            column: self.candidate.len() as u32,
            value,
            shape: elastic.shape,
            span,
        };
        self.curves.push(curve);
        let cuts = if span.0 == span.1 { 1 } else { CUTS };
        for cut in 0..cuts {
            let share = if cuts == 1 { 1.0 } else { 1.0 - cut as f64 / (cuts - 1) as f64 };
            let fraction = if cut == 0 { span.1 } else { span.0 + (span.1 - span.0) * share };
            self.add_column(scope, candidate, fraction, value * elastic.shape.worth(fraction), accord);
        }
    }

    fn add_column(
        &mut self,
        scope: &Scope<'_>,
        candidate: usize,
        fraction: f64,
        value: f64,
        accord: &mut AccordBuilder,
    ) {
        let problem = scope.problem;
        self.candidate.push(candidate as u32);
        self.fraction.push(fraction);
        self.value.push(value);
        for demand in problem.demands(candidate) {
            self.row.push(demand.resource as u32);
            self.amount.push(demand.amount * fraction);
        }
        self.start.push(self.row.len() as u32);
        for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let span = scope.spans[claim.variable];
            accord.claim(claim.variable, (claim.bounds.0.max(span.0), claim.bounds.1.min(span.1)));
        }
        for push in problem.pushes(candidate) {
            accord.push(push.variable, push.strength > 0.0);
        }
        accord.end_column();
    }

    pub(super) fn groups(&self) -> usize {
        self.party.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.capacity.len()
    }

    /// Whether most columns take of most rows.
    pub(super) fn is_dense(&self) -> bool {
        2 * self.row.len() >= self.candidate.len() * self.rows()
    }

    /// The columns of a group.
    pub(super) fn columns(&self, group: usize) -> std::ops::Range<usize> {
        self.first[group] as usize..self.first[group + 1] as usize
    }

    /// The entries of a column.
    pub(super) fn entries(&self, column: usize) -> std::ops::Range<usize> {
        self.start[column] as usize..self.start[column + 1] as usize
    }

    /// What a column costs at some prices.
    pub(super) fn cost(&self, column: usize, prices: &[f64]) -> f64 {
        let entries = self.entries(column);
        let (rows, amounts) = (self.row[entries.clone()].chunks(ABREAST), self.amount[entries].chunks(ABREAST));
        // Side by side, so that one sum does not wait for the other.
        let mut sums = [0.0; ABREAST];
        for (rows, amounts) in rows.zip(amounts) {
            for ((sum, &row), amount) in sums.iter_mut().zip(rows).zip(amounts) {
                *sum += amount * prices[row as usize];
            }
        }
        sums.iter().sum()
    }

    /// The same groups, where those with a penalty may also have nothing, in one more column at their end, at the cost of
    /// it; what columns are worth is multiplied by `scale`.
    pub(super) fn relaxed(&self, penalty: &[Option<f64>], scale: f64) -> Self {
        let mut model = Self {
            party: self.party.clone(),
            first: vec![0],
            start: vec![0],
            capacity: self.capacity.clone(),
            resource: self.resource.clone(),
            ..Self::default()
        };
        let mut from = Vec::with_capacity(self.candidate.len() + self.groups());
        let mut place = vec![0; self.candidate.len()];
        for (group, penalty) in penalty.iter().enumerate() {
            for column in self.columns(group) {
                place[column] = model.candidate.len() as u32;
                model.copy(self, column, self.value[column] * scale);
                from.push(Some(column));
            }
            if let Some(penalty) = penalty {
                model.add_nothing(-penalty);
                from.push(None);
            }
            model.first.push(model.candidate.len() as u32);
        }
        model.accord = self.accord.select(&from);
        let curves = self.curves.iter();
        model.curves = curves
            .map(|&curve| Curve { column: place[curve.column as usize], value: curve.value * scale, ..curve })
            .collect();
        model
    }

    /// Some of the groups alone, under other capacities, as if no columns excluded each other.
    pub(super) fn only(&self, groups: &[usize], capacity: Vec<f64>) -> Self {
        let mut model =
            Self { first: vec![0], start: vec![0], capacity, resource: self.resource.clone(), ..Self::default() };
        for &group in groups {
            for column in self.columns(group) {
                model.copy(self, column, self.value[column]);
            }
            model.party.push(self.party[group]);
            model.first.push(model.candidate.len() as u32);
        }
        model
    }

    /// How far apart the values of a group's columns are, typically; above 0.
    pub(super) fn spread(&self) -> f64 {
        let spread = |group: usize| {
            let values = self.value[self.columns(group)].iter().copied();
            values.clone().fold(f64::NEG_INFINITY, f64::max) - values.fold(f64::INFINITY, f64::min)
        };
        let all: f64 = (0..self.groups()).map(spread).sum();
        (all / self.groups().max(1) as f64).max(1e-12)
    }

    /// What these choices cost by way of penalties.
    pub(super) fn paid(&self, choice: &[u32]) -> f64 {
        choice
            .iter()
            .filter(|&&column| self.candidate[column as usize] == NOTHING)
            .map(|&column| -self.value[column as usize])
            .sum()
    }

    fn copy(&mut self, from: &Self, column: usize, value: f64) {
        self.candidate.push(from.candidate[column]);
        self.fraction.push(from.fraction[column]);
        self.value.push(value);
        self.row.extend_from_slice(&from.row[from.entries(column)]);
        self.amount.extend_from_slice(&from.amount[from.entries(column)]);
        self.start.push(self.row.len() as u32);
    }

    fn add_nothing(&mut self, value: f64) {
        self.candidate.push(NOTHING);
        self.fraction.push(1.0);
        self.value.push(value);
        self.start.push(self.row.len() as u32);
    }
}
