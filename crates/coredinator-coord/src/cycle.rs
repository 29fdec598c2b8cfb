//! The life of one cycle: pure. What happens goes in, what is to be done comes out.
//!
//! collecting → deciding → storing → telling those who give something up → telling the others → done

use std::collections::BTreeSet;

use coredinator_core::coordination::AgentId;

use crate::record::CycleOutcome;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// An agent has said what it wants, has said nothing of use, has left, or has acknowledged: it is not waited for.
    Heard(AgentId),
    /// The time for what is under way has ended.
    TimeUp,
    /// There is a plan. Whoever has to give something up is told before the others, so that these do not take what is still
    /// in use; of both, whose acknowledgement is waited for.
    Decided {
        /// Who gives something up.
        givers: BTreeSet<AgentId>,
        /// The others.
        takers: BTreeSet<AgentId>,
    },
    /// There is no plan.
    NoPlan,
    /// What must not be lost is written down.
    Stored,
    /// It is not.
    Refused,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for what happens.
    Wait,
    /// Close the round, and resolve.
    Resolve,
    /// Write down what must not be lost.
    Store,
    /// Tell those who give something up, and wait for them.
    TellGivers,
    /// Tell the others, and wait for all.
    TellTakers,
    /// The cycle is over.
    Finish(CycleOutcome),
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Collecting(BTreeSet<AgentId>),
    Deciding,
    Storing { givers: BTreeSet<AgentId>, takers: BTreeSet<AgentId> },
    TellingGivers { givers: BTreeSet<AgentId>, takers: BTreeSet<AgentId> },
    TellingTakers(BTreeSet<AgentId>),
    Done,
}

/// One cycle. What does not belong to its phase (a late answer, a second acknowledgement) changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cycle {
    phase: Phase,
}

impl Cycle {
    /// A cycle that waits for these to say what they want; with nobody to wait for, the round closes at once.
    pub(crate) fn begin(awaited: BTreeSet<AgentId>) -> (Self, Step) {
        if awaited.is_empty() {
            (Self { phase: Phase::Deciding }, Step::Resolve)
        } else {
            (Self { phase: Phase::Collecting(awaited) }, Step::Wait)
        }
    }

    /// Who is waited for.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &AgentId> {
        let waiting = match &self.phase {
            Phase::Collecting(waiting) | Phase::TellingTakers(waiting) => Some(waiting),
            Phase::TellingGivers { givers, .. } => Some(givers),
            Phase::Deciding | Phase::Storing { .. } | Phase::Done => None,
        };
        waiting.into_iter().flatten()
    }

    /// Goes on.
    pub(crate) fn handle(&mut self, input: Input) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        let (phase, step) = advance(phase, input);
        self.phase = phase;
        step
    }
}

