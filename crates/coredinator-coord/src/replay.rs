//! A cycle again, from its record.

use std::{sync::Arc, time::Duration};

use coredinator_core::coordination::{Plan, PlanStatus, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
/// How many characters of a value are told.
const SHOWN: usize = 80;

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

/// What is different, the first decision of which anything is before what is said of the plan.
fn difference(then: &Plan, now: &Plan) -> Option<String> {
    if then == now {
        return None;
    }
    let pairs = then.decisions.iter().zip(&now.decisions);
    if let Some((then, now)) = pairs.into_iter().find(|(then, now)| then != now) {
        return Some(format!("{}: {}", then.agent_id, fields(then, now)));
    }
    let (then_for, now_for) = (then.decisions.len(), now.decisions.len());
    if then_for != now_for {
        return Some(format!("decisions for {then_for} agents, and now for {now_for}"));
    }
    Some(fields(then, now))
}

/// The fields in which two of a kind differ, with what they say.
fn fields(then: &impl Serialize, now: &impl Serialize) -> String {
    let fields = |of: Value| if let Value::Object(fields) = of { fields } else { Map::new() };
    let mut then = fields(serde_json::to_value(then).unwrap_or_default());
    let now = fields(serde_json::to_value(now).unwrap_or_default());
    let told = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(value) => {
            let text = value.to_string();
            if text.chars().count() > SHOWN { text.chars().take(SHOWN).chain(['…']).collect() } else { text }
        }
    };
    let mut different = Vec::new();
    for (key, value) in &now {
        let before = then.remove(key);
        if before.as_ref() != Some(value) {
            different.push(format!("{key} {}, and now {}", told(before.as_ref()), told(Some(value))));
        }
    }
    different.extend(then.iter().map(|(key, value)| format!("{key} {}, and now nothing", told(Some(value)))));
    different.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_said() {
        let plan = |change: &dyn Fn(&mut Value)| -> Plan {
            let mut plan = json!({"group": "g", "cycle": 1, "epoch": 1, "strategy": "x", "status": "feasible", "conflicts": [], "values": {},
                "utilization": {}, "objective": 3.0, "bound": 3.0, "gap": 0.0, "rounds": 0, "converged": true, "elapsed_ms": 1.0,
                "verified": true, "decisions": [{"agent_id": "a", "outcome": "defaulted", "option_id": null, "fraction": 0.0,
                "values": {}, "grant": {}, "action": null, "utility": 0.0, "reason": {"code": "silent", "text": "it is silent"}}]});
            change(&mut plan);
            serde_json::from_value(plan).unwrap()
        };
        let then = plan(&|_| ());
        assert_eq!(difference(&then, &then), None);
        let decision = |key: &'static str, value: Value| plan(&move |plan| plan["decisions"][0][key] = value.clone());
        let told = |now: &Plan| difference(&then, now).unwrap();
        assert_eq!(told(&decision("utility", json!(2.0))), "a: utility 0.0, and now 2.0");
        assert_eq!(told(&decision("option_id", json!("run"))), "a: option_id nothing, and now \"run\"");
        assert!(told(&decision("action", json!("x".repeat(1000)))).chars().count() < 200);
        assert_eq!(told(&plan(&|plan| plan["objective"] = json!(2.5))), "objective 3.0, and now 2.5");
        assert_eq!(told(&plan(&|plan| plan["decisions"] = json!([]))), "decisions for 1 agents, and now for 0");
        let priced = told(&plan(&|plan| plan["prices"] = json!({"steam": 1.0})));
        assert_eq!(priced, "prices nothing, and now {\"steam\":1.0}");
    }
}
