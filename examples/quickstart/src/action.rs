//! What may be asked of the plant: parsed at its boundary, so that one which exists is within bounds.

use serde::Serialize;
use serde_json::Value;

use crate::plant::TANKS;

/// A bounded action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Sets a tank's steam, its outlet, or both.
    Tank {
        /// Which of [`TANKS`].
        index: usize,
        /// In t/h; `None` leaves it.
        steam: Option<f64>,
        /// How far the outlet is open, 0 to 1; `None` leaves it.
        valve: Option<f64>,
    },
    /// Sets the feed.
    Feed {
        /// In t/h.
        flow: f64,
    },
}

/// One thing that is wrong with an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where, as a JSON pointer.
    pub pointer: String,
    /// What.
    pub detail: String,
}

impl Action {
    /// What a tank's steam valve lets through, in t/h.
    pub const MAX_STEAM: f64 = 16.0;
    /// The least and the most feed, in t/h.
    pub const MIN_FLOW: f64 = 40.0;
    /// See [`Action::MIN_FLOW`].
    pub const MAX_FLOW: f64 = 200.0;

    /// Reads `{"unit": "tank-a", "steam": 12.5, "valve": 0.5}` (at least one of the two) or `{"unit": "feed",
    /// "flow": 120}`.
    ///
    /// # Errors
    /// All that is wrong with it, at once.
    pub fn parse(value: &Value) -> Result<Self, Vec<Fault>> {
        let Some(map) = value.as_object() else {
            return Err(vec![fault("", "must be an object with a unit")]);
        };
        let units = format!("one of {}, feed", TANKS.join(", "));
        let Some(unit) = map.get("unit").and_then(Value::as_str) else {
            return Err(vec![fault("/unit", &format!("must be given: {units}"))]);
        };
        let index = TANKS.iter().position(|name| *name == unit);
        let allowed: &[(&str, f64, f64)] = match (index, unit) {
            (Some(_), _) => &[("steam", 0.0, Self::MAX_STEAM), ("valve", 0.0, 1.0)],
            (None, "feed") => &[("flow", Self::MIN_FLOW, Self::MAX_FLOW)],
            _ => return Err(vec![fault("/unit", &format!("must be {units}"))]),
        };
        let mut faults = Vec::new();
        let mut found = [None; 2];
        for (key, value) in map.iter().filter(|(key, _)| *key != "unit") {
            let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            let Some(at) = allowed.iter().position(|(name, ..)| name == key) else {
                let names: Vec<&str> = allowed.iter().map(|(name, ..)| *name).collect();
                faults.push(fault(&pointer, &format!("is unknown; {unit} takes {}", names.join(", "))));
                continue;
            };
            let (_, min, max) = allowed[at];
            match value.as_f64() {
                Some(number) if (min..=max).contains(&number) => found[at] = Some(number),
                _ => faults.push(fault(&pointer, &format!("must be a number between {min} and {max}"))),
            }
        }
        if faults.is_empty() && found == [None; 2] {
            faults.push(fault("", "changes nothing"));
        }
        match (faults.is_empty(), index, found) {
            (true, Some(index), [steam, valve]) => Ok(Self::Tank { index, steam, valve }),
            (true, None, [Some(flow), _]) => Ok(Self::Feed { flow }),
            _ => Err(faults),
        }
    }
}

fn fault(pointer: &str, detail: &str) -> Fault {
    Fault { pointer: pointer.to_owned(), detail: detail.to_owned() }
}
