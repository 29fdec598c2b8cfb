//! What a controller may take, whatever it is told and whenever.

use std::{collections::BTreeMap, time::Duration};

use coredinator_core::coordination::{AgentId, Decision, DecisionOutcome, DecisionReason};
use proptest::prelude::*;
use quickstart::{
    mandate::{Mandate, Standing, Told},
    wish::{FEED, STEAM},
};
use serde_json::Value;
use tokio::time::Instant;

const SAFE: f64 = 5.0;
const TTL: Duration = Duration::from_secs(4);

fn told(epoch: u64, cycle: u64, steam: f64) -> Told {
    let decision = Decision {
        agent_id: AgentId::new("tank-a").expect("a name"),
        outcome: DecisionOutcome::Granted,
        option_id: None,
        fraction: 1.0,
        values: BTreeMap::from([(FEED.to_owned(), 100.0 + steam)]),
        grant: BTreeMap::from([(STEAM.to_owned(), steam)]),
        action: Value::Null,
        utility: 0.0,
        reason: DecisionReason::default(),
    };
    Told { epoch, cycle, decision }
}

/// At this many seconds after some moment.
struct Course {
    start: Instant,
    mandate: Mandate,
}

impl Course {
    fn new() -> Self {
        Self { start: Instant::now(), mandate: Mandate::new(SAFE, TTL) }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn hear(&mut self, seconds: f64, told: Told) -> bool {
        let now = self.at(seconds);
        self.mandate.hear(told, now, now)
    }

    fn steam(&self, seconds: f64) -> f64 {
        self.mandate.steam(self.at(seconds))
    }
}

#[test]
fn without_a_word_it_takes_the_safe_steam_and_leaves_the_feed() {
    let course = Course::new();
    assert_eq!((course.steam(0.0), course.mandate.feed(course.at(0.0))), (SAFE, None));
}

#[test]
fn less_holds_at_once_and_more_a_cycle_later() {
    let mut course = Course::new();
    for (cycle, granted, takes) in [(1, 9.0, 5.0), (2, 9.0, 9.0), (3, 2.0, 2.0), (4, 7.0, 2.0), (5, 6.0, 6.0)] {
        let now = cycle as f64;
        assert!(course.hear(now, told(1, cycle, granted)));
        assert_eq!(course.steam(now), takes, "cycle {cycle}");
        assert_eq!(course.mandate.feed(course.at(now)), Some(100.0 + granted));
    }
}

#[test]
fn what_is_older_is_not_acted_upon() {
    let mut course = Course::new();
    assert!(course.hear(0.0, told(2, 7, 4.0)));
    for (epoch, cycle) in [(2, 7), (2, 6), (1, 8), (0, 0)] {
        assert!(!course.hear(1.0, told(epoch, cycle, 1.0)), "epoch {epoch}, cycle {cycle}");
    }
    assert_eq!(course.steam(1.0), 4.0);
    assert!(course.hear(1.0, told(3, 1, 3.0)), "of a later epoch, whatever its cycle");
    assert_eq!(course.steam(1.0), 3.0);
}

#[test]
fn silence_leads_to_the_safe_side_and_never_to_more_than_is_reserved() {
    for (granted, then) in [(9.0, SAFE), (2.0, 2.0)] {
        let mut course = Course::new();
        course.hear(0.0, told(1, 1, granted));
        course.hear(0.0, told(1, 2, granted));
        course.mandate.heard(course.at(1.0));
        assert_eq!((course.steam(4.9), course.mandate.standing(course.at(4.9))), (granted, Standing::Told));
        assert_eq!((course.steam(5.1), course.mandate.standing(course.at(5.1))), (then, Standing::Alone));
        assert_eq!(course.mandate.feed(course.at(5.1)), None);
        assert_eq!(course.steam(9.1), SAFE);
    }
}

proptest! {
    #[test]
    fn it_never_takes_more_than_it_was_last_granted_as_long_as_that_counts(
        course in proptest::collection::vec((0.0..6.0_f64, 0..3_u64, 0..20_u64, 0.0..16.0_f64), 1..40),
    ) {
        let mut held = Course::new();
        let (mut now, mut last): (f64, Option<(u64, u64, f64)>) = (0.0, None);
        for (pause, epoch, cycle, steam) in course {
            now += pause;
            let newer = last.is_none_or(|(e, c, _)| (epoch, cycle) > (e, c));
            prop_assert_eq!(held.hear(now, told(epoch, cycle, steam)), newer);
            last = if newer { Some((epoch, cycle, steam)) } else { last };
            let granted = last.map_or(SAFE, |(.., granted)| granted);
            let takes = held.steam(now);
            match held.mandate.standing(held.at(now)) {
                Standing::Told => prop_assert!(takes <= granted),
                Standing::Alone => prop_assert!(takes <= SAFE),
            }
        }
    }
}