fn advance(phase: Phase, input: Input) -> (Phase, Step) {
    match (phase, input) {
        (Phase::Collecting(mut waiting), Input::Heard(agent)) => {
            let was_there = waiting.remove(&agent);
            match was_there && waiting.is_empty() {
                true => (Phase::Deciding, Step::Resolve),
                false => (Phase::Collecting(waiting), Step::Wait),
            }
        }
        (Phase::Collecting(_), Input::TimeUp) => (Phase::Deciding, Step::Resolve),
        (Phase::Deciding, Input::Decided { givers, takers }) => (Phase::Storing { givers, takers }, Step::Store),
        (Phase::Deciding, Input::NoPlan) => (Phase::Done, Step::Finish(CycleOutcome::Failed)),
        (Phase::Storing { .. }, Input::Refused) => (Phase::Done, Step::Finish(CycleOutcome::Withheld)),
        (Phase::Storing { givers, takers }, Input::Stored) => {
            (Phase::TellingGivers { givers, takers }, Step::TellGivers)
        }
        (Phase::TellingGivers { mut givers, mut takers }, Input::Heard(agent)) => {
            givers.remove(&agent);
            takers.remove(&agent);
            match givers.is_empty() {
                true => (Phase::TellingTakers(takers), Step::TellTakers),
                false => (Phase::TellingGivers { givers, takers }, Step::Wait),
            }
        }
        (Phase::TellingGivers { givers, takers }, Input::TimeUp) => {
            let all = givers.into_iter().chain(takers).collect();
            (Phase::TellingTakers(all), Step::TellTakers)
        }
        (Phase::TellingTakers(mut waiting), Input::Heard(agent)) => {
            waiting.remove(&agent);
            match waiting.is_empty() {
                true => (Phase::Done, Step::Finish(CycleOutcome::Distributed)),
                false => (Phase::TellingTakers(waiting), Step::Wait),
            }
        }
        (Phase::TellingTakers(_), Input::TimeUp) => (Phase::Done, Step::Finish(CycleOutcome::Distributed)),
        (phase, _) => (phase, Step::Wait),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> AgentId {
        AgentId::new(name).unwrap()
    }

    fn ids(names: &[&str]) -> BTreeSet<AgentId> {
        names.iter().copied().map(id).collect()
    }

    fn decided(givers: &[&str], takers: &[&str]) -> Input {
        Input::Decided { givers: ids(givers), takers: ids(takers) }
    }

    #[test]
    fn a_cycle_in_which_all_goes_well() {
        let (mut cycle, step) = Cycle::begin(ids(&["a", "b"]));
        assert_eq!(step, Step::Wait);
        for (input, step) in [
            (Input::Heard(id("b")), Step::Wait),
            (Input::Heard(id("b")), Step::Wait),
            (Input::Heard(id("stranger")), Step::Wait),
            (Input::Heard(id("a")), Step::Resolve),
            (Input::Heard(id("a")), Step::Wait),
            (decided(&["a"], &["b"]), Step::Store),
            (Input::Stored, Step::TellGivers),
            (Input::Heard(id("a")), Step::TellTakers),
            (Input::Heard(id("a")), Step::Wait),
            (Input::Heard(id("b")), Step::Finish(CycleOutcome::Distributed)),
            (Input::Heard(id("b")), Step::Wait),
            (Input::TimeUp, Step::Wait),
        ] {
            let told = format!("{input:?}");
            assert_eq!(cycle.handle(input), step, "{told}");
        }
    }

    #[test]
    fn nobody_to_wait_for() {
        assert_eq!(Cycle::begin(BTreeSet::new()).1, Step::Resolve);
        let (mut cycle, _) = Cycle::begin(BTreeSet::new());
        assert_eq!(cycle.handle(Input::NoPlan), Step::Finish(CycleOutcome::Failed));
    }

    #[test]
    fn the_dead_hold_up_nobody() {
        let (mut cycle, _) = Cycle::begin(ids(&["dead"]));
        assert_eq!(cycle.handle(Input::TimeUp), Step::Resolve);
        assert_eq!(cycle.handle(decided(&["dead"], &["b"])), Step::Store);
        assert_eq!(cycle.handle(Input::Stored), Step::TellGivers);
        assert_eq!(cycle.handle(Input::TimeUp), Step::TellTakers);
        assert_eq!(cycle.waiting().count(), 2);
        assert_eq!(cycle.handle(Input::Heard(id("b"))), Step::Wait);
        assert_eq!(cycle.handle(Input::TimeUp), Step::Finish(CycleOutcome::Distributed));
    }

    #[test]
    fn what_is_not_written_down_is_told_to_nobody() {
        let (mut cycle, _) = Cycle::begin(BTreeSet::new());
        cycle.handle(decided(&["a"], &["b"]));
        assert_eq!(cycle.handle(Input::Refused), Step::Finish(CycleOutcome::Withheld));
        for input in [Input::Stored, Input::TimeUp, Input::Heard(id("a")), decided(&["a"], &[])] {
            assert_eq!(cycle.handle(input), Step::Wait);
        }
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            4 => (0..4_u8).prop_map(|n| Input::Heard(id(&n.to_string()))),
            1 => Just(Input::TimeUp),
            1 => Just(Input::Stored),
            1 => Just(Input::Refused),
            1 => Just(Input::NoPlan),
            1 => Just(decided(&["0", "1"], &["2", "3"])),
        ]
    }

    proptest! {
        // Whatever happens, in whatever order: told only after stored, takers only after givers, at most one end.
        #[test]
        fn steps_keep_their_order(inputs in prop::collection::vec(input(), 0..60)) {
            let (mut cycle, first) = Cycle::begin(ids(&["0", "1"]));
            let mut steps = vec![first];
            let mut stored = false;
            for input in inputs {
                let is_stored = input == Input::Stored;
                let step = cycle.handle(input);
                stored |= is_stored && step == Step::TellGivers;
                prop_assert!(stored || !matches!(step, Step::TellGivers | Step::TellTakers));
                if step != Step::Wait {
                    steps.push(step);
                }
            }
            let rank = |step: &Step| match step {
                Step::Wait => 0,
                Step::Resolve => 1,
                Step::Store => 2,
                Step::TellGivers => 3,
                Step::TellTakers => 4,
                Step::Finish(_) => 5,
            };
            prop_assert!(steps.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])), "{steps:?}");
        }
    }
}
