//! All cases, for all seeds.

use coredinator_coord::Strategies;
use serde_json::json;

use crate::{
    coordinator::{Coordinator, StudyError},
    run::{Sharing, run},
    table::Case,
};

/// What the case is called in which nothing is coordinated.
pub const ALONE: &str = "without coordination";
/// What the case is called in which each has a part of the boiler for good.
pub const FIXED: &str = "fixed shares";

/// Runs the plant without coordination, with fixed shares, with each strategy of these that needs no options, and with those
/// whose options change what they decide, for the seeds from 1.
///
/// # Errors
/// As [`run`].
pub fn study(strategies: &Strategies, seeds: u64, hours: f64) -> Result<Vec<Case>, StudyError> {
    let case = |name: &str, sharing: Sharing<'_>| -> Result<Case, StudyError> {
        let runs = (1..=seeds).map(|seed| run(sharing, seed, hours)).collect::<Result<_, _>>()?;
        Ok(Case { name: name.to_owned(), coordinated: matches!(sharing, Sharing::By(_)), runs })
    };
    let mut cases = vec![case(ALONE, Sharing::None)?, case(FIXED, Sharing::Fixed)?];
    let plain = strategies.names().map(|name| (format!("`{name}`"), json!(name)));
    let varied = ["vcg"].map(|solution| {
        (format!("`game_theoretic`, `{solution}`"), json!({ "game_theoretic": { "solution": solution } }))
    });
    let mut choices: Vec<_> = plain.chain(varied).collect();
    choices.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, choice) in choices {
        if let Ok(strategy) = strategies.make("", &choice) {
            cases.push(case(&name, Sharing::By(&Coordinator::new(strategy)?))?);
        }
    }
    Ok(cases)
}
