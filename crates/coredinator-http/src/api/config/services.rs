//! A service's configuration document: told to its instances, and acknowledged by them.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response, sse::Event as Sent},
};
use coredinator_core::{FieldError, ServiceName};
use coredinator_registry::ServiceView;
use futures_util::stream;
use serde_json::{Map, Value};

use super::{
    super::{
        body::require_json,
        model::ProblemDocument,
        params::Params,
        problem::Problem,
        render::{millis, to_json},
        state::Api,
        stream::{EVENT_STREAM, accepts, send},
    },
    model::{Acknowledged, Acknowledgement, ConfigOfService},
};

/// The document that a service (or one replica of it) is to have now, and its revision; `None` where there is none.
fn current(view: &ServiceView, replica: Option<u32>) -> Option<ConfigOfService> {
    let record = &view.record;
    let newest = record.config_revision;
    let (revision, document): (u64, Map<String, Value>) = match replica {
        None => (newest, record.config.clone()?),
        Some(replica) => {
            let rejected = view.rollout.rejected.as_ref().is_some_and(|rejected| rejected.revision == newest);
            let given = view.instances.iter().find(|instance| instance.record.replica == replica);
            let given = given.map_or(0, |instance| instance.record.config_revision);
            let stable = view.rollout.stable;
            // What it was given, as long as that is kept: a new revision comes to it when it is its turn.
            let old = stable > 0 && stable != newest && (given == stable || (rejected && given != newest));
            if old { (stable, view.rollout.config_of(replica)) } else { (newest, record.config_of(replica)?) }
        }
    };
    record.config.as_ref()?;
    Some(ConfigOfService { service: view.name().clone(), replica, revision, document: Value::Object(document) })
}

fn none(name: &ServiceName) -> Problem {
    let detail = format!("service {name} has no configuration document; config: {{}} gives it one");
    Problem::new(StatusCode::NOT_FOUND, "NoConfig", detail)
}

/// A service's configuration document as it is now, for itself.
///
/// With `replica` it is that replica's, which gets a new revision when it is its turn. With `If-None-Match` and `wait` it is
/// answered when there is another revision. As a stream of events every new revision is told. References to secrets stay
/// references here; in the file that `COREDINATOR_CONFIG_FILE` names they are filled in.
#[utoipa::path(
    get, path = "/api/coredinator/config/services/{service_id}", tag = "config", operation_id = "config_of_service",
    params(
        ("service_id" = String, Path, description = "the service's name"),
        ("replica" = Option<u32>, Query, description = "which replica asks: the value of `COREDINATOR_REPLICA`", minimum = 0),
        ("wait" = Option<String>, Query, description = "how long to wait for another revision than that of `If-None-Match`, such as `30s` (at most 10 min)", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
    ),
    responses(
        (status = 200, description = "the document, or a stream of it",
            content((ConfigOfService = "application/json"), (String = "text/event-stream")),
            headers(("ETag" = String, description = "its revision"))),
        (status = 304, description = "as `If-None-Match` says"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service, or it has no document", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(in super::super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let replica: Option<u32> = params.number("replica");
    let wait = params.wait();
    params.finish()?;
    let read = |api: &Api| -> Result<ConfigOfService, Problem> {
        let view = api.service(&name)?;
        current(&view, replica).ok_or_else(|| none(view.name()))
    };
    let mut now = read(&api)?;
    if accepts(&headers, EVENT_STREAM) {
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
        return Ok(follow(&api, name, replica, last));
    }
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok()).unwrap_or_default().to_owned();
    let known =
        |revision: u64| known.split(',').map(str::trim).any(|one| one == "*" || one == format!("\"{revision}\""));
    if let Some(wait) = wait.filter(|_| known(now.revision)) {
        let mut changes = api.index.clone();
        let changed = async {
            loop {
                changes.borrow_and_update();
                match read(&api) {
                    Ok(read) if known(read.revision) => {}
                    other => return other,
                }
                if changes.changed().await.is_err() {
                    return read(&api);
                }
            }
        };
        tokio::select! {
            read = changed => now = read?,
            () = tokio::time::sleep(wait) => {}
            () = api.shutdown.cancelled() => {}
        }
    }
    let mut response =
        if known(now.revision) { StatusCode::NOT_MODIFIED.into_response() } else { Json(&now).into_response() };
    let tag = HeaderValue::try_from(format!("\"{}\"", now.revision)).ok();
    response.headers_mut().extend(tag.map(|tag| (header::ETAG, tag)));
    Ok(response)
}

/// Every revision from now on as an event; the one of now first, unless the client has it.
fn follow(api: &Api, name: String, replica: Option<u32>, last: Option<u64>) -> Response {
    let (registry, changes) = (api.registry.clone(), api.index.clone());
    let events = stream::unfold((registry, changes, last), move |(registry, mut changes, last)| {
        let name = name.clone();
        async move {
            loop {
                changes.borrow_and_update();
                let now = registry.service(&name).ok().and_then(|view| current(&view, replica));
                if let Some(now) = now.filter(|now| Some(now.revision) != last) {
                    let json = String::from_utf8_lossy(&to_json(&now)).into_owned();
                    let event = Sent::default().event("config").id(now.revision.to_string()).data(json);
                    return Some((event, (registry, changes, Some(now.revision))));
                }
                changes.changed().await.ok()?;
            }
        }
    });
    send(api, events)
}

/// An instance says that a revision of its configuration document is in force in it.
#[utoipa::path(
    post, path = "/api/coredinator/config/services/{service_id}/ack", tag = "config", operation_id = "acknowledge_config",
    params(("service_id" = String, Path, description = "the service's name")),
    request_body(content = Acknowledgement, content_type = "application/json"),
    responses(
        (status = 200, description = "noted", body = Acknowledged),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "no such living instance, or no such revision", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(in super::super) async fn acknowledge(
    State(api): State<Api>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    params.finish()?;
    let body = require_json(&headers, body, api.options.max_body).await?;
    let Acknowledgement { instance_id, revision } = serde_json::from_value(body)
        .map_err(|error| Problem::invalid(vec![FieldError::unread("", &error.to_string())]))?;
    api.service(&name)?;
    let ack = api.registry.acknowledge_config(&name, &instance_id, revision).await?;
    let told = Acknowledged { instance_id: ack.instance, revision: ack.revision, at: millis(ack.at) };
    Ok(Json(told).into_response())
}
