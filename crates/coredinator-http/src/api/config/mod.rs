//! The configuration: written out, judged, changed as a whole, and gone back on.

pub mod model;
mod services;

use std::{collections::hash_map::DefaultHasher, hash::Hasher};

use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use coredinator_core::{FieldError, ServiceSpec};
use coredinator_registry::{ConfigEdit, ConfigOutcome, ConfigSource, RegistryError};
use serde_json::Value;

use super::{
    body::{read_document, require_json},
    edge,
    model::ProblemDocument,
    params::Params,
    problem::Problem,
    services::runs_something,
    state::Api,
    stream::accepts,
};
use crate::{
    config::{
        LoadError, Loaded,
        live::{generate_one, pointer_of},
        schema, yaml,
    },
    reload::ReloadError,
};
pub(super) use services::{__path_acknowledge, __path_get as __path_of_service, acknowledge, get as of_service};

use model::{ConfigProblem, History, Plan, Revision, Rollback, Updated, Validation, differences};

/// Revisions on a page where nobody says, and at most.
const PAGE: usize = 50;
const LARGEST_PAGE: usize = 1000;

/// The media types of YAML: the registered one, and those that were used before it.
const YAML: [&str; 4] = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

/// The configuration in force, as YAML, or as JSON where that is accepted.
///
/// Loaded into an empty coredinator it makes the same services, those included that registered themselves. Secrets are left
/// out; handed back by an update, what was left out stays as it is. Dollar signs are doubled, as the file's are.
#[utoipa::path(
    get, path = "/api/coredinator/config/generate", tag = "config", operation_id = "generate_config",
    params(
        ("service" = Option<String>, Query, description = "only this service's own document"),
        ("schema" = Option<bool>, Query, description = "the JSON Schema of the file instead"),
    ),
    responses(
        (status = 200, description = "the configuration",
            content((Object = "application/yaml"), (Object = "application/json"), (Object = "application/schema+json")),
            headers(("ETag" = String, description = "for `If-Match` of an update"))),
        (status = 304, description = "as `If-None-Match` says"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`schema` and `service` exclude each other", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn generate(
    State(api): State<Api>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let service = params.text("service");
    let wants_schema = params.switch("schema");
    params.finish()?;
    if wants_schema && service.is_some() {
        return Err(Problem::invalid(vec![FieldError::new("?schema", "is of the whole file; leave service out")]));
    }
    if wants_schema {
        return Ok(written(&headers, None, &schema::schema(), "application/schema+json"));
    }
    if let Some(name) = service {
        let view = api.service(&name)?;
        return Ok(written(&headers, None, &generate_one(&view), "application/json"));
    }
    let (revision, document) = api.live().generate();
    Ok(written(&headers, Some(revision), &document, "application/json"))
}

/// A document as YAML, or as JSON where that is asked for; or that the client has it already.
fn written(headers: &HeaderMap, revision: Option<u64>, document: &Value, json_type: &'static str) -> Response {
    let json = accepts(headers, "application/json") || accepts(headers, json_type);
    let json = json && !YAML.iter().any(|yaml| accepts(headers, yaml));
    let (text, media_type) =
        if json { (format!("{document:#}\n"), json_type) } else { (yaml::write(document), YAML[0]) };
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    let digest = hasher.finish();
    let tag = match revision {
        Some(revision) => format!("\"{revision}.{digest:016x}\""),
        None => format!("\"{digest:016x}\""),
    };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok()).unwrap_or_default();
    let mut response = if known.split(',').map(str::trim).any(|one| one == "*" || one == tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(text))
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
    response
}

