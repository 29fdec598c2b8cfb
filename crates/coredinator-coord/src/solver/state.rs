//! Choices under way.

use super::{accord::Tally, model::Model};

/// The place of a group that has no column yet.
pub(super) const NONE: u32 = u32::MAX;

/// One column for each group, or none yet, with what they use.
#[derive(Debug, Clone)]
pub(super) struct State<'m> {
    pub(super) model: &'m Model,
    pub(super) choice: Vec<u32>,
    pub(super) used: Vec<f64>,
    pub(super) tally: Tally,
}

impl<'m> State<'m> {
    /// Nobody has anything.
    pub(super) fn new(model: &'m Model) -> Self {
        Self {
            model,
            choice: vec![NONE; model.groups()],
            used: vec![0.0; model.rows()],
            tally: Tally::new(&model.accord),
        }
    }

    /// These choices.
    pub(super) fn of(model: &'m Model, choice: &[u32]) -> Self {
        let mut state = Self::new(model);
        for (group, &column) in choice.iter().enumerate() {
            if column != NONE {
                state.put(group, column as usize);
            }
        }
        state
    }

    /// What the choices are worth, summed in the order of the groups.
    pub(super) fn value(&self) -> f64 {
        worth(self.model, &self.choice)
    }

    /// Whether a column fits and agrees with what is in.
    pub(super) fn fits(&self, column: usize) -> bool {
        let model = self.model;
        model.entries(column).all(|at| {
            let row = model.row[at] as usize;
            self.used[row] + model.amount[at] <= model.capacity[row]
        }) && self.tally.admits(&model.accord, column)
    }

    /// Gives a group that has none a column.
    pub(super) fn put(&mut self, group: usize, column: usize) {
        let model = self.model;
        for at in model.entries(column) {
            self.used[model.row[at] as usize] += model.amount[at];
        }
        self.tally.enter(&model.accord, column);
        self.choice[group] = column as u32;
    }

    /// Takes a group's column away, and says which it was.
    pub(super) fn lift(&mut self, group: usize) -> Option<usize> {
        let column = self.choice[group];
        if column == NONE {
            return None;
        }
        let (model, column) = (self.model, column as usize);
        for at in model.entries(column) {
            self.used[model.row[at] as usize] -= model.amount[at];
        }
        self.tally.leave(&model.accord, column);
        self.choice[group] = NONE;
        Some(column)
    }

    /// Whether everybody has a column and all of it fits, reckoned afresh.
    pub(super) fn is_feasible(&self) -> bool {
        let mut fresh = Self::new(self.model);
        self.choice.iter().enumerate().all(|(group, &column)| {
            let fits = column != NONE && fresh.fits(column as usize);
            if fits {
                fresh.put(group, column as usize);
            }
            fits
        })
    }
}

/// What choices are worth, summed in the order of the groups.
pub(super) fn worth(model: &Model, choice: &[u32]) -> f64 {
    choice.iter().filter(|&&column| column != NONE).map(|&column| model.value[column as usize]).sum()
}
