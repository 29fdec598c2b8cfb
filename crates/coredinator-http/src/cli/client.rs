//! Talking to a coredinator.

use std::time::Duration;

use coredinator_core::FieldError;
use reqwest::{
    Method, Response,
    header::{self, HeaderMap},
};
use serde_json::Value;

use super::{ExitStatus, Failure};

/// How long an answer may take where nobody says.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks one coredinator.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    timeout: Duration,
}

impl Client {
    /// For the coredinator at `address`: `http://host:port`, or `host:port`.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(address: &str, timeout: Duration) -> Result<Self, Failure> {
        let base = base_url(address)?;
        // A service on this machine is not reached by way of a proxy.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(timeout.min(Duration::from_secs(5))).build();
        let http = http.map_err(|error| Failure::caused(ExitStatus::Failed, "cannot set up an HTTP client", &error))?;
        Ok(Self { http, base, timeout })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.base
    }

    /// How long an answer may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether a coredinator answers there.
    pub async fn answers(&self) -> bool {
        let request = self.http.get(format!("{}/livez", self.base)).timeout(Duration::from_secs(2));
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// Asks for what stands beside the API, such as `/health`.
    ///
    /// # Errors
    /// Whatever is no success.
    pub async fn send_root(&self, method: Method, path: &str) -> Result<Value, Failure> {
        self.exchange(method, format!("{}{path}", self.base), None).await.map(|(_, value)| value)
    }

    /// Asks and answers with the body, `null` if there is none.
    ///
    /// # Errors
    /// Whatever is no success.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await.map(|(_, value)| value)
    }

    /// Asks with a body, and answers with the answer's headers and body.
    ///
    /// # Errors
    /// Whatever is no success.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(HeaderMap, Value), Failure> {
        self.exchange(method, self.url(path), body).await
    }

    /// The same, on the condition that what is changed is still what `tag` is of.
    ///
    /// # Errors
    /// Whatever is no success; [`ExitStatus::Conflict`] where it is another by now.
    pub async fn send_if(
        &self,
        method: Method,
        path: &str,
        tag: &str,
        body: Option<&Value>,
    ) -> Result<(HeaderMap, Value), Failure> {
        self.exchange_if(method, self.url(path), Some(tag), body).await
    }

    async fn exchange(&self, method: Method, url: String, body: Option<&Value>) -> Result<(HeaderMap, Value), Failure> {
        self.exchange_if(method, url, None, body).await
    }

    async fn exchange_if(
        &self,
        method: Method,
        url: String,
        tag: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(HeaderMap, Value), Failure> {
        let mut request =
            self.http.request(method, url).header(header::ACCEPT, "application/json").timeout(self.timeout);
        if let Some(tag) = tag {
            request = request.header(header::IF_MATCH, tag);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.failure(error))?;
        let mut response = self.success(response).await?;
        let headers = std::mem::take(response.headers_mut());
        let body = response.bytes().await.map_err(|error| self.failure(error))?;
        if body.is_empty() {
            return Ok((headers, Value::Null));
        }
        serde_json::from_slice(&body).map(|value| (headers, value)).map_err(|error| {
            let message = format!("{} does not answer in JSON", self.base);
            Failure::caused(ExitStatus::Failed, message, &error).hint("is that address a coredinator's?")
        })
    }

    /// Opens a stream of server-sent events (or of whatever the server sends for it); no time limit once it is open.
    ///
    /// # Errors
    /// Whatever is no success.
    pub async fn stream(&self, path: &str, last_event: Option<&str>) -> Result<Response, Failure> {
        let mut request = self.http.get(self.url(path)).header(header::ACCEPT, "text/event-stream");
        if let Some(id) = last_event {
            request = request.header("last-event-id", id);
        }
        let response = tokio::time::timeout(self.timeout, request.send()).await;
        let response = response.map_err(|_| self.too_slow())?.map_err(|error| self.failure(error))?;
        self.success(response).await
    }

    /// The next piece of a stream; `None` at its end.
    ///
    /// # Errors
    /// A connection that broke.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Failure> {
        response.chunk().await.map_err(|error| self.failure(error))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/coredinator{path}", self.base)
    }

    async fn success(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = tokio::time::timeout(self.timeout, response.bytes()).await;
        let body = body.map_err(|_| self.too_slow())?.unwrap_or_default();
        Err(refusal(status.as_u16(), &body))
    }

    fn too_slow(&self) -> Failure {
        let message = format!("{} did not answer within {}", self.base, super::human::span(self.timeout));
        Failure::new(ExitStatus::Timeout, message).hint("allow it more by --timeout")
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            return self.too_slow();
        }
        let broke = error.is_body() || error.is_decode();
        // The address is in our own words already.
        let error = error.without_url();
        if broke {
            return Failure::caused(ExitStatus::Unreachable, format!("{} broke off its answer", self.base), &error);
        }
        Failure::caused(ExitStatus::Unreachable, format!("no coredinator answers at {}", self.base), &error)
            .hint("start one by \"coredinator serve\", or name another by --address or COREDINATOR_ADDR")
    }
}

