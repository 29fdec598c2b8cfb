//! What follows when an instance ends by itself, or cannot be started. Pure.

use std::time::Duration;

use coredinator_core::{Exit, Reason, RestartPolicy, ServiceSpec, Timestamp};

/// Why an instance does not run (any more) although nobody asked it to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It ended.
    Exited(Exit),
    /// It was stopped because its health check had failed.
    Unhealthy(Reason),
    /// It could not be started.
    NotStarted(Reason),
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start it again after `delay`.
    Restart { delay: Duration },
    /// It is done, and well.
    Completed,
    /// It is done, and not well.
    Failed(Reason),
}

/// How often an instance has been started again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Restarts in a row, without a good period in between.
    pub(crate) attempts: u32,
    /// Restarts that the budget's window may still see, oldest first.
    pub(crate) times: Vec<Timestamp>,
}

impl Ending {
    fn is_success(&self, spec: &ServiceSpec) -> bool {
        // What was ended from outside did not end by being done, whatever code it left.
        matches!(self, Self::Exited(exit) if exit.why.is_none() && spec.is_success(exit.code))
    }

    /// What happened, as a `CamelCase` word.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Exited(exit) if exit.oom_killed => "OOMKilled",
            Self::Exited(_) => "Exited",
            Self::Unhealthy(reason) | Self::NotStarted(reason) => &reason.code,
        }
    }

    /// What happened, in a clause.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Exited(exit) => exit.to_string(),
            Self::Unhealthy(reason) | Self::NotStarted(reason) => reason.message.clone(),
        }
    }
}

/// Decides by the spec's policy, back-off and budget, and notes a restart in `history`. `random` is drawn from [0, 1).
pub(crate) fn decide(
    spec: &ServiceSpec,
    ending: &Ending,
    history: &mut History,
    now: Timestamp,
    random: f64,
) -> Verdict {
    let success = ending.is_success(spec);
    let words = ending.words();
    match spec.restart_policy {
        RestartPolicy::No | RestartPolicy::OnFailure { .. } if success => return Verdict::Completed,
        RestartPolicy::No => {
            return Verdict::Failed(Reason::new(ending.code(), format!("{words}; restart_policy is no")));
        }
        RestartPolicy::OnFailure { max: Some(max) } if history.attempts >= max.get() => {
            let message = format!("{words}; restarted {} times in a row, which is its limit", history.attempts);
            return Verdict::Failed(Reason::new("RestartLimit", message));
        }
        RestartPolicy::OnFailure { .. } | RestartPolicy::Always | RestartPolicy::UnlessStopped => {}
    }
    let budget = spec.restart_budget;
    // A stamp from the future, after the clock was set back, counts as one of now, and ages from now on.
    history.times.iter_mut().for_each(|at| *at = (*at).min(now));
    history.times.retain(|at| Duration::try_from(now.duration_since(*at)).unwrap_or_default() < budget.window);
    if budget.attempts > 0 && history.times.len() >= budget.attempts as usize {
        let message = format!("{words}; {} restarts within {:?} are its budget", history.times.len(), budget.window);
        return Verdict::Failed(Reason::new("RestartBudgetExhausted", message));
    }
    history.attempts = history.attempts.saturating_add(1);
    if budget.attempts > 0 {
        history.times.push(now);
    }
    Verdict::Restart { delay: spec.backoff.delay(history.attempts, random) }
}

#[cfg(test)]
mod tests {
    use coredinator_core::SpecDefaults;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spec(extra: &Value) -> ServiceSpec {
        let mut document = json!({"name": "a", "runtime": "process", "command": "x", "backoff": {"jitter": 0}});
        document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap()
    }

