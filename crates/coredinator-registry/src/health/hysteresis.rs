//! What several answers in a row mean.

use std::time::Duration;

use coredinator_core::{CheckTiming, HealthStatus, Outcome};

/// The status of one instance as its answers make it: a pure function of the answers and the instance's age at each.
///
/// - Before the first answer that counts it is `Unknown`.
/// - One pass makes it `Healthy`, a warning `Degraded`; an `Unhealthy` one needs `success_threshold` of them in a row.
/// - `retries` failures in a row make it `Unhealthy`; before that a healthy one is `Degraded`, an unknown one stays so.
/// - Before its first pass, failures within the start period do not count, and of those after it at most one an interval
///   counts (the first no sooner than one interval after the instance's start): asking a new instance more often than
///   `interval`, so as to know early that it is up, does not use up its retries faster. What it says unasked, by a
///   heartbeat, counts each time.
/// - The first pass ends the start period.
/// - A check that could not be carried out changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hysteresis {
    status: HealthStatus,
    /// It passed at least once.
    up: bool,
    /// Failures in a row that counted.
    failures: u32,
    /// Passes and warnings in a row.
    passes: u32,
    /// Checks before the first pass, which set the pace of the next one.
    tries: u32,
    /// The instance's age when a failure last counted, before the first pass.
    counted_at: Duration,
}

impl Hysteresis {
    /// The pause after the first check that did not pass; it doubles from there.
    const FIRST_PAUSE: Duration = Duration::from_millis(10);

    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was known when another looked after it: it goes on from there.
    #[must_use]
    pub fn recalled(status: HealthStatus) -> Self {
        Self { status, up: status != HealthStatus::Unknown, ..Self::default() }
    }

    /// What the answers so far say.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        self.status
    }

    /// Takes in what an instance that is `age` old says of itself: as [`observe`](Self::observe), but a failure counts
    /// however soon it comes after the last one, because nobody asked for it. The start period suspends it all the same.
    pub fn hear(
        &mut self,
        timing: &CheckTiming,
        outcome: Outcome,
        age: Duration,
    ) -> Option<(HealthStatus, HealthStatus)> {
        if outcome == Outcome::Fail && !self.up && age >= timing.start_period {
            let before = self.status;
            self.passes = 0;
            self.counted_at = age;
            self.count_failure(timing);
            return (before != self.status).then_some((before, self.status));
        }
        self.observe(timing, Some(outcome), age)
    }

    /// Takes an answer to a check that started when the instance was `age` old; `None` is a check that could not be
    /// carried out. Answers the statuses before and after if they differ.
    pub fn observe(
        &mut self,
        timing: &CheckTiming,
        outcome: Option<Outcome>,
        age: Duration,
    ) -> Option<(HealthStatus, HealthStatus)> {
        let before = self.status;
        if !self.up {
            self.tries = self.tries.saturating_add(1);
        }
        match outcome {
            Some(Outcome::Pass) => self.passed(timing, HealthStatus::Healthy),
            Some(Outcome::Warn) => self.passed(timing, HealthStatus::Degraded),
            Some(Outcome::Fail) => self.failed(timing, age),
            None => {}
        }
        (before != self.status).then_some((before, self.status))
    }

    fn passed(&mut self, timing: &CheckTiming, becomes: HealthStatus) {
        self.up = true;
        self.failures = 0;
        self.passes = self.passes.saturating_add(1);
        if self.status != HealthStatus::Unhealthy || self.passes >= timing.success_threshold {
            self.status = becomes;
        }
    }

    fn failed(&mut self, timing: &CheckTiming, age: Duration) {
        self.passes = 0;
        if !self.up {
            // The pause between two checks may be shorter than the interval by half the jitter.
            let interval = timing.interval.mul_f64((1.0 - timing.jitter / 2.0).clamp(0.0, 1.0));
            if age < timing.start_period || age.saturating_sub(self.counted_at) < interval {
                return;
            }
            self.counted_at = age;
        }
        self.count_failure(timing);
    }

    fn count_failure(&mut self, timing: &CheckTiming) {
        self.failures = self.failures.saturating_add(1);
        self.status = match self.status {
            _ if self.failures >= timing.retries => HealthStatus::Unhealthy,
            HealthStatus::Healthy => HealthStatus::Degraded,
            other => other,
        };
    }

    /// How long after the start of the last check the next one starts, before jitter.
    ///
    /// `interval`; while it is unknown, at most `start_interval`, approached from 10 ms in doubling steps, so that a new
    /// instance is known to be up soon after it is.
    #[must_use]
    pub fn pause(&self, timing: &CheckTiming) -> Duration {
        if self.up || self.status != HealthStatus::Unknown {
            return timing.interval;
        }
        let ramp = Self::FIRST_PAUSE.saturating_mul(1 << self.tries.saturating_sub(1).min(16));
        timing.interval.min(timing.start_interval).min(ramp)
    }
}

