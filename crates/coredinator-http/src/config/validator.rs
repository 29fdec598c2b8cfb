//! Who judges configuration documents: the settings of it.

use std::{fmt, time::Duration};

use coredinator_core::{
    FieldError,
    config::read_layer,
    duration::Seconds,
    field::{FieldReader, kind},
};
use coredinator_registry::OnUnreachable;
use serde_json::{Map, Value, json};

/// The key below `coredinator`.
pub(super) const KEY: &str = "config_validator";
/// How long a validator has where nobody says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests to the API are answered before that.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A program that judges the configuration documents of services over HTTP, before they come into force.
#[derive(Clone, PartialEq)]
pub struct ValidatorConfig {
    /// Where it answers: `http://host[:port][/path]`.
    pub url: String,
    /// How long it may take over all documents of one change; above 0, at most 20 s.
    pub timeout: Duration,
    /// What becomes of a change that it cannot judge.
    pub on_unreachable: OnUnreachable,
    /// Sent with each request: texts, and references to secrets, which are read each time.
    pub headers: Map<String, Value>,
}

impl fmt::Debug for ValidatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&String> = self.headers.keys().collect();
        let (url, timeout) = (&self.url, &self.timeout);
        f.debug_struct("ValidatorConfig")
            .field("url", url)
            .field("timeout", timeout)
            .field("headers", &headers)
            .finish()
    }
}

impl ValidatorConfig {
    /// Reads the section, or the URL alone.
    ///
    /// # Errors
    /// All that is wrong with it, each under `pointer`.
    pub fn parse(pointer: &str, value: Value) -> Result<Self, Vec<FieldError>> {
        let value = match value {
            Value::String(url) => json!({ "url": url }),
            other => other,
        };
        let mut reader = FieldReader::new(pointer, value);
        let url: Option<String> = reader.optional("url");
        match url.as_deref().map(wrong_url) {
            Some(Some(wrong)) => reader.error("url", wrong),
            None if reader.is_clean() => reader.error("url", "must be given: where the validator answers"),
            _ => {}
        }
        let timeout = reader.or("timeout", Seconds(DEFAULT_TIMEOUT)).0;
        if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
            reader.error("timeout", format!("must be above 0 and at most {LONGEST_TIMEOUT:?}, but is {timeout:?}"));
        }
        let on_unreachable = reader.raw("on_unreachable").map(|value| match value.as_str() {
            Some("refuse") => Ok(OnUnreachable::Refuse),
            Some("accept") => Ok(OnUnreachable::Accept),
            _ => Err(value),
        });
        let on_unreachable = on_unreachable.unwrap_or_else(|| Ok(OnUnreachable::default())).unwrap_or_else(|value| {
            reader.error("on_unreachable", format!("must be refuse or accept, but is {value}"));
            OnUnreachable::default()
        });
        let headers = reader.parsed("headers", read_headers).unwrap_or_default();
        reader.finish(|| Self { url: url.unwrap_or_default(), timeout, on_unreachable, headers })
    }

    /// The section in the form in which it is read, its headers as they are.
    pub(super) fn document(&self) -> Value {
        let on_unreachable = match self.on_unreachable {
            OnUnreachable::Refuse => "refuse",
            OnUnreachable::Accept => "accept",
        };
        json!({
            "url": self.url,
            "timeout": Seconds(self.timeout),
            "on_unreachable": on_unreachable,
            "headers": self.headers,
        })
    }
}

/// What is wrong with the URL of a validator. What would be a secret in it is refused, so that it can be shown.
fn wrong_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://");
    let fits = rest.is_some_and(|rest| {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        !host.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !"?#@".contains(c))
    }) && reqwest::Url::parse(url).is_ok();
    (!fits).then(|| format!("must be like http://host:port/path, without a login and a query, but is {url:?}"))
}

fn read_headers(pointer: &str, value: Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    let headers = read_layer(pointer, value)?;
    let mut errors = Vec::new();
    for (name, value) in &headers {
        let at = coredinator_core::field::join(pointer, name);
        if reqwest::header::HeaderName::try_from(name).is_err() {
            errors.push(FieldError::new(&at, "is no name of a header"));
        }
        match value {
            Value::String(text) if reqwest::header::HeaderValue::try_from(text).is_err() => {
                errors.push(FieldError::new(at, "cannot be the value of a header"));
            }
            // What is an object without being such a reference is no text.
            Value::String(_) => {}
            Value::Object(map) if map.keys().any(|key| key == "secret_env" || key == "secret_file") => {}
            other => {
                let detail = format!(
                    "expected a text, {{secret_env: NAME}} or {{secret_file: PATH}}, but found {}",
                    kind(other)
                );
                errors.push(FieldError::new(at, detail));
            }
        }
    }
    if errors.is_empty() { Ok(headers) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_settings_is_told_with_its_place() {
        for (value, at) in [
            (json!("https://h/"), "/v/url"),
            (json!("http://u:p@h/"), "/v/url"),
            (json!("http://h/?key=secret"), "/v/url"),
            (json!("http://h:port/"), "/v/url"),
            (json!({}), "/v/url"),
            (json!([]), "/v"),
            (json!({"url": "http://h", "timeout": 0}), "/v/timeout"),
            (json!({"url": "http://h", "timeout": 21}), "/v/timeout"),
            (json!({"url": "http://h", "on_unreachable": "ignore"}), "/v/on_unreachable"),
            (json!({"url": "http://h", "headers": {"a b": "x"}}), "/v/headers/a b"),
            (json!({"url": "http://h", "headers": {"a": "x\ny"}}), "/v/headers/a"),
            (json!({"url": "http://h", "headers": {"a": 7}}), "/v/headers/a"),
            (json!({"url": "http://h", "headers": {"a": {"secret_env": ""}}}), "/v/headers/a/secret_env"),
            (json!({"url": "http://h", "retries": 3}), "/v/retries"),
        ] {
            let errors = ValidatorConfig::parse("/v", value.clone()).expect_err(&value.to_string());
            assert_eq!(errors[0].pointer, at, "{value}: {errors:?}");
        }
    }

    #[test]
    fn the_settings_are_written_as_they_are_read_and_never_shown_with_a_secret() {
        for value in [
            json!("http://127.0.0.1:8030/validate"),
            json!({"url": "http://h", "timeout": "250ms", "on_unreachable": "accept",
                   "headers": {"Authorization": "Bearer s3cret", "X-Key": {"secret_env": "K"}}}),
        ] {
            let read = ValidatorConfig::parse("", value).unwrap();
            assert_eq!(ValidatorConfig::parse("", read.document()).unwrap(), read);
            assert!(!format!("{read:?}").contains("s3cret"));
        }
    }
}
