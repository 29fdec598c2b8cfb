//! What is counted, per group.

use std::collections::{BTreeMap, VecDeque};

use coredinator_core::coordination::{ConflictType, Plan};
use serde::{Deserialize, Serialize};

use crate::record::{CycleOutcome, CycleRecord};

/// How many of the newest durations the quantiles are of.
const WINDOW: usize = 1000;

/// What is told of the last cycle of each group.
const AGENTS: &str = "coredinator_coordination_agents";
const SILENT_AGENTS: &str = "coredinator_coordination_silent_agents";
const GAP: &str = "coredinator_coordination_gap";

/// How long something took, over time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How often.
    pub count: u64,
    /// All together, in milliseconds.
    pub sum_ms: f64,
    /// The last time, in milliseconds.
    pub last_ms: f64,
    /// The median of the last thousand, in milliseconds.
    pub p50_ms: f64,
    /// The 99th of a hundred of the last thousand, in milliseconds.
    pub p99_ms: f64,
}

/// What is counted of one group since this process began.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GroupStats {
    /// Cycles that ended.
    pub cycles: u64,
    /// Of the cycles that are settled, those in which somebody took part, and all who did acknowledged a verified plan.
    pub successes: u64,
    /// Cycles of which it is known whether they were a success.
    pub settled: u64,
    /// Cycles whose plan could not be written down or distributed.
    pub withheld: u64,
    /// Cycles without a plan.
    pub failed: u64,
    /// Cycles whose plan is not by the strategy that was asked, or by one that ran out of time.
    pub fallbacks: u64,
    /// Cycles that did not take place because one before took longer than the interval.
    pub overruns: u64,
    /// Conflicts, by `capacity`, `direct` and `indirect`.
    pub conflicts: BTreeMap<String, u64>,
    /// Decisions, by outcome.
    pub decisions: BTreeMap<String, u64>,
    /// Faults of strategies, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Agents that were asked and gave nothing of use.
    pub agent_faults: u64,
    /// Agents that got nothing although that is not safe for them.
    pub shed: u64,
    /// Decisions that those who took part did not acknowledge.
    pub unacknowledged: u64,
    /// Asking agents.
    pub collect: Latency,
    /// The strategy.
    pub resolve: Latency,
    /// Telling agents.
    pub distribute: Latency,
    /// Whole cycles.
    pub total: Latency,
    /// How far the last plan is from the best there is, at most; relative.
    pub last_gap: f64,
}

/// [`GroupStats`] under way.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    counted: GroupStats,
    windows: [VecDeque<f64>; 4],
}

impl Stats {
    /// What was counted so far, with the quantiles.
    pub(crate) fn snapshot(&self) -> GroupStats {
        let mut stats = self.counted.clone();
        let [collect, resolve, distribute, total] = &self.windows;
        for (latency, window) in [
            (&mut stats.collect, collect),
            (&mut stats.resolve, resolve),
            (&mut stats.distribute, distribute),
            (&mut stats.total, total),
        ] {
            let mut sorted: Vec<f64> = window.iter().copied().collect();
            sorted.sort_by(f64::total_cmp);
            let quantile =
                |part: usize| sorted.get(sorted.len().saturating_sub(1) * part / 100).copied().unwrap_or(0.0);
            (latency.p50_ms, latency.p99_ms) = (quantile(50), quantile(99));
        }
        stats
    }

    /// Counts a cycle that ended.
    pub(crate) fn cycle(&mut self, record: &CycleRecord) {
        let counted = &mut self.counted;
        counted.cycles += 1;
        match record.outcome {
            CycleOutcome::Distributed => {}
            CycleOutcome::Withheld => counted.withheld += 1,
            CycleOutcome::Failed => counted.failed += 1,
        }
        counted.agent_faults += record.agent_faults.len() as u64;
        for fault in &record.faults {
            *counted.faults.entry(fault.kind.as_str().to_owned()).or_default() += 1;
        }
        if let Some(plan) = &record.plan {
            count_plan(counted, plan);
        }
        let timings = &record.timings;
        let took = [timings.collect_ms, timings.resolve_ms, timings.distribute_ms, timings.total_ms];
        let latencies = [&mut counted.collect, &mut counted.resolve, &mut counted.distribute, &mut counted.total];
        for ((latency, window), took) in latencies.into_iter().zip(&mut self.windows).zip(took) {
            latency.count += 1;
            latency.sum_ms += took;
            latency.last_ms = took;
            if window.len() == WINDOW {
                window.pop_front();
            }
            window.push_back(took);
        }
        emit(record);
    }

