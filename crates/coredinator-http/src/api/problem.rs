//! Why a request was not answered as asked, as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use coredinator_coord::CoordError;
use coredinator_core::{FieldError, RuntimeError, StoreError};
use coredinator_registry::RegistryError;

use super::{
    model::{PlacedError, ProblemDocument},
    render::to_json,
};
use crate::config;

/// Why a request was not answered as asked. The edge of the API, which knows the request, writes it out.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<PlacedError>,
    retryable: bool,
    /// The entity tag of what stood against a condition.
    tag: Option<String>,
}

/// After how many seconds a request is worth trying again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), retryable: false, tag: None }
    }

    /// The same, and worth trying again.
    pub(super) fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// 400: the request cannot be read.
    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 400: these query parameters are wrong.
    pub(super) fn bad_query(errors: Vec<FieldError>) -> Self {
        Self { errors: unplaced(errors), ..Self::bad_request("InvalidParameter", "query parameters are not valid") }
    }

    /// 422: the document can be read, and is not valid.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "one field is not valid".to_owned(),
            n => format!("{n} fields are not valid"),
        };
        Self { errors: unplaced(errors), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", detail) }
    }

    /// 422: a configuration is not valid; each error with its line and column.
    pub(super) fn invalid_document(problems: &[config::Problem]) -> Self {
        let detail = match problems.len() {
            1 => "the configuration has an error".to_owned(),
            n => format!("the configuration has {n} errors"),
        };
        let errors = problems.iter().map(|problem| {
            let mut error = FieldError::new(&problem.pointer, &problem.detail);
            error.hint.clone_from(&problem.hint);
            let at = problem.position();
            PlacedError { error, line: at.map(|at| at.line), column: at.map(|at| at.column) }
        });
        Self { errors: errors.collect(), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", detail) }
    }

    /// 404: there is no such service.
    pub(super) fn no_service(name: &str) -> Self {
        let mut shown: String = name.chars().take(64).collect();
        if shown.len() < name.len() {
            shown.push('…');
        }
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("there is no service {shown:?}"))
    }

    /// The same with its errors seen from a document that holds the wrong part at `pointer`.
    pub(super) fn under(mut self, pointer: &str) -> Self {
        self.errors.iter_mut().for_each(|placed| placed.error.pointer.insert_str(0, pointer));
        self
    }

    /// 409: its state does not allow it.
    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 503: coredinator is on its way down.
    pub(super) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Draining", "coredinator is shutting down").retryable()
    }

    /// 504: it took longer than the request (or the server) is willing to wait.
    pub(super) fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", detail).retryable()
    }

    /// 503 or 500: the store did not take a change.
    fn not_stored(source: &StoreError, retryable: bool) -> Self {
        tracing::warn!(error = %chain(source), "the store did not take a change");
        let detail = format!("the change was not stored: {source}");
        if retryable {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", detail).retryable()
        } else {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", detail)
        }
    }

    /// What a response that carries no problem of its own says with its status.
    pub(super) fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => "NoSuchPath",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
            StatusCode::PAYLOAD_TOO_LARGE => "TooLarge",
            status if status.is_server_error() => "Internal",
            _ => "BadRequest",
        };
        Self::new(status, code, detail)
    }

    /// Writes it out for one request.
    pub(super) fn write(self, path: &str, request_id: &str) -> Response {
        let document = ProblemDocument {
            kind: format!("urn:coredinator:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            instance: path.to_owned(),
            code: self.code.to_owned(),
            request_id: request_id.to_owned(),
            retryable: self.retryable,
            errors: self.errors,
        };
        let mut response = (self.status, to_json(&document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.tag.and_then(|tag| HeaderValue::try_from(tag).ok()).map(|tag| (header::ETAG, tag)));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

fn unplaced(errors: Vec<FieldError>) -> Vec<PlacedError> {
    errors.into_iter().map(|error| PlacedError { error, line: None, column: None }).collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let retryable = error.is_retryable();
        match error {
            RegistryError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "NotFound", error.to_string()),
            RegistryError::Conflict { code, message } => Self::conflict(code, message),
            RegistryError::Invalid(errors) => Self::invalid(errors),
            RegistryError::NoRevision { .. } => Self::new(StatusCode::NOT_FOUND, "NotFound", error.to_string()),
            RegistryError::Stale { current } => Self {
                tag: Some(format!("\"{current}\"")),
                ..Self::new(StatusCode::PRECONDITION_FAILED, "Stale", error.to_string())
            },
            RegistryError::Unjudged { .. } => {
                tracing::warn!(%error, "a change of the configuration is refused");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ValidatorUnavailable", error.to_string()).retryable()
            }
            RegistryError::Store(source) => Self::not_stored(&source, retryable),
            other => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", other.to_string()),
        }
    }
}

impl From<CoordError> for Problem {
    fn from(error: CoordError) -> Self {
        let retryable = error.is_retryable();
        let text = error.to_string();
        match error {
            CoordError::UnknownAgent(_) | CoordError::UnknownGroup { .. } => {
                Self::new(StatusCode::NOT_FOUND, "NotFound", text)
            }
            CoordError::Invalid(errors) => Self::invalid(errors),
            CoordError::Stale { .. } | CoordError::Past { .. } => Self::conflict("Stale", text),
            CoordError::NoSuchDecision { .. } => Self::conflict("NoSuchDecision", text),
            CoordError::Full(_) => Self::conflict("Full", text),
            CoordError::NotLeading(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "NotLeading", text).retryable(),
            CoordError::NoPlan(_) => Self::conflict("NoPlan", text),
            CoordError::Store(source) => Self::not_stored(&source, retryable),
            CoordError::Ended => Self::draining(),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", text),
        }
    }
}

impl From<RuntimeError> for Problem {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Unsupported { .. } => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "Unsupported", error.to_string())
            }
            RuntimeError::Unavailable { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "RuntimeUnavailable", error.to_string()).retryable()
            }
            other => {
                tracing::error!(error = %chain(&other), "a runtime failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", other.to_string())
            }
        }
    }
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// How long the server itself is willing to wait, for people.
pub(super) fn gave_up(after: Duration) -> Problem {
    Problem::too_slow(format!("not answered within {after:?}; whether it was done is not known"))
}
