//! Query parameters, read strictly: what is unknown or wrong is refused, all of it at once.

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::{
    extract::{FromRequestParts, Query},
    http::{Uri, request::Parts},
};
use coredinator_core::{FieldError, duration};

use super::problem::Problem;

/// No request waits longer than this.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How long `?index=` waits unless `?wait=` says.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(300);

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Params {
    left: Vec<(String, String)>,
    asked: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Params {
    pub(super) fn new(uri: &Uri) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::bad_request("InvalidParameter", error.body_text()))?;
        Ok(Self { left: pairs.0, asked: Vec::new(), errors: Vec::new() })
    }

    /// Takes all values of a parameter that may be repeated.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.asked.push(name);
        self.left.extract_if(.., |(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// Takes a parameter that is given once at most.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.error(name, "is given more than once");
        }
        values.pop()
    }

    /// Takes a parameter by a parser.
    pub(super) fn read<T, E: Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(name, error.to_string());
                None
            }
        }
    }

    /// Takes a number.
    pub(super) fn number<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.read(name, |text| text.parse().map_err(|_| format!("must be a number, but is {text:?}")))
    }

    /// Takes a switch: `true`, `false`, or (as in `?verbose`) nothing, which is true.
    pub(super) fn switch(&mut self, name: &'static str) -> bool {
        let read = self.read(name, |text| match text {
            "" | "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("must be true or false, but is {text:?}")),
        });
        read.unwrap_or(false)
    }

    /// Takes `wait`; longer ones are cut to [`LONGEST_WAIT`].
    pub(super) fn wait(&mut self) -> Option<Duration> {
        self.read("wait", duration::parse).map(|wait| wait.min(LONGEST_WAIT))
    }

    /// Tells an error about a parameter.
    pub(super) fn error(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(format!("?{name}"), detail));
    }

    /// Ends the reading: what is left is unknown.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (key, _) in &self.left {
            let shown: String = key.chars().take(64).collect();
            let error = FieldError::new(format!("?{shown}"), "unknown query parameter");
            self.errors.push(error.with_nearest(&shown, &self.asked));
        }
        // A request of thousands of parameters is not worth an answer of as many.
        self.errors.truncate(100);
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::bad_query(self.errors)) }
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::new(&parts.uri)
    }
}

/// A request that takes no query parameters.
#[derive(Debug)]
pub(super) struct NoParams;

impl<S: Sync> FromRequestParts<S> for NoParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_none_or(str::is_empty) {
            Ok(Self)
        } else {
            Params::new(&parts.uri)?.finish().map(|()| Self)
        }
    }
}

/// How long a request asks to wait, whatever else is right or wrong with it.
pub(super) fn asked_wait(uri: &Uri) -> Duration {
    let names = |name| uri.query().is_some_and(|query| query.contains(name));
    if !names("wait") && !names("index") {
        return Duration::ZERO;
    }
    let Ok(mut params) = Params::new(uri) else { return Duration::ZERO };
    let waits = params.wait();
    waits.unwrap_or(if params.all("index").is_empty() { Duration::ZERO } else { DEFAULT_WAIT })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::new(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut read = params("limit=x&limt=3&wait=-1&all&index=1&index=2");
        assert_eq!(read.number::<usize>("limit"), None);
        assert_eq!(read.wait(), None);
        assert!(read.switch("all"));
        assert_eq!(read.number::<u64>("index"), Some(2));
        let text = format!("{:?}", read.finish().unwrap_err());
        for part in ["?limit", "?limt", "did you mean \\\"limit\\\"?", "?wait", "?index", "more than once"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_a_request_asks_to_wait() {
        let wait = |query: &str| asked_wait(&format!("/x?{query}").parse().unwrap());
        assert_eq!(wait("index=3"), DEFAULT_WAIT);
        assert_eq!(wait("index=3&wait=2s"), Duration::from_secs(2));
        assert_eq!(wait("wait=9h"), LONGEST_WAIT);
        assert_eq!(wait("limit=3"), Duration::ZERO);
        assert_eq!(wait("wait=x"), Duration::ZERO);
    }
}
