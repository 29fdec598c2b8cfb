//! The database behind everything: how it is, and whether it, or another, is fit to be that.

use std::time::Duration;

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use coredinator_core::{FieldError, field::FieldReader};

use super::{
    body::read_json,
    database_schema::{DatabaseCandidate, DatabaseStatus, DatabaseVerification},
    model::ProblemDocument,
    params::NoParams,
    problem::{Problem, chain},
    render::as_millis,
    state::Api,
};
use crate::{config::DatabaseUrl, store};

/// How long a database is waited for before it counts as not reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the database is.
///
/// Looks now, by writing, reading and deleting a value; a database that is not reached is told of in the document, not by
/// the HTTP status.
#[utoipa::path(
    get, path = "/api/coredinator/database/status", tag = "database", operation_id = "database_status",
    responses(
        (status = 200, description = "how it is, reached or not", body = DatabaseStatus),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn status(State(api): State<Api>, _: NoParams) -> Json<DatabaseStatus> {
    let checked = tokio::time::timeout(PATIENCE, api.registry.check_store()).await;
    let (status, error) = match checked {
        Ok(Ok(status)) => (Some(status), None),
        Ok(Err(error)) => (None, Some(chain(&error))),
        Err(_) => (None, Some(format!("it did not answer within {PATIENCE:?}"))),
    };
    Json(DatabaseStatus {
        reachable: status.is_some(),
        error,
        stale_for_ms: api.registry.stale_for().map(as_millis),
        store: status.map(Into::into),
    })
}

/// Whether the database, or one that might be switched to, is fit for use.
///
/// Looks at each thing that has to be right, and says what to do about what is not. Nothing is left behind in either
/// database, and nothing is switched.
#[utoipa::path(
    post, path = "/api/coredinator/database/verify", tag = "database", operation_id = "database_verify",
    request_body(content = Option<DatabaseCandidate>, description = "a candidate; empty for the database in use"),
    responses(
        (status = 200, description = "what was found, good or bad", body = DatabaseVerification),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn verify(
    State(api): State<Api>,
    _: NoParams,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DatabaseVerification>, Problem> {
    let document = read_json(&headers, body, api.options.max_body).await?;
    let candidate = document.map_or(Ok(None), candidate).map_err(Problem::invalid)?;
    let checks = match &candidate {
        None => api.registry.verify_store().await,
        Some(url) => store::verify(url).await.map_err(|error| Problem::invalid(vec![wrong(&error.to_string())]))?,
    };
    Ok(Json(DatabaseVerification::new(candidate.is_some(), checks)))
}

fn candidate(document: serde_json::Value) -> Result<Option<DatabaseUrl>, Vec<FieldError>> {
    let mut fields = FieldReader::new("", document);
    let url: Option<String> = fields.optional("database_url");
    fields.finish(|| url.map(DatabaseUrl::new))
}

fn wrong(detail: &str) -> FieldError {
    FieldError::new("/database_url", detail)
}