#[cfg(test)]
mod tests {
    use HealthStatus::{Degraded, Healthy, Unhealthy, Unknown};
    use Outcome::{Fail, Pass, Warn};
    use proptest::prelude::*;

    use super::*;

    fn timing(retries: u32, success_threshold: u32, start_period: u64) -> CheckTiming {
        CheckTiming {
            interval: Duration::from_secs(1),
            retries,
            success_threshold,
            start_period: Duration::from_secs(start_period),
            jitter: 0.0,
            ..CheckTiming::default()
        }
    }

    /// The statuses after answers that come once a second, the first when the instance is `from` seconds old.
    fn run(timing: &CheckTiming, from: u64, answers: &[Outcome]) -> Vec<HealthStatus> {
        let mut hysteresis = Hysteresis::new();
        (from..)
            .zip(answers)
            .map(|(second, answer)| {
                hysteresis.observe(timing, Some(*answer), Duration::from_secs(second));
                hysteresis.status()
            })
            .collect()
    }

    #[test]
    fn table() {
        type Case<'a> = (&'a str, CheckTiming, u64, &'a [Outcome], &'a [HealthStatus]);
        let cases: &[Case<'_>] = &[
            ("one pass is enough for a new one", timing(3, 5, 0), 0, &[Pass], &[Healthy]),
            ("a warning degrades", timing(3, 1, 0), 0, &[Warn, Pass, Warn], &[Degraded, Healthy, Degraded]),
            (
                "retries in a row",
                timing(3, 1, 0),
                0,
                &[Pass, Fail, Fail, Fail, Fail],
                &[Healthy, Degraded, Degraded, Unhealthy, Unhealthy],
            ),
            (
                "a pass in between starts the count anew",
                timing(2, 1, 0),
                0,
                &[Pass, Fail, Pass, Fail, Fail],
                &[Healthy, Degraded, Healthy, Degraded, Unhealthy],
            ),
            (
                "an unhealthy one needs the threshold",
                timing(1, 2, 0),
                0,
                &[Pass, Fail, Pass, Fail, Pass, Pass],
                &[Healthy, Unhealthy, Unhealthy, Unhealthy, Unhealthy, Healthy],
            ),
            (
                "a warning counts towards the threshold",
                timing(1, 2, 0),
                0,
                &[Pass, Fail, Warn, Warn],
                &[Healthy, Unhealthy, Unhealthy, Degraded],
            ),
            (
                "a fresh one that never passes: the first failure is too early to count",
                timing(2, 1, 0),
                0,
                &[Fail, Fail, Fail],
                &[Unknown, Unknown, Unhealthy],
            ),
            (
                "one that has run for long: every failure counts",
                timing(2, 1, 0),
                9,
                &[Fail, Fail],
                &[Unknown, Unhealthy],
            ),
            (
                "the start period suspends",
                timing(1, 1, 3),
                0,
                &[Fail, Fail, Fail, Fail],
                &[Unknown, Unknown, Unknown, Unhealthy],
            ),
            (
                "the first pass ends the start period",
                timing(1, 1, 9),
                0,
                &[Fail, Pass, Fail],
                &[Unknown, Healthy, Unhealthy],
            ),
            (
                "retries of one: no degraded tier",
                timing(1, 1, 0),
                0,
                &[Pass, Fail, Pass],
                &[Healthy, Unhealthy, Healthy],
            ),
        ];
        for (what, timing, from, answers, expected) in cases {
            assert_eq!(run(timing, *from, answers), *expected, "{what}");
        }
    }

    #[test]
    fn a_check_that_could_not_be_made_changes_nothing() {
        let timing = timing(1, 1, 0);
        let mut hysteresis = Hysteresis::new();
        assert_eq!(hysteresis.observe(&timing, None, Duration::from_secs(5)), None);
        assert_eq!(hysteresis.status(), Unknown);
        hysteresis.observe(&timing, Some(Pass), Duration::from_secs(6));
        assert_eq!(hysteresis.observe(&timing, None, Duration::from_secs(7)), None);
        assert_eq!(hysteresis.status(), Healthy);
    }

    #[test]
    fn asking_often_does_not_use_up_retries() {
        let timing = CheckTiming { interval: Duration::from_secs(30), ..timing(3, 1, 0) };
        let mut hysteresis = Hysteresis::new();
        let unhealthy_after = (0..)
            .find(|second| {
                hysteresis.observe(&timing, Some(Fail), Duration::from_secs(*second));
                hysteresis.status() == Unhealthy
            })
            .unwrap();
        assert_eq!(unhealthy_after, 90);
    }

    #[test]
    fn what_an_instance_says_of_itself_counts_at_once() {
        let slow = CheckTiming { interval: Duration::from_secs(600), ..timing(2, 1, 5) };
        let mut hysteresis = Hysteresis::new();
        let mut hear = |outcome, second| {
            let change = hysteresis.hear(&slow, outcome, Duration::from_secs(second));
            (change, hysteresis.status())
        };
        assert_eq!(hear(Fail, 4), (None, Unknown), "the start period suspends");
        assert_eq!(hear(Fail, 5), (None, Unknown), "one of two");
        assert_eq!(hear(Fail, 6), (Some((Unknown, Unhealthy)), Unhealthy));
        assert_eq!(hear(Warn, 7), (Some((Unhealthy, Degraded)), Degraded));
        assert_eq!(hear(Pass, 8), (Some((Degraded, Healthy)), Healthy));
        assert_eq!(hear(Fail, 9), (Some((Healthy, Degraded)), Degraded));
        assert_eq!(hear(Fail, 9), (Some((Degraded, Unhealthy)), Unhealthy));
    }

    #[test]
    fn the_pause_of_a_new_one_grows_from_ten_milliseconds() {
        let timing = CheckTiming {
            interval: Duration::from_secs(30),
            start_interval: Duration::from_millis(50),
            ..CheckTiming::default()
        };
        let mut hysteresis = Hysteresis::new();
        let mut pauses = Vec::new();
        for _ in 0..5 {
            hysteresis.observe(&timing, Some(Fail), Duration::ZERO);
            pauses.push(hysteresis.pause(&timing).as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 50, 50]);
        hysteresis.observe(&timing, Some(Pass), Duration::ZERO);
        assert_eq!(hysteresis.pause(&timing), timing.interval);
    }

    fn answer() -> impl Strategy<Value = Option<Outcome>> {
        prop_oneof![Just(None), Just(Some(Pass)), Just(Some(Warn)), Just(Some(Fail))]
    }

    proptest! {
        #[test]
        fn the_last_answers_decide(
            answers in prop::collection::vec((answer(), 0_u64..3000), 0..60),
            retries in 1_u32..5,
            threshold in 1_u32..5,
            start_period in 0_u64..10,
            jitter in 0.0..1.0,
        ) {
            let timing = CheckTiming { jitter, ..timing(retries, threshold, start_period) };
            let mut hysteresis = Hysteresis::new();
            let mut age = Duration::ZERO;
            let (mut failures, mut ever_passed) = (0, false);
            for (answer, gap) in answers {
                age += Duration::from_millis(gap);
                let before = hysteresis.status();
                let change = hysteresis.observe(&timing, answer, age);
                let after = hysteresis.status();
                prop_assert_eq!(change, (before != after).then_some((before, after)));
                match answer {
                    None => prop_assert_eq!(before, after),
                    Some(Fail) => {
                        failures += 1;
                        prop_assert!(after != Healthy);
                        if !ever_passed && age < timing.start_period {
                            prop_assert_eq!(after, Unknown);
                        }
                        if after == Unhealthy && before != Unhealthy {
                            prop_assert!(failures >= retries);
                        }
                        if ever_passed && failures >= retries {
                            prop_assert_eq!(after, Unhealthy);
                        }
                    }
                    Some(good) => {
                        failures = 0;
                        ever_passed = true;
                        if before != Unhealthy || threshold == 1 {
                            prop_assert_eq!(after, if good == Pass { Healthy } else { Degraded });
                        }
                    }
                }
                // Once known, never unknown again.
                prop_assert!(before == Unknown || after != Unknown);
                prop_assert!(hysteresis.pause(&timing) > Duration::ZERO);
                prop_assert!(hysteresis.pause(&timing) <= timing.interval);
            }
        }
    }
}
