//! What can be set about going by priority.

use coredinator_core::{FieldError, field::FieldReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The higher priority first.
///
/// **Rule.** What is safe for everyone is set aside first: what an agent falls back to, or the most modest of its options
/// where it has nothing to fall back to, or that one of its options that takes no more of anything than that. Then class by
/// class of priority, the highest first: the agents of one class are resolved together, for the largest sum of weight times
/// utility, within what the higher classes have left; what a class took, and the value it gave to a variable, is out of
/// reach of the lower ones. An agent that is not `preemptible` and still offers the option that it holds is served with that
/// before all classes.
///
/// **Guarantee.** What a lower class wants never costs a higher one anything (of a variable, any value within what a claim allows
/// is the same to its agent, tolerance included: where all agree, everyone's wish can move within that); raising an agent's
/// priority never lowers what it gets. The second holds where no agent gives back, by getting an option, anything that it would have taken by not
/// getting it (so always where fallbacks take nothing), and where classes are resolved exactly, as small ones are.
///
/// **Cost.** A bounded search where a class has at most 512 agents; O(n log n) for n options where it is larger: greedily, by
/// what is gained for what it takes at prices of what is short. It always answers.
///
/// The order of classes is that of lexicographic goal programming (Charnes and Cooper 1961), and of the priority arrays by
/// which building controls command one point (ASHRAE 135, BACnet, clause 19).
///
/// The agents of one priority may flap from cycle to cycle when what they want is worth nearly the same; one of low priority
/// may never get anything. Against the first there is [`hysteresis`](Self::hysteresis), against the second
/// [`ageing`](Self::ageing); against being cut off from one cycle to the next, [`grace`](Self::grace).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PriorityBased {
    /// What becomes of lower classes when somebody of a higher one does not fit. Default: `skip`.
    pub when_it_does_not_fit: WhenItDoesNotFit,
    /// Raises those that are denied again and again. Default: nobody is raised.
    pub ageing: Option<Ageing>,
    /// By how much a challenger's worth must beat that of one of the same class that holds something, as a share of the
    /// holder's; 0 or more. Default: 0.
    pub hysteresis: f64,
    /// How many cycles one that has to give up what it holds for one of higher priority keeps it first; the other waits.
    /// Default: 0. At most 1,000.
    pub grace: u32,
}

/// What becomes of lower classes when somebody of a higher one does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenItDoesNotFit {
    /// They may use what it could not.
    #[default]
    Skip,
    /// They get nothing of the resources of which it could not get enough: what is saved up goes to it first.
    Block,
}

/// Raises those that are denied again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ageing {
    /// Each so many consecutive cycles in which an agent was denied raise its priority by one until it gets something;
    /// 1 to 1,000.
    pub cycles: u32,
    /// The most by which a priority is raised; 1 to 1,000. Default: 10.
    #[serde(default = "ten")]
    pub at_most: u32,
}

fn ten() -> u32 {
    10
}

pub(super) fn parse(pointer: &str, options: Value) -> Result<PriorityBased, Vec<FieldError>> {
    let mut reader = FieldReader::new(pointer, options);
    let rules = PriorityBased {
        when_it_does_not_fit: reader.or("when_it_does_not_fit", WhenItDoesNotFit::default()),
        ageing: reader.optional("ageing"),
        hysteresis: reader.or("hysteresis", 0.0),
        grace: reader.or("grace", 0),
    };
    if let Some(ageing) = rules.ageing {
        for (field, number) in [("cycles", ageing.cycles), ("at_most", ageing.at_most)] {
            if !(1..=1000).contains(&number) {
                reader.error("ageing", format!("{field} must be 1 to 1000, but is {number}"));
            }
        }
    }
    if !(0.0..=1e6).contains(&rules.hysteresis) {
        reader.error("hysteresis", format!("must be 0 to 1000000, but is {}", rules.hysteresis));
    }
    if rules.grace > 1000 {
        reader.error("grace", format!("must be 0 to 1000, but is {}", rules.grace));
    }
    reader.finish(|| rules)
}