    /// Counts how a cycle turned out in the end.
    pub(crate) fn settled(&mut self, group: &str, success: bool, unacknowledged: usize) {
        self.counted.settled += 1;
        self.counted.successes += u64::from(success);
        self.counted.unacknowledged += unacknowledged as u64;
        let labels = [("group", group.to_owned())];
        metrics::counter!("coredinator_coordination_cycles_settled_total", &labels).increment(1);
        metrics::counter!("coredinator_coordination_cycles_succeeded_total", &labels).increment(u64::from(success));
        metrics::counter!("coredinator_coordination_unacknowledged_total", &labels).increment(unacknowledged as u64);
    }

    /// Counts cycles that did not take place.
    pub(crate) fn overrun(&mut self, group: &str, missed: u64) {
        self.counted.overruns += missed;
        metrics::counter!("coredinator_coordination_overruns_total", "group" => group.to_owned()).increment(missed);
    }
}

/// Tells that no cycle of a group takes place, as nobody is there for one: what was told of the last is not true any more.
pub(crate) fn nobody(group: &str) {
    for name in [AGENTS, SILENT_AGENTS, GAP] {
        metrics::gauge!(name, "group" => group.to_owned()).set(0.0);
    }
}

fn count_plan(counted: &mut GroupStats, plan: &Plan) {
    counted.fallbacks += u64::from(plan.status == coredinator_core::coordination::PlanStatus::Fallback);
    counted.shed += plan.shed.len() as u64;
    counted.last_gap = plan.gap;
    for conflict in &plan.conflicts {
        *counted.conflicts.entry(conflict.subtype.as_str().to_owned()).or_default() += 1;
    }
    for decision in &plan.decisions {
        // Looked up before an entry is made: there are many decisions and few outcomes.
        let outcome = decision.outcome.as_str();
        match counted.decisions.get_mut(outcome) {
            Some(count) => *count += 1,
            None => drop(counted.decisions.insert(outcome.to_owned(), 1)),
        }
    }
}

/// Tells whatever collects metrics in this process.
fn emit(record: &CycleRecord) {
    let group = || record.group.clone();
    let outcome = match record.outcome {
        CycleOutcome::Distributed => "distributed",
        CycleOutcome::Withheld => "withheld",
        CycleOutcome::Failed => "failed",
    };
    metrics::counter!("coredinator_coordination_cycles_total", "group" => group(), "outcome" => outcome).increment(1);
    let timings = &record.timings;
    for (name, took) in [
        ("coredinator_coordination_collect_seconds", timings.collect_ms),
        ("coredinator_coordination_resolve_seconds", timings.resolve_ms),
        ("coredinator_coordination_distribute_seconds", timings.distribute_ms),
        ("coredinator_coordination_cycle_seconds", timings.total_ms),
    ] {
        metrics::histogram!(name, "group" => group()).record(took / 1e3);
    }
    for fault in &record.faults {
        let labels = [("group", group()), ("fault", fault.kind.as_str().to_owned())];
        metrics::counter!("coredinator_coordination_strategy_faults_total", &labels).increment(1);
    }
    metrics::counter!("coredinator_coordination_agent_faults_total", "group" => group())
        .increment(record.agent_faults.len() as u64);
    let agents = record.problem.agents.len();
    let silent = agents.saturating_sub(record.took_part());
    metrics::gauge!(AGENTS, "group" => group()).set(count(agents));
    metrics::gauge!(SILENT_AGENTS, "group" => group()).set(count(silent));
    let Some(plan) = &record.plan else { return };
    metrics::gauge!(GAP, "group" => group()).set(plan.gap);
    metrics::counter!("coredinator_coordination_shed_total", "group" => group()).increment(plan.shed.len() as u64);
    let mut counts = GroupStats::default();
    count_plan(&mut counts, plan);
    for conflict in &plan.conflicts {
        let kind = match conflict.kind {
            ConflictType::ResourceContention => "resource_contention",
            ConflictType::GoalInterference => "goal_interference",
        };
        let subtype = conflict.subtype.as_str();
        metrics::counter!("coredinator_coordination_conflicts_total", "group" => group(), "type" => kind, "subtype" => subtype)
            .increment(1);
    }
    for (outcome, decisions) in counts.decisions {
        let labels = [("group", group()), ("outcome", outcome)];
        metrics::counter!("coredinator_coordination_decisions_total", &labels).increment(decisions);
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer agents than a double counts")]
fn count(number: usize) -> f64 {
    number as f64
}
