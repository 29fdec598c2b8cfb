//! A cycle again, from its record.

use std::{sync::Arc, time::Duration};

use coredinator_core::coordination::{Plan, PlanStatus, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    CoordError, CycleRecord, DecidedBy, Strategies,
    duties::tell_why_silent,
    negotiate::ReplayingNegotiator,
    resolve::{Chosen, resolve},
    strategies::PriorityBased,
};

/// What came of replaying a cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Replayed {
    /// The same plan, bit for bit, but for how long it took.
    Same,
    /// Another plan.
    Differs {
        /// What is different, for people; the first that is found.
        detail: String,
        /// The plan that came of it now.
        plan: Option<Box<Plan>>,
    },
    /// Then, the clock decided, or there was no plan: there is nothing to compare.
    NotComparable {
        /// Why.
        detail: String,
    },
}

/// How long a replay may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Resolves a recorded cycle again, by whoever decided it then.
///
/// # Errors
/// [`CoordError::Invalid`]: the record's problem or strategy cannot be used here.
pub async fn replay(record: &CycleRecord, strategies: &Strategies) -> Result<Replayed, CoordError> {
    let Some(then) = record.plan.as_deref() else {
        return Ok(Replayed::NotComparable { detail: "there was no plan".to_owned() });
    };
    let stepped_in = record.decided_by != DecidedBy::Strategy;
    if then.status == PlanStatus::Fallback && !stepped_in {
        return Ok(Replayed::NotComparable { detail: "the strategy ran out of time".to_owned() });
    }
    if record.decided_by == DecidedBy::SafeSide {
        return Ok(Replayed::NotComparable { detail: "all strategies failed".to_owned() });
    }
    let choice = if stepped_in { Value::from(PriorityBased::NAME) } else { record.strategy.clone() };
    let made = strategies.make("/strategy", &choice).map_err(CoordError::Invalid)?;
    let chosen = Chosen::new(choice, made)?;
    let problem = Arc::new(Problem::new((*record.problem).clone()).map_err(CoordError::Invalid)?);
    let said = if stepped_in { Vec::new() } else { record.negotiation.clone() };
    let negotiator = Arc::new(ReplayingNegotiator::new(Arc::clone(&problem), said));
    let resolved = resolve(problem, &chosen, negotiator, record.epoch, DEADLINE).await;
    let Some(mut now) = resolved.plan.filter(|_| resolved.decided_by == DecidedBy::Strategy) else {
        let told = resolved.faults.into_iter().flat_map(|fault| fault.details).collect::<Vec<_>>().join("; ");
        return Ok(Replayed::Differs { detail: format!("the strategy failed: {told}"), plan: None });
    };
    now.elapsed_ms = then.elapsed_ms;
    tell_why_silent(&mut now, &record.agent_faults);
    if stepped_in {
        now.status = PlanStatus::Fallback;
    }
    Ok(match difference(then, &now) {
        None => Replayed::Same,
        Some(detail) => Replayed::Differs { detail, plan: Some(Box::new(now)) },
    })
}

fn difference(then: &Plan, now: &Plan) -> Option<String> {
    let pairs = then.decisions.iter().zip(&now.decisions);
    if let Some((then, now)) = pairs.into_iter().find(|(then, now)| then != now) {
        let told = |decision: &coredinator_core::coordination::Decision| {
            format!("{} {:?} × {}", decision.outcome.as_str(), decision.option_id, decision.fraction)
        };
        return Some(format!("{} got {}, and now {}", then.agent_id, told(then), told(now)));
    }
    (then != now).then(|| "what the plan says of itself is another".to_owned())
}
