//! Spreading checks over time, so that many targets are never asked at one instant.

use std::time::Duration;

use tokio::time::Instant;

/// Draws pauses and first runs; pure but for its random state.
#[derive(Debug)]
pub(super) struct Cadence {
    random: fastrand::Rng,
    /// When the first run of the next new check would start if checks were added without end.
    next_first: Option<Instant>,
}

impl Cadence {
    /// What separates the first runs of checks that are added all at once.
    const FIRST_GAP: Duration = Duration::from_micros(100);
    /// How many new checks start at once all the same: a lone new instance never waits.
    const FIRST_BURST: u32 = 32;

    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), next_first: None }
    }

    /// When a check that is added now runs for the first time: now, or after those that were added just before it.
    pub(super) fn first_run(&mut self, now: Instant) -> Instant {
        let next = self.next_first.map_or(now, |next| next.max(now));
        self.next_first = Some(next + Self::FIRST_GAP);
        let burst = Self::FIRST_GAP * Self::FIRST_BURST;
        if next.duration_since(now) < burst { now } else { next - burst }
    }

    /// `pause`, longer or shorter by at most half of the `jitter` share of it.
    pub(super) fn jittered(&mut self, pause: Duration, jitter: f64) -> Duration {
        if jitter <= 0.0 {
            return pause;
        }
        pause.mul_f64(1.0 + jitter.min(1.0) * (self.random.f64() - 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_runs_are_spread_but_for_a_small_burst() {
        let now = Instant::now();
        let mut cadence = Cadence::new(1);
        let runs: Vec<_> = (0..1000).map(|_| cadence.first_run(now)).collect();
        assert!(runs.is_sorted());
        assert_eq!(runs.iter().filter(|run| **run == now).count(), 33);
        assert!(runs.windows(34).all(|window| window[0] < window[33]));
        assert!(runs[999] < now + Duration::from_millis(100));
        let later = now + Duration::from_secs(1);
        assert_eq!(cadence.first_run(later), later);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let pause = Duration::from_secs(10);
        let mut cadence = Cadence::new(2);
        for jitter in [0.0, 0.1, 1.0] {
            let drawn: Vec<_> = (0..1000).map(|_| cadence.jittered(pause, jitter)).collect();
            assert!(drawn.iter().all(|d| d.abs_diff(pause) <= pause.mul_f64(jitter / 2.0)), "{jitter}");
            assert_eq!(drawn.iter().any(|d| *d != drawn[0]), jitter > 0.0);
        }
    }
}
