//! The way from a controller to the plant.

use std::{collections::BTreeMap, io, time::Duration};

use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{controller::Orders, coreio::Tag, learner::Observation, wish::Outlook};

const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What went wrong between the controller and the plant. All of it is worth another try.
#[derive(Debug, thiserror::Error)]
pub enum PlantError {
    /// It did not answer, or not with what was asked for.
    #[error("the plant does not answer: {}", root_cause(.0))]
    Http(#[from] reqwest::Error),
    /// A tag is missing.
    #[error("the plant does not tell {0}")]
    Missing(String),
}

/// The innermost error says what is wrong; those around it repeat the address.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[derive(Deserialize)]
struct PlantState {
    simulated_seconds: f64,
    tags: BTreeMap<String, Tag<String>>,
}

impl PlantState {
    fn look(&self, unit: &str) -> Result<Outlook, PlantError> {
        let tag = |name: String| self.tags.get(&name).map(|tag| tag.value).ok_or(PlantError::Missing(name));
        let own = |name: &str| tag(format!("{unit}.{name}"));
        let tank = Observation {
            time_s: self.simulated_seconds,
            temperature: own("temperature")?,
            inlet_temperature: own("inlet_temperature")?,
            steam: own("steam")?,
        };
        let share = tag("boiler.pressure".to_owned())? / tag("boiler.nominal_pressure".to_owned())?;
        let delivered = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        Ok(Outlook { tank, inflow: own("inflow")?, feed: tag("feed.setpoint".to_owned())?, delivered })
    }
}

/// The way to the plant.
#[derive(Debug)]
pub struct Link {
    client: Client,
    state: Url,
    actions: Url,
}

impl Link {
    /// To the plant at this address.
    ///
    /// # Errors
    /// The address cannot be used, or the operating system has no more for a client.
    pub fn new(plant: &Url) -> io::Result<Self> {
        let client = Client::builder().timeout(ASK_TIMEOUT).build().map_err(io::Error::other)?;
        Ok(Self { client, state: join(plant, "api/coreio/state")?, actions: join(plant, "api/coreio/actions")? })
    }

    /// What is to be seen from a unit. The share of the steam that is delivered is that of this moment.
    ///
    /// # Errors
    /// The plant does not answer, or does not tell all of it.
    pub async fn look(&self, unit: &str) -> Result<Outlook, PlantError> {
        let answer = self.client.get(self.state.clone()).send().await?.error_for_status()?;
        answer.json::<PlantState>().await?.look(unit)
    }

    /// Has the plant do it.
    ///
    /// # Errors
    /// The plant does not answer, or refuses.
    pub async fn act(&self, unit: &str, orders: Orders) -> Result<(), PlantError> {
        self.send(json!({ "unit": unit, "steam": orders.steam })).await?;
        match orders.feed {
            Some(flow) => self.send(json!({ "unit": "feed", "flow": flow })).await,
            None => Ok(()),
        }
    }

    async fn send(&self, action: Value) -> Result<(), PlantError> {
        self.client.post(self.actions.clone()).json(&action).send().await?.error_for_status()?;
        Ok(())
    }
}

fn join(base: &Url, path: &str) -> io::Result<Url> {
    base.join(path).map_err(|error| io::Error::other(format!("cannot use {base} as the plant: {error}")))
}
