//! Bodies of requests: JSON, read strictly.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde_json::Value;

use super::problem::Problem;

/// Reads a body of at most `limit` bytes as JSON; `None` for an empty one.
///
/// # Errors
/// 413, 415 (also where no type is given), 400.
pub(super) async fn read_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Option<Value>, Problem> {
    let bytes = read(body, limit).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !is_json(headers) {
        let detail = "the body must be JSON, and say so: content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", detail));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Problem::bad_request("MalformedJson", format!("the body is not JSON: {error}")))
}

/// The same where an empty body is not JSON either.
pub(super) async fn require_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Value, Problem> {
    let read = read_json(headers, body, limit).await?;
    read.ok_or_else(|| Problem::bad_request("MalformedJson", "the body is empty, and should be JSON"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

async fn read(body: Body, limit: usize) -> Result<BytesMut, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| Problem::bad_request("BrokenBody", "the body ended early or could not be read"))?;
        if bytes.len() + chunk.len() > limit {
            let detail = format!("the body is larger than {limit} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", detail));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