/// Judges a configuration without changing anything: all that is wrong with it at once, and what an update would do.
#[utoipa::path(
    post, path = "/api/coredinator/config/validate", tag = "config", operation_id = "validate_config",
    request_body(content((String = "application/yaml"), (Object = "application/json"))),
    responses(
        (status = 200, description = "what is to be said about it", body = Validation,
            headers(("ETag" = String, description = "for `If-Match` of an update"))),
        (status = 400, description = "the body cannot be read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "neither YAML nor JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store or the validator is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn validate(
    State(api): State<Api>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    params.finish()?;
    let text = read_document(&headers, body, api.options.max_config).await?;
    let mut validation = Validation {
        valid: false,
        errors: Vec::new(),
        warnings: Vec::new(),
        revision: api.registry.config().revision,
        plan: None,
        differences: Vec::new(),
    };
    let told = |problems: &[crate::config::Problem]| problems.iter().map(ConfigProblem::from).collect();
    match api.live().read(text) {
        Err(error) => validation.errors = told(error.problems()),
        Ok(loaded) => {
            validation.warnings = told(&loaded.warnings);
            let edit = ConfigEdit { dry_run: true, ..ConfigEdit::new(ConfigSource::Update, "", "") };
            match api.registry.change_config(&loaded.config.live(), edit).await {
                Ok(outcome) => {
                    validation.valid = true;
                    validation.revision = outcome.revision;
                    validation.warnings.extend(placed_all(&loaded, outcome.warnings));
                    let needs_restart = api.live().needs_restart(&loaded);
                    validation.plan = Some(Plan { needs_restart, ..Plan::from(&outcome.plan) });
                    validation.differences = differences(&outcome.diff);
                }
                Err(RegistryError::Invalid(errors)) => {
                    validation.errors = placed_all(&loaded, errors);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let revision = validation.revision;
    Ok(tagged(Json(validation).into_response(), revision))
}

/// An error of the registry's, whose pointers begin with the services, with its place in the document.
fn placed(loaded: &Loaded, error: FieldError) -> crate::config::Problem {
    loaded.problem(error.under("/coredinator"))
}

fn placed_all(loaded: &Loaded, errors: Vec<FieldError>) -> Vec<ConfigProblem> {
    errors.into_iter().map(|error| ConfigProblem::from(&placed(loaded, error))).collect()
}

/// A response with the entity tag of a revision.
fn tagged(mut response: Response, revision: u64) -> Response {
    let tag = HeaderValue::try_from(format!("\"{revision}\"")).ok();
    response.headers_mut().extend(tag.map(|tag| (header::ETAG, tag)));
    response
}

/// Which revision an `If-Match` asks for: the number at the start of any of its tags; `None` inside for `*`.
///
/// # Errors
/// 400 for what is no such header.
fn if_match(headers: &HeaderMap) -> Result<Option<Option<u64>>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(Some(None));
    }
    let tag = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
    let number = tag.split('.').next().unwrap_or_default();
    match number.parse() {
        Ok(revision) => Ok(Some(Some(revision))),
        Err(_) => {
            let detail = "If-Match must be one ETag of the configuration, as generate and validate tell it, or *";
            Err(Problem::bad_request("InvalidHeader", detail))
        }
    }
}

/// Makes the configuration that of the body, as a whole: what was declared through the configuration and is no longer named
/// goes; what registered itself stays.
///
/// Nothing is changed where the body changes nothing. Without authentication, what names something to be run is taken from
/// this machine alone.
#[utoipa::path(
    put, path = "/api/coredinator/config/update", tag = "config", operation_id = "update_config",
    params(
        ("If-Match" = String, Header, pattern = r#"^([*]|"[0-9]{1,18}")$"#, description = "the ETag of the configuration that the change was made on, or `*`"),
        ("dry_run" = Option<bool>, Query, description = "only say what would be changed"),
        ("author" = Option<String>, Query, description = "who makes the change"),
        ("message" = Option<String>, Query, description = "why"),
    ),
    request_body(content((String = "application/yaml"), (Object = "application/json"))),
    responses(
        (status = 200, description = "it is in force", body = Updated, headers(("ETag" = String))),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "not from there", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, description = "another revision is the newest; `ETag` tells which", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "neither YAML nor JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid: all that is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 428, description = "without `If-Match`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store or the validator is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    peer: Option<axum::Extension<ConnectInfo<std::net::SocketAddr>>>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let edit = edit(&mut params, ConfigSource::Update);
    params.finish()?;
    let Some(if_revision) = if_match(&headers)? else {
        let detail = "say by If-Match which configuration the change was made on: the ETag that generate told, or *";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, "IfMatchRequired", detail));
    };
    let text = read_document(&headers, body, api.options.max_config).await?;
    let loaded = api.live().read(text).map_err(|error| invalid(&error))?;
    let wanted = loaded.config.live();
    let edit = ConfigEdit { if_revision, ..edit };
    if !is_local(&headers, peer) {
        let tried = ConfigEdit { dry_run: true, ..edit.clone() };
        let outcome = api.registry.change_config(&wanted, tried).await.map_err(|error| refused(&loaded, error))?;
        refuse_remote(&outcome)?;
    }
    let outcome = api.registry.change_config(&wanted, edit.clone()).await.map_err(|error| refused(&loaded, error))?;
    let mut warnings: Vec<ConfigProblem> = loaded.warnings.iter().map(ConfigProblem::from).collect();
    warnings.extend(placed_all(&loaded, outcome.warnings.clone()));
    Ok(updated(&outcome, &edit, warnings, api.live().needs_restart(&loaded)))
}

/// Who edits, and why, as the request says.
fn edit(params: &mut Params, source: ConfigSource) -> ConfigEdit {
    let author = params.text("author").filter(|author| !author.is_empty()).unwrap_or_else(|| "api".to_owned());
    let message = params.text("message").unwrap_or_default();
    ConfigEdit { dry_run: params.switch("dry_run"), ..ConfigEdit::new(source, author, message) }
}

fn updated(
    outcome: &ConfigOutcome,
    edit: &ConfigEdit,
    warnings: Vec<ConfigProblem>,
    needs_restart: Vec<String>,
) -> Response {
    let updated = Updated {
        revision: outcome.revision,
        changed: !edit.dry_run && !outcome.diff.is_empty(),
        dry_run: edit.dry_run,
        warnings,
        plan: Plan { needs_restart, ..Plan::from(&outcome.plan) },
    };
    tagged(Json(updated).into_response(), outcome.revision)
}

/// 422 with everything that is wrong with a document, each with its place.
pub(super) fn invalid(error: &LoadError) -> Problem {
    Problem::invalid_document(error.problems())
}

fn refused(loaded: &Loaded, error: RegistryError) -> Problem {
    match error {
        RegistryError::Invalid(errors) => {
            let problems: Vec<_> = errors.into_iter().map(|error| placed(loaded, error)).collect();
            Problem::invalid_document(&problems)
        }
        other => other.into(),
    }
}

fn is_local(headers: &HeaderMap, peer: Option<axum::Extension<ConnectInfo<std::net::SocketAddr>>>) -> bool {
    edge::is_local(headers, peer.map(|axum::Extension(ConnectInfo(peer))| peer))
}

/// 403, if a change from elsewhere declares something that is carried out here.
fn refuse_remote(outcome: &ConfigOutcome) -> Result<(), Problem> {
    let after = outcome.diff.services.values().filter_map(|was| was.after.as_ref());
    let runs: Vec<&ServiceSpec> = after.map(|placed| &placed.spec).filter(|spec| runs_something(spec)).collect();
    match runs.first() {
        None => Ok(()),
        Some(first) => {
            let detail = format!(
                "services that name something to be run ({}) are declared from this machine alone, because callers are not \
                 authenticated",
                pointer_of(first)
            );
            Err(Problem::new(StatusCode::FORBIDDEN, "RemoteCommand", detail))
        }
    }
}

/// Reads the file anew, and applies it if its content is not what it was when it was last applied. All of it or nothing.
#[utoipa::path(
    post, path = "/-/reload", tag = "config", operation_id = "reload",
    responses(
        (status = 200, description = "it is in force", body = Updated, headers(("ETag" = String))),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "there is no file that could be read again", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "it is not valid: all that is wrong; the configuration stays", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store or the validator is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload(State(api): State<Api>, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    let no_file = || Problem::conflict("NoFile", ReloadError::NoFile.to_string());
    let reloader = api.options.reloader.as_ref().ok_or_else(no_file)?;
    match reloader.reload().await {
        Ok(outcome) => {
            let warnings = unplaced(outcome.warnings.clone());
            Ok(updated(&outcome, &ConfigEdit::new(ConfigSource::File, "", ""), warnings, Vec::new()))
        }
        Err(ReloadError::NoFile) => Err(no_file()),
        Err(ReloadError::Load(error @ LoadError::Read { .. })) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Err(Problem::conflict("NoFile", format!("{error}{cause}")))
        }
        Err(ReloadError::Load(error)) => Err(invalid(&error)),
        Err(ReloadError::Refused(error)) => Err(error.into()),
    }
}

/// The revisions of the configuration, newest first.
#[utoipa::path(
    get, path = "/api/coredinator/config/history", tag = "config", operation_id = "config_history",
    params(
        ("limit" = Option<usize>, Query, description = "revisions on a page (default 50), 1000 at most", minimum = 1, maximum = 18446744073709551615_u64),
        ("page_token" = Option<String>, Query, description = "the `next_page_token` of the page before"),
    ),
    responses(
        (status = 200, description = "the revisions", body = History),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn history(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit: Option<usize> = params.number("limit");
    if limit == Some(0) {
        params.error("limit", "must be at least 1");
    }
    let before: Option<u64> = params
        .read("page_token", |token| match token {
            "" => Ok(None),
            token => token.parse().map(Some).map_err(|_| "is not one that was given out; begin anew"),
        })
        .flatten();
    params.finish()?;
    let limit = limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
    let mut read = api.registry.config_history(before, limit + 1).await?;
    let more = read.len() > limit;
    read.truncate(limit);
    let next = read.last().filter(|_| more).map_or_else(String::new, |last| last.revision.to_string());
    let revisions = read.iter().map(Revision::from).collect();
    Ok(Json(History { revisions, next_page_token: next }).into_response())
}

/// One revision of the configuration.
#[utoipa::path(
    get, path = "/api/coredinator/config/history/{revision}", tag = "config", operation_id = "config_revision",
    params(("revision" = u64, Path, description = "its number")),
    responses(
        (status = 200, description = "the revision", body = Revision),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such revision, or it is no longer kept", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn revision(
    State(api): State<Api>,
    Path(number): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let number: u64 = number
        .parse()
        .map_err(|_| Problem::new(StatusCode::NOT_FOUND, "NotFound", "revisions of the configuration are numbers"))?;
    let read = api.registry.config_revision(number).await?;
    Ok(Json(Revision::from(&read)).into_response())
}

/// Goes back to the configuration of an earlier revision, by a new one.
#[utoipa::path(
    post, path = "/api/coredinator/config/rollback", tag = "config", operation_id = "rollback_config",
    params(
        ("If-Match" = Option<String>, Header, nullable = false, pattern = r#"^([*]|"[0-9]{1,18}")$"#, description = "only if this is still the configuration"),
        ("dry_run" = Option<bool>, Query, description = "only say what would be changed"),
        ("author" = Option<String>, Query, description = "who makes the change"),
        ("message" = Option<String>, Query, description = "why"),
    ),
    request_body(content = Rollback, content_type = "application/json"),
    responses(
        (status = 200, description = "it is in force", body = Updated, headers(("ETag" = String))),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "not from there", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such revision, or it is no longer kept", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, description = "another revision is the newest; `ETag` tells which", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid any more", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store or the validator is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollback(
    State(api): State<Api>,
    peer: Option<axum::Extension<ConnectInfo<std::net::SocketAddr>>>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let edit = edit(&mut params, ConfigSource::Update);
    params.finish()?;
    let if_revision = if_match(&headers)?.flatten();
    let body = require_json(&headers, body, api.options.max_body).await?;
    let Rollback { revision } = serde_json::from_value(body)
        .map_err(|error| Problem::invalid(vec![FieldError::unread("", &error.to_string())]))?;
    let edit = ConfigEdit { if_revision, ..edit };
    if !is_local(&headers, peer) {
        let tried = ConfigEdit { dry_run: true, ..edit.clone() };
        refuse_remote(&api.registry.rollback_config(revision, tried).await.map_err(in_the_whole)?)?;
    }
    let outcome = api.registry.rollback_config(revision, edit.clone()).await.map_err(in_the_whole)?;
    let warnings = unplaced(outcome.warnings.clone());
    Ok(updated(&outcome, &edit, warnings, Vec::new()))
}

/// Errors as they stand in a whole configuration of which nobody has the text.
fn in_the_whole(error: RegistryError) -> Problem {
    Problem::from(error).under("/coredinator")
}

fn unplaced(warnings: Vec<FieldError>) -> Vec<ConfigProblem> {
    let told = |FieldError { pointer, detail, hint }| ConfigProblem {
        pointer: format!("/coredinator{pointer}"),
        line: None,
        column: None,
        message: detail,
        hint,
    };
    warnings.into_iter().map(told).collect()
}
