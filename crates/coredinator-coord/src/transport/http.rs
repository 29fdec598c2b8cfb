//! Agents over HTTP/1.1.

use std::{fmt, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use coredinator_core::coordination::{Agent, Intention};
use hyper::{
    Method, Request, Uri,
    body::{Body as _, Incoming},
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{AgentTransport, Ask, DecisionMessage, NegotiationAnswer, NegotiationRequest, TransportError};

/// Asks `GET {endpoint}/intention?cycle=&epoch=`, tells `POST {endpoint}/decision`, offers `POST {endpoint}/negotiate`.
///
/// Bodies are JSON. Connections are kept open between cycles; redirects are not followed and no proxy is used. Of an answer
/// at most [`MAX_ANSWER`](Self::MAX_ANSWER) bytes are read; a decision's answer may be empty and is not looked into. The
/// `agent_id` of an intention may be left out; where it is given, it is the agent's.
#[derive(Clone)]
pub struct HttpTransport {
    client: Client<HttpConnector, HttpBody>,
}

/// What is sent.
type HttpBody = once::OnceBody;

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").finish_non_exhaustive()
    }
}

impl Default for HttpTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpTransport {
    /// The longest answer that is read, in bytes.
    pub const MAX_ANSWER: usize = 1 << 20;
    /// How long an idle connection is kept.
    const IDLE: Duration = Duration::from_secs(90);
    /// How many idle connections are kept to one address: many agents may live behind one.
    const IDLE_PER_HOST: usize = 512;

    /// A transport without connections yet.
    #[must_use]
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Self::IDLE)
            .pool_max_idle_per_host(Self::IDLE_PER_HOST)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client }
    }

    async fn exchange(
        &self,
        method: Method,
        agent: &Agent,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes, TransportError> {
        let endpoint = agent.endpoint.as_deref().ok_or_else(|| unreachable("it has no endpoint"))?;
        let uri: Uri = format!("{}{path}", endpoint.trim_end_matches('/')).parse().map_err(unreachable)?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(USER_AGENT, concat!("coredinator/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(HttpBody::new(body)).map_err(unreachable)?;
        let response = self.client.request(request).await.map_err(|error| unreachable(chain(&error)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(TransportError::Status(status.as_u16()));
        }
        read(response.into_body(), Self::MAX_ANSWER).await
    }
}

#[async_trait]
impl AgentTransport for HttpTransport {
    async fn intention(&self, agent: &Agent, ask: &Ask) -> Result<Intention, TransportError> {
        let path = format!("/intention?cycle={}&epoch={}", ask.cycle, ask.epoch);
        let mut answer: Value = parse(&self.exchange(Method::GET, agent, &path, None).await?)?;
        name(&mut answer, agent);
        let intention: Intention = understood(serde_json::from_value(answer))?;
        if intention.agent_id != agent.agent_id {
            return Err(TransportError::Garbage(format!("this is the intention of {}", intention.agent_id)));
        }
        Ok(intention)
    }

    async fn decision(&self, agent: &Agent, message: &DecisionMessage) -> Result<(), TransportError> {
        self.exchange(Method::POST, agent, "/decision", Some(write(message)?)).await.map(drop)
    }

    async fn negotiate(
        &self,
        agent: &Agent,
        request: &NegotiationRequest,
    ) -> Result<NegotiationAnswer, TransportError> {
        let mut answer: Value = parse(&self.exchange(Method::POST, agent, "/negotiate", Some(write(request)?)).await?)?;
        if let Some(intention) = answer.get_mut("intention") {
            name(intention, agent);
        }
        understood(serde_json::from_value(answer))
    }
}

/// What is wrong with an endpoint, if anything is.
pub(crate) fn wrong_endpoint(endpoint: &str) -> Option<String> {
    let told = |what: &str| Some(format!("must be http://host:port/path, but {what}"));
    match endpoint.parse::<Uri>() {
        Err(error) => told(&format!("it cannot be read: {error}")),
        Ok(uri) if uri.scheme_str() != Some("http") => told("its scheme is not http"),
        Ok(uri) if uri.host().is_none_or(str::is_empty) => told("it names no host"),
        Ok(uri) if uri.query().is_some() => told("it has a query"),
        Ok(_) => None,
    }
}

fn unreachable(detail: impl fmt::Display) -> TransportError {
    TransportError::Unreachable(detail.to_string())
}

fn write(message: &impl Serialize) -> Result<Bytes, TransportError> {
    serde_json::to_vec(message).map(Bytes::from).map_err(|error| TransportError::Garbage(error.to_string()))
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, TransportError> {
    understood(serde_json::from_slice(text))
}

fn understood<T>(read: serde_json::Result<T>) -> Result<T, TransportError> {
    // Names that an agent made up may be long.
    read.map_err(|error| TransportError::Garbage(error.to_string().chars().take(256).collect()))
}

/// Whose an intention is goes without saying where an agent answers for itself.
fn name(intention: &mut Value, agent: &Agent) {
    if let Value::Object(fields) = intention {
        fields.entry("agent_id").or_insert_with(|| Value::from(agent.agent_id.as_str()));
    }
}

/// Reads a body to its end, but no more than `limit` bytes.
async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, TransportError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(TransportError::TooLarge { limit });
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| unreachable(chain(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(TransportError::TooLarge { limit });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// An error with what lies behind it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

mod once {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use hyper::body::{Body, Frame, SizeHint};

    /// A body that is there as a whole, or none.
    #[derive(Debug)]
    pub(super) struct OnceBody(Option<Bytes>);

    impl OnceBody {
        pub(super) fn new(body: Option<Bytes>) -> Self {
            Self(body.filter(|bytes| !bytes.is_empty()))
        }
    }

    impl Body for OnceBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_none()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
        }
    }
}