    fn exit(code: i32) -> Ending {
        Ending::Exited(Exit { code: Some(code), signal: None, oom_killed: false, why: None, at: Timestamp::UNIX_EPOCH })
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_table_of_policies() {
        let restart = |v: &Verdict| matches!(v, Verdict::Restart { .. });
        let failed = |v: &Verdict| matches!(v, Verdict::Failed(_));
        let completed = |v: &Verdict| *v == Verdict::Completed;
        type Check<'a> = &'a dyn Fn(&Verdict) -> bool;
        let table: [(&str, i32, Check<'_>); 8] = [
            ("no", 0, &completed),
            ("no", 1, &failed),
            ("on-failure", 0, &completed),
            ("on-failure", 1, &restart),
            ("always", 0, &restart),
            ("always", 1, &restart),
            ("unless-stopped", 0, &restart),
            ("unless-stopped", 1, &restart),
        ];
        for (policy, code, expected) in table {
            let spec = spec(&json!({"restart_policy": policy}));
            let verdict = decide(&spec, &exit(code), &mut History::default(), at(0), 0.5);
            assert!(expected(&verdict), "{policy} {code}: {verdict:?}");
        }
    }

    #[test]
    fn success_codes_and_unknown_codes() {
        let spec = spec(&json!({"restart_policy": "on-failure", "success_exit_codes": [0, 143]}));
        assert_eq!(decide(&spec, &exit(143), &mut History::default(), at(0), 0.5), Verdict::Completed);
        // An exit that nobody saw may have been a failure, so it counts as one.
        let unseen = Ending::Exited(Exit { code: None, signal: None, oom_killed: false, why: None, at: at(0) });
        assert!(matches!(decide(&spec, &unseen, &mut History::default(), at(0), 0.5), Verdict::Restart { .. }));
    }

    #[test]
    fn a_limit_in_a_row_and_a_budget_in_a_window() {
        let limited = spec(&json!({"restart_policy": "on-failure:2"}));
        let mut history = History::default();
        let verdicts: Vec<_> = (0..3).map(|_| decide(&limited, &exit(1), &mut history, at(0), 0.5)).collect();
        assert!(matches!(&verdicts[2], Verdict::Failed(reason) if reason.code == "RestartLimit"), "{verdicts:?}");

        let budgeted = spec(&json!({"restart_budget": {"attempts": 2, "window": 100}}));
        let mut history = History::default();
        for (time, allowed) in [(0, true), (60, true), (70, false), (101, true), (102, false)] {
            let verdict = decide(&budgeted, &exit(1), &mut history, at(time), 0.5);
            assert_eq!(matches!(verdict, Verdict::Restart { .. }), allowed, "at {time}: {verdict:?}");
        }
    }

    #[test]
    fn a_clock_set_back_burdens_the_budget_for_one_window_at_most() {
        let spec = spec(&json!({"restart_budget": {"attempts": 2, "window": 100}}));
        let mut history = History::default();
        for (time, allowed) in
            [(9000, true), (9001, true), (10, false), (109, false), (111, true), (112, true), (113, false)]
        {
            let verdict = decide(&spec, &exit(1), &mut history, at(time), 0.5);
            assert_eq!(matches!(verdict, Verdict::Restart { .. }), allowed, "at {time}: {verdict:?}");
        }
    }

    proptest! {
        #[test]
        fn a_window_never_sees_more_restarts_than_its_budget(gaps in prop::collection::vec(0i64..50, 1..60), budget in 1u32..6) {
            let spec = spec(&json!({"restart_budget": {"attempts": budget, "window": 100}}));
            let mut history = History::default();
            let (mut time, mut restarts) = (0, Vec::new());
            for gap in gaps {
                time += gap;
                if matches!(decide(&spec, &exit(1), &mut history, at(time), 0.5), Verdict::Restart { .. }) {
                    restarts.push(time);
                }
            }
            for start in &restarts {
                let inside = restarts.iter().filter(|t| (*start..*start + 100).contains(*t)).count();
                prop_assert!(inside <= budget as usize, "{restarts:?}");
            }
        }
    }
}
