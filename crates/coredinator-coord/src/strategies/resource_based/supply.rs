//! What is left of a resource while others grow on it.

/// What is left of a resource, as the level at which all grow rises.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Supply {
    /// How much was left at level `since`.
    left: f64,
    since: f64,
    /// How much all that grow take of it for each unit of the level.
    rate: f64,
    /// How many grow on it.
    growing: usize,
    /// Rises with every change: what was foreseen before does not count.
    version: u64,
}

impl Supply {
    pub(super) fn new(left: f64) -> Self {
        Self { left, ..Self::default() }
    }

    pub(super) fn left(&self, level: f64) -> f64 {
        self.left - self.rate * (level - self.since)
    }

    /// Takes so much at once (below 0: gives it back).
    pub(super) fn take(&mut self, level: f64, amount: f64) {
        self.left = self.left(level) - amount;
        self.since = level;
        self.version += 1;
    }

    /// One more grows on it, at this rate.
    pub(super) fn grow(&mut self, level: f64, rate: f64) {
        self.take(level, 0.0);
        self.rate += rate;
        self.growing += 1;
    }

    /// One of those that grow on it does so no more.
    pub(super) fn stop(&mut self, level: f64, rate: f64) {
        self.take(level, 0.0);
        self.growing -= 1;
        self.rate = if self.growing == 0 { 0.0 } else { (self.rate - rate).max(0.0) };
    }

    /// The level at which nothing is left, if it comes to that, with the version for which that holds.
    pub(super) fn ends_at(&self) -> Option<(f64, u64)> {
        (self.rate > 0.0).then(|| (self.since + self.left.max(0.0) / self.rate, self.version))
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }
}