/// The start of every URL.
fn base_url(address: &str) -> Result<String, Failure> {
    let invalid = |why: &str| Failure::new(ExitStatus::Usage, format!("the address {address:?} {why}"));
    let address = address.trim();
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let parsed = reqwest::Url::parse(&url)
        .map_err(|_| invalid("cannot be read").hint("write it as host:port or http://host:port"))?;
    match parsed.scheme() {
        "http" if parsed.has_host() => Ok(url.trim_end_matches('/').to_owned()),
        "https" => Err(invalid("asks for TLS, which is not spoken here").hint("use http://")),
        _ => Err(invalid("cannot be read").hint("write it as host:port or http://host:port")),
    }
}

/// What a server's refusal means, with everything it says.
fn refusal(status: u16, body: &[u8]) -> Failure {
    let exit = ExitStatus::from_http(status);
    let Ok(Value::Object(problem)) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let first = super::human::cut(text.lines().next().unwrap_or_default().trim(), 200);
        let failure = Failure::new(exit, format!("the server answered with HTTP {status}"));
        return if first.is_empty() { failure } else { Failure { details: vec![first], ..failure } };
    };
    let field = |key: &str| problem.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let message = field("detail").or_else(|| field("title")).map_or_else(|| format!("HTTP {status}"), str::to_owned);
    let mut failure = Failure::new(exit, message);
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        match serde_json::from_value::<FieldError>(error.clone()) {
            Ok(error) => failure.details.push(error.to_string()),
            Err(_) => failure.details.push(error.to_string()),
        }
    }
    if problem.get("retryable").and_then(Value::as_bool) == Some(true) {
        failure = failure.hint("this may pass: try again");
    }
    if let Some(id) = field("request_id").filter(|_| status >= 500) {
        failure = failure.hint(format!("the server's log tells more about request {id}"));
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, wanted) in [
            ("http://127.0.0.1:8002", "http://127.0.0.1:8002"),
            ("localhost:8002", "http://localhost:8002"),
            ("http://h:1/", "http://h:1"),
            ("[::1]:8002", "http://[::1]:8002"),
            ("http://h/prefix", "http://h/prefix"),
        ] {
            assert_eq!(base_url(address).as_deref(), Ok(wanted));
        }
        for bad in ["", "https://h", "ftp://h", "http://", "a b", "h:99999"] {
            assert_eq!(base_url(bad).unwrap_err().exit, ExitStatus::Usage, "{bad}");
        }
    }

    #[test]
    fn every_field_error_of_a_problem_is_told() {
        let body = br#"{"title":"Unprocessable","detail":"the service is not valid","status":422,"code":"Invalid","errors":[{"pointer":"/prot","detail":"unknown field \"prot\"","hint":"did you mean \"port\"?"},{"pointer":"","detail":"x"},7]}"#;
        let failure = refusal(422, body);
        assert_eq!(failure.exit, ExitStatus::Usage);
        assert_eq!(
            failure.text(),
            "error: the service is not valid\n  /prot: unknown field \"prot\" (did you mean \"port\"?)\n  /: x\n  7\n"
        );
        let failure = refusal(503, br#"{"title":"Not ready","retryable":true,"request_id":"r1"}"#);
        assert_eq!(
            failure.text(),
            "error: Not ready\nhint: this may pass: try again\nhint: the server's log tells more about request r1\n"
        );
        assert_eq!(refusal(502, b"<html>bad\n").text(), "error: the server answered with HTTP 502\n  <html>bad\n");
        assert_eq!(refusal(500, b"").text(), "error: the server answered with HTTP 500\n");
    }
}
