//! A controller as an agent of coredinator: it registers itself, says before every cycle what it wants, and hears what was
//! decided. What it does with that is for [`Mandate`](crate::mandate::Mandate) to say.

use std::{io, time::Duration};

use clap::Args;
use coredinator_core::{
    ServiceName,
    coordination::{Agent, AgentId},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{action::Action, controller::Shared, coreio::bounded, link::root_cause, mandate::Told, serve::say};

/// How long coredinator may take for granted that it does what it was told.
pub const TTL: Duration = Duration::from_secs(5);
/// How long a decision is waited for. Some cycles, and less than [`TTL`].
const WAIT: Duration = Duration::from_secs(3);
/// For the answer to come on top of that.
const LEEWAY: Duration = Duration::from_secs(1);
/// Between two attempts when coredinator is away, or there is nothing to say.
const RETRY: Duration = Duration::from_millis(500);

/// How a controller shares the plant with the others.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// The coredinator that coordinates it; without one it takes what it likes
    #[arg(long, env = "COREDINATOR_URL")]
    pub coredinator: Option<Url>,
    /// The service that it is; coredinator tells its own
    #[arg(long, env = "COREDINATOR_SERVICE")]
    pub service: Option<ServiceName>,
    /// The steam that it takes while nobody tells it anything, in t/h
    #[arg(long, default_value_t = 4.0, value_parser = steam)]
    pub safe_steam: f64,
    /// More feed than this brings it nothing, in t/h
    #[arg(long, default_value_t = 130.0, value_parser = feed)]
    pub paid_up_to: f64,
    /// The feed's valve is its own: it sets the feed that is decided on
    #[arg(long)]
    pub sets_feed: bool,
}

fn steam(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, Action::MAX_STEAM)
}

fn feed(text: &str) -> Result<f64, String> {
    bounded(text, Action::MIN_FLOW, Action::MAX_FLOW)
}

/// What went wrong between the agent and coredinator. All of it is worth another try.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It did not answer, or not with what was asked for.
    #[error("coredinator does not answer: {}", root_cause(.0))]
    Http(#[from] reqwest::Error),
    /// It does not know the agent, or knows something newer of it.
    #[error("coredinator does not know this agent")]
    Unknown,
    /// It refused what the agent said.
    #[error("coredinator refused with {0}: {1}")]
    Refused(StatusCode, String),
}

/// The way to coredinator.
pub struct AgentLink {
    client: Client,
    register: Url,
    intention: Url,
    agent: Agent,
}

impl AgentLink {
    /// To this coredinator, for this agent.
    ///
    /// # Errors
    /// The address cannot be used, or the operating system has no more for a client.
    pub fn new(coredinator: &Url, agent: Agent) -> io::Result<Self> {
        let join = |path: &str| {
            coredinator
                .join(path)
                .map_err(|error| io::Error::other(format!("cannot use {coredinator} as coredinator: {error}")))
        };
        let mut intention = join(&format!("api/coredinator/agents/{}/intention", agent.agent_id))?;
        intention.query_pairs_mut().append_pair("wait", &format!("{}s", WAIT.as_secs()));
        Ok(Self {
            client: Client::builder().timeout(WAIT + LEEWAY).build().map_err(io::Error::other)?,
            register: join("api/coredinator/agents/register")?,
            intention,
            agent,
        })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.agent.agent_id
    }

    async fn register(&self) -> Result<(), AgentError> {
        answer(self.client.post(self.register.clone()).json(&self.agent)).await.map(drop)
    }

    /// Says what it wants; the decision of the next cycle, if it is made in time.
    async fn intend(&self, intention: &Value) -> Result<Option<Told>, AgentError> {
        let answer = answer(self.client.post(self.intention.clone()).json(intention)).await?;
        if answer.status() == StatusCode::OK { Ok(Some(answer.json().await?)) } else { Ok(None) }
    }
}

async fn answer(request: RequestBuilder) -> Result<Response, AgentError> {
    let answer = request.send().await?;
    match answer.status() {
        StatusCode::NOT_FOUND => Err(AgentError::Unknown),
        status if status.is_success() => Ok(answer),
        status => Err(AgentError::Refused(status, answer.text().await?)),
    }
}

/// Takes part in every cycle until it is asked to stop; whatever fails is tried again.
pub async fn take_part(shared: Shared, link: AgentLink, mut stopped: watch::Receiver<bool>) {
    let (mut registered, mut away, mut seq) = (false, false, 0);
    loop {
        let cycle = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            cycle = cycle(&shared, &link, registered, &mut seq) => cycle,
        };
        let pause = match cycle {
            Ok(said) => {
                if !registered {
                    say(format_args!("takes part in coordination as {}", link.id()));
                }
                (registered, away) = (true, false);
                !said
            }
            Err(error) => {
                // Whoever refuses once may have lost or outlived what it knew: it hears the whole story again.
                registered = false;
                if !std::mem::replace(&mut away, true) {
                    say(format_args!("warning: {error}; goes on alone, trying on"));
                }
                true
            }
        };
        if pause {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = sleep(RETRY) => {}
            }
        }
    }
}

/// One cycle. `false`: there was nothing to say.
async fn cycle(shared: &Shared, link: &AgentLink, registered: bool, seq: &mut u64) -> Result<bool, AgentError> {
    if !registered {
        link.register().await?;
    }
    // One that does not see its plant wants nothing: silent, it falls to the safe side on both ends.
    let Some(intention) = shared.intend(link.id().clone(), *seq) else { return Ok(false) };
    *seq += 1;
    let sent = Instant::now();
    let told = link.intend(&serde_json::json!(intention)).await?;
    shared.hear(told, sent);
    Ok(true)
}
