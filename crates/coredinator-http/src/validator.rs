//! A program of one's own that judges the configuration documents of services, over HTTP.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use coredinator_core::{
    ConfigCandidate, ConfigValidator, ConfigValidatorError, ConfigVerdict, FieldError, config::fill_secrets,
};
use coredinator_registry::ConfigValidation;
use coredinator_supervisor::read_secret;
use reqwest::{
    Client, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{ValidatorConfig, redact};

/// Whatever a program behind a URL says of a document.
///
/// Each document is sent by `POST`, as JSON:
///
/// ```json
/// {"service": "corerl", "replica": null, "document": {"learning_rate": 0.001}}
/// ```
///
/// `document` is the whole of what an instance would get, its layers merged; `replica` a number where something is laid over the
/// service's document for that replica alone. **Secrets are not sent**: references to them (`{"secret_file": …}`,
/// `{"secret_env": …}`) stay references, and texts under keys that speak of secrets (`password`, `api_token`, …) are `***`.
/// The answer has status 200 and is:
///
/// ```json
/// {"valid": false,
///  "errors": [{"pointer": "/learning_rate", "message": "must be below 0.1", "hint": "0.001 does for most plants"}],
///  "warnings": []}
/// ```
///
/// Only `valid` must be there, and of an error or warning only `message`; keys that are not known are passed over. Pointers are
/// into the document. A document that has errors is not valid, whatever `valid` says.
///
/// Everything else (another status, a redirect, more than [`MAX_ANSWER`](Self::MAX_ANSWER) bytes, what is not of this form, no
/// answer in time) says nothing about the document: it could not be judged. No proxy is used.
#[derive(Clone)]
pub struct HttpValidator {
    url: String,
    headers: Map<String, Value>,
    client: Client,
}

impl fmt::Debug for HttpValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpValidator").field("url", &self.url).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Question<'a> {
    service: &'a str,
    replica: Option<u32>,
    document: &'a Value,
}

#[derive(Deserialize)]
struct Answer {
    valid: bool,
    #[serde(default)]
    errors: Vec<Said>,
    #[serde(default)]
    warnings: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    pointer: String,
    message: String,
    hint: Option<String>,
}

impl From<Said> for FieldError {
    fn from(said: Said) -> Self {
        Self { pointer: said.pointer, detail: said.message, hint: said.hint }
    }
}

impl Answer {
    fn verdict(self) -> ConfigVerdict {
        let told = |list: Vec<Said>| list.into_iter().map(FieldError::from).collect::<Vec<_>>();
        let mut verdict = ConfigVerdict { errors: told(self.errors), warnings: told(self.warnings) };
        if !self.valid && verdict.errors.is_empty() {
            verdict.errors.push(FieldError::new("", "the validator refuses it without a word why"));
        }
        verdict
    }
}

impl HttpValidator {
    /// The longest answer that is read, in bytes: 1 MiB.
    pub const MAX_ANSWER: usize = 1 << 20;

    /// The one of these settings. The time limit is the caller's to keep.
    #[must_use]
    pub fn new(config: &ValidatorConfig) -> Self {
        let client = Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(config.timeout);
        let client = client.pool_idle_timeout(Duration::from_secs(10)).build().unwrap_or_default();
        Self { url: config.url.clone(), headers: config.headers.clone(), client }
    }

    /// The headers, their secrets as they are now.
    fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = self.headers.clone();
        fill_secrets(&mut headers, &mut read_secret)
            .map_err(|errors| format!("cannot be asked: {}", coredinator_core::FieldErrors(errors)))?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let text = value.as_str().unwrap_or_default();
            let (Ok(name), Ok(mut value)) = (HeaderName::try_from(&name), HeaderValue::try_from(text)) else {
                return Err(format!("cannot be asked: what {name} stands for cannot be the value of a header"));
            };
            value.set_sensitive(true);
            map.insert(name, value);
        }
        Ok(map)
    }

    async fn ask(&self, candidate: &ConfigCandidate) -> Result<ConfigVerdict, String> {
        let mut document = Value::Object(candidate.document.clone());
        redact::redact(&mut document);
        let question =
            Question { service: candidate.service.as_str(), replica: candidate.replica, document: &document };
        let body = serde_json::to_vec(&question).map_err(|error| format!("cannot be asked: {error}"))?;
        let request = self.client.post(&self.url).headers(self.headers()?);
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        let mut response =
            request.body(body).send().await.map_err(|error| format!("does not answer: {}", innermost(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(format!("answers with status {}, not 200", response.status().as_u16()));
        }
        let mut answer = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|error| format!("breaks off: {}", innermost(&error)))? {
            if answer.len() + bytes.len() > Self::MAX_ANSWER {
                return Err(format!("answers with more than {} bytes", Self::MAX_ANSWER));
            }
            answer.extend_from_slice(&bytes);
        }
        let answer: Answer =
            serde_json::from_slice(&answer).map_err(|error| format!("answers with what is no answer: {error}"))?;
        Ok(answer.verdict())
    }
}

#[async_trait]
impl ConfigValidator for HttpValidator {
    async fn validate(&self, candidate: &ConfigCandidate) -> Result<ConfigVerdict, ConfigValidatorError> {
        self.ask(candidate).await.map_err(|what| ConfigValidatorError::new(format!("{} {what}", self.url)))
    }
}

/// The validator of these settings, and what becomes of a change that it cannot judge.
#[must_use]
pub fn validation(config: &ValidatorConfig) -> ConfigValidation {
    ConfigValidation {
        validator: std::sync::Arc::new(HttpValidator::new(config)),
        timeout: config.timeout,
        on_unreachable: config.on_unreachable,
    }
}

/// The innermost error says what is wrong.
fn innermost<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}
