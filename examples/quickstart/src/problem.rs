//! Errors as problem documents (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::action::Fault;

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The body cannot be read at all.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    /// The body does not say what is needed.
    #[error("the action is out of bounds")]
    Invalid(Vec<Fault>),
    /// The body is larger than any action.
    #[error("the body is too large")]
    TooLarge,
    /// There is nothing under this path.
    #[error("there is nothing here")]
    NotFound,
    /// The path is there, the method is not.
    #[error("this path does not answer to that method")]
    MethodNotAllowed,
    /// The service cannot do its work at the moment.
    #[error("{0}")]
    Unavailable(String),
}

impl Problem {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        let mut body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "code": code,
            "detail": self.to_string(),
        });
        if let Self::Invalid(faults) = self {
            body["errors"] = json!(faults);
        }
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
