//! By a program of one's own, over HTTP.

mod answer;
mod request;

use std::{error::Error, fmt, time::Duration};

use answer::Answer;
use async_trait::async_trait;
use bytes::Bytes;
use coredinator_core::{
    FieldError,
    coordination::{
        Budget, CoordinationStrategy, Needs, Negotiator, Pick, Presence, Problem, Resolution, StrategyError,
    },
    duration::Seconds,
    field::{FieldReader, kind},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Body as _,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::PriorityBased;

/// Whatever a program behind a URL decides: a strategy without compiling anything.
///
/// **Rule.** Where nothing conflicts everyone gets the first choice, and nobody is asked. Else the problem is sent by `POST`,
/// as JSON:
///
/// ```json
/// {"problem": {"group": "…", "cycle": 7, "budget": {}, "seed": 0, "resources": [], "variables": [], "agents": [],
///              "intentions": [], "holdings": [], "history": []},
///  "conflicts": [],
///  "available": {"steam": 18.0},
///  "active": ["a", "b"],
///  "safe": {"a": {"option_id": "safe", "grant": {"steam": 9.0}}}}
/// ```
///
/// `problem` is the document that decides the cycle; `available` what there is to hand out (capacity less reserve less what
/// silent agents hold); `active` are those about whom something is to be decided; `safe` is what everyone has who is not
/// named in the answer, and fits as a whole. The answer has status 200 and is:
///
/// ```json
/// {"decisions": [{"agent_id": "a", "option_id": "high", "fraction": 0.8, "reason": "for people"}],
///  "values": {"feed": 120.0}, "prices": {"steam": 0.4}, "payments": {"a": 2.0},
///  "bound": 17.5, "rounds": 3, "converged": true, "optimal": false}
/// ```
///
/// Only `decisions` must be there. A decision without `option_id`, or with `null`, leaves the agent with what is safe for it;
/// `fraction` is 1 unless it is told. Agents that are not active, options that were not offered, an agent twice, unknown keys,
/// and everything else that is not of this form is an error, and the cycle is decided by `priority_based`, as it is when the
/// plan does not hold: it is verified as every other.
///
/// **Guarantee.** What verification gives, and nothing else. Redirects are not followed, no proxy is used, and no more than
/// [`MAX_ANSWER`](Self::MAX_ANSWER) bytes are read. The program should answer the same to the same problem.
///
/// **Cost.** One exchange a cycle that has conflicts.
///
/// Options: `url`, `http://host[:port][/path]`; `timeout` (default 2 s; the cycle's deadline ends the waiting, too);
/// `history`, how many earlier cycles are sent (default 0). Given a text instead, that is the URL.
#[derive(Clone)]
pub struct Http {
    url: Uri,
    timeout: Duration,
    needs: Needs,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("url", &self.shown()).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// How often it is looked whether time is up.
const WATCH: Duration = Duration::from_millis(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

impl Http {
    /// Its name.
    pub const NAME: &str = "http";
    /// The longest answer that is read, in bytes: 16 MiB.
    pub const MAX_ANSWER: usize = 16 << 20;

    /// Reads its options, or the URL alone.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(pointer: &str, options: Value) -> Result<Self, Vec<FieldError>> {
        if let Value::String(text) = &options {
            return Ok(Self::new(url(pointer, text)?, DEFAULT_TIMEOUT, 0));
        }
        let mut reader = FieldReader::new(pointer, options);
        let given = reader.parsed("url", |pointer, value| match value {
            Value::String(text) => url(pointer, &text),
            other => Err(vec![FieldError::new(pointer, format!("expected a text, but found {}", kind(&other)))]),
        });
        let timeout = reader.or("timeout", Seconds(DEFAULT_TIMEOUT)).0;
        if timeout.is_zero() {
            reader.error("timeout", "must be above 0");
        }
        let history = reader.or("history", 0);
        if history > Needs::MAX_HISTORY {
            reader.error("history", format!("must be at most {}, but is {history}", Needs::MAX_HISTORY));
        }
        if given.is_none() && reader.is_clean() {
            reader.error("url", "must be given: where the strategy answers");
        }
        let made = given.map(|url| Self::new(url, timeout, history));
        reader.finish(|| made)?.ok_or_else(Vec::new)
    }

    fn new(url: Uri, timeout: Duration, history: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { url, timeout, needs: Needs { history }, client }
    }

    /// The URL without what may be secret in it.
    fn shown(&self) -> String {
        let port = self.url.port().map_or(String::new(), |port| format!(":{port}"));
        format!("http://{}{port}{}", self.url.host().unwrap_or_default(), self.url.path())
    }

    async fn ask(&self, problem: &Problem, budget: &Budget) -> Result<Resolution, StrategyError> {
        let failed = |what: &str| StrategyError::new(format!("{} {what}", self.shown()));
        let body = serde_json::to_vec(&request::of(problem)).map_err(|error| failed(&error.to_string()))?;
        let request = Request::post(self.url.clone())
            .header(USER_AGENT, concat!("coredinator/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::from(body))
            .map_err(|error| failed(&format!("cannot be asked: {error}")))?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| failed(&format!("does not answer: {}", root(&error))))?;
        if response.status() != StatusCode::OK {
            return Err(failed(&format!("answers with status {}, not 200", response.status().as_u16())));
        }
        let too_long = || failed(&format!("answers with more than {} bytes", Self::MAX_ANSWER));
        if response.body().size_hint().lower() > Self::MAX_ANSWER as u64 {
            return Err(too_long());
        }
        let body = Limited::new(response.into_body(), Self::MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { too_long() } else { failed(&format!("breaks off: {}", root(&*error))) }
        })?;
        let answer: Answer = serde_json::from_slice(&body.to_bytes()).map_err(|error| {
            // What it wrote may be quoted in the error, and may be long.
            let text: String = error.to_string().chars().take(256).collect();
            failed(&format!("answers with what is no answer: {text}"))
        })?;
        let resolution =
            answer.resolution(problem).map_err(|wrong| failed(&format!("decides what cannot be: {wrong}")))?;
        if let Some((bound, known)) = refuted(problem, &resolution, budget) {
            return Err(failed(&format!("says that no plan is worth more than {bound}, but one is worth {known}")));
        }
        Ok(resolution)
    }
}

#[async_trait]
impl CoordinationStrategy for Http {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn needs(&self) -> Needs {
        self.needs
    }

    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        _: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError> {
        if let Some(easy) = Resolution::first_choices(problem) {
            return Ok(easy);
        }
        let over = async {
            let mut watch = interval(WATCH);
            watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !budget.is_over() {
                watch.tick().await;
            }
        };
        let silent = |why: &str| Err(StrategyError::new(format!("{} has not answered {why}", self.shown())));
        tokio::select! {
            biased;
            () = over => silent("when time was up"),
            asked = timeout(self.timeout, self.ask(problem, budget)) => {
                asked.unwrap_or_else(|_| silent(&format!("within {:?}", self.timeout)))
            }
        }
    }
}

/// A bound that is claimed, and what a plan that is easily found is worth, if that is more.
fn refuted(problem: &Problem, claimed: &Resolution, budget: &Budget) -> Option<(f64, f64)> {
    let bound = claimed.bound.filter(|bound| bound.is_finite())?;
    let known = PriorityBased::default().decide(problem, budget);
    // Who is shed makes room that there is not.
    let serves_all = problem.parties().iter().zip(&known.picks).all(|(party, pick)| {
        *pick != Pick::Nothing || party.presence == Presence::Absent && party.fallback().is_none()
    });
    let worth = known.objective(problem);
    (serves_all && worth > bound + 1e-9 * worth.abs().max(bound.abs())).then_some((bound, worth))
}

/// Reads a URL that can be asked.
fn url(pointer: &str, text: &str) -> Result<Uri, Vec<FieldError>> {
    let wrong = |detail: String| vec![FieldError::new(pointer, detail)];
    let uri: Uri = text.parse().map_err(|error| wrong(format!("is no URL: {error}")))?;
    let http = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    if http { Ok(uri) } else { Err(wrong("must be http://host[:port][/path]".to_owned())) }
}

/// The innermost error says what is wrong.
fn root<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost
}
