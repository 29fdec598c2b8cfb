//! Agents: they register, say that they live and what they want, and hear what is decided.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response, sse::Event as Sent},
};
use coredinator_coord::{CoordError, Decisions, transport::DecisionMessage};
use coredinator_core::{FieldError, field::FieldReader};
use futures_util::stream;
use serde_json::Value;

use super::{
    body::{read_json, require_json},
    coordination_schema as schema,
    model::ProblemDocument,
    params::{NoParams, Params},
    problem::Problem,
    render::json,
    state::Api,
    stream::{EVENT_STREAM, accepts, send},
};
use crate::coordination;

/// Registers an agent, or puts it in the place of one of its name.
///
/// What the operator's configuration says of its priority, weight and preemptibility stands above what it asks for; `notes`
/// tells what was changed. What one of its name was granted stays reserved; what that wanted is forgotten.
#[utoipa::path(
    post, path = "/api/coredinator/agents/register", tag = "agents", operation_id = "register_agent",
    request_body(content = schema::Agent, content_type = "application/json"),
    responses(
        (status = 200, description = "it has taken the place of one of its name", body = schema::RegisteredAgent),
        (status = 201, description = "it is registered", body = schema::RegisteredAgent, headers(("Location" = String))),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled, or there are as many agents as there may be", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid: all that is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable, or another coredinator leads", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    _: NoParams,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let coordinator = api.coordinator()?;
    let document = require_json(&headers, body, api.options.max_intention).await?;
    let config = coordinator.config();
    let agent =
        coordination::agent(&document, |document| config.parse_agent("", document)).map_err(Problem::invalid)?;
    let registered = coordinator.register(agent).await.map_err(|error| match error {
        CoordError::UnknownGroup { .. } => Problem::invalid(vec![FieldError::new("/group", error.to_string())]),
        other => other.into(),
    })?;
    let mut response = json(&registered);
    if registered.created {
        *response.status_mut() = StatusCode::CREATED;
        let location = format!("/api/coredinator/agents/{}", registered.agent.agent_id);
        response.headers_mut().extend(HeaderValue::from_str(&location).ok().map(|value| (header::LOCATION, value)));
    }
    Ok(response)
}

/// All agents, or those of a group, by name.
#[utoipa::path(
    get, path = "/api/coredinator/agents", tag = "agents", operation_id = "list_agents",
    params(("group" = Option<String>, Query, description = "those of one group alone")),
    responses(
        (status = 200, description = "the agents", body = schema::AgentList),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such group", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let group = params.text("group");
    params.finish()?;
    let agents = api.coordinator()?.agents(group.as_deref())?;
    Ok(json(&serde_json::json!({ "agents": agents })))
}

/// One agent: what it is doing, what it was last told, what it holds.
#[utoipa::path(
    get, path = "/api/coredinator/agents/{agent_id}", tag = "agents", operation_id = "get_agent",
    params(("agent_id" = String, Path, description = "the agent's name")),
    responses(
        (status = 200, description = "the agent", body = schema::AgentView),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such agent", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(State(api): State<Api>, Path(id): Path<String>, _: NoParams) -> Result<Response, Problem> {
    Ok(json(&api.coordinator()?.agent(&id)?))
}

/// Takes an agent off the list. What it holds is free at once.
#[utoipa::path(
    delete, path = "/api/coredinator/agents/{agent_id}", tag = "agents", operation_id = "deregister_agent",
    params(("agent_id" = String, Path, description = "the agent's name")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such agent", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable, or another coredinator leads", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn deregister(
    State(api): State<Api>,
    Path(id): Path<String>,
    _: NoParams,
) -> Result<StatusCode, Problem> {
    api.coordinator()?.deregister(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes an agent's word that it lives.
#[utoipa::path(
    post, path = "/api/coredinator/agents/{agent_id}/heartbeat", tag = "agents", operation_id = "agent_heartbeat",
    params(("agent_id" = String, Path, description = "the agent's name")),
    responses(
        (status = 200, description = "heard; the next cycle that will be decided", body = schema::Accepted),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such agent: register it (again)", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "there is something in the body", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    Path(id): Path<String>,
    _: NoParams,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let coordinator = api.coordinator()?;
    if let Some(document) = read_json(&headers, body, api.options.max_body).await? {
        FieldReader::new("", document).finish(|| ()).map_err(Problem::invalid)?;
    }
    Ok(json(&coordinator.heartbeat(&id)?))
}

/// Takes what an agent wants from now on.
///
/// It stands for the next cycle and those after, until the agent says otherwise, its time to live ends, or
/// `valid_until_cycle` has passed. It is a sign of life, and says that the agent knows its last decision. With `wait` the
/// answer is the decision of the cycle for which it counts, if that is made in time.
#[utoipa::path(
    post, path = "/api/coredinator/agents/{agent_id}/intention", tag = "agents", operation_id = "intend",
    params(
        ("agent_id" = String, Path, description = "the agent's name"),
        ("wait" = Option<String>, Query, description = "how long to wait for the decision, such as `5s`", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
    ),
    request_body(content = schema::Intention, content_type = "application/json"),
    responses(
        (status = 200, description = "the decision", body = schema::DecisionMessage),
        (status = 202, description = "taken; the cycle for which it counts", body = schema::Accepted),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such agent: register it (again)", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled, the agent has said something newer, or this stands for no cycle to come", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid: all that is wrong; what it wanted before stands", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "shutting down", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn intend(
    State(api): State<Api>,
    Path(id): Path<String>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let wait = params.wait();
    params.finish()?;
    let coordinator = api.coordinator()?;
    // Whoever is not there has no intention that would be worth reading.
    coordinator.agent(&id)?;
    let mut document = require_json(&headers, body, api.options.max_intention).await?;
    if let Some(fields) = document.as_object_mut() {
        let named = fields.entry("agent_id").or_insert_with(|| Value::from(id.as_str()));
        if named.as_str().is_some_and(|named| named != id) {
            let detail = format!("must be {id:?}, whose path this is, or be left out");
            return Err(Problem::invalid(vec![FieldError::new("/agent_id", detail)]));
        }
    }
    let check = |intention: &_| coordinator.check_intention(intention).unwrap_or_default();
    let intention = coordination::intention(&document, check).map_err(Problem::invalid)?;
    let accepted = coordinator.intend(intention)?;
    if let Some(wait) = wait
        && let Some(told) = decision(&api, &id, Some(accepted.cycle), wait).await?
    {
        return Ok(told);
    }
    Ok((StatusCode::ACCEPTED, json(&accepted)).into_response())
}

/// What is decided for an agent: the last decision, or (`cycle`) the last that is of this cycle or a later one.
///
/// With `wait` it is waited for. With `Accept: text/event-stream` all decisions come as they are made, with epoch and cycle as
/// `id`; the last one comes first, unless `Last-Event-ID` says that it is known. Reading a decision is a sign of life, and
/// acknowledges it.
#[utoipa::path(
    get, path = "/api/coredinator/agents/{agent_id}/decision", tag = "agents", operation_id = "get_decision",
    params(
        ("agent_id" = String, Path, description = "the agent's name"),
        ("cycle" = Option<u64>, Query, description = "not of an earlier cycle", minimum = 0, maximum = 18446744073709551615_u64),
        ("wait" = Option<String>, Query, description = "how long to wait for it, such as `5s`", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
        ("Last-Event-ID" = Option<String>, Header, description = "the `id` of the last decision that was received"),
    ),
    responses(
        (status = 200, description = "the decision", content(
            (schema::DecisionMessage = "application/json"),
            (schema::DecisionMessage = "text/event-stream"),
        )),
        (status = 204, description = "there is none (in time)"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such agent", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "shutting down", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn told(
    State(api): State<Api>,
    Path(id): Path<String>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cycle: Option<u64> = params.number("cycle");
    let wait = params.wait();
    params.finish()?;
    if accepts(&headers, EVENT_STREAM) {
        let decisions = api.coordinator()?.decisions(&id)?;
        let known = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(|id| id.trim().to_owned());
        let reader = Reader { decisions, least: cycle.unwrap_or(0), known };
        return Ok(send(
            &api,
            stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) }),
        ));
    }
    let told = decision(&api, &id, cycle, wait.unwrap_or_default()).await?;
    Ok(told.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response()))
}

/// A decision, if there is one in time.
async fn decision(api: &Api, id: &str, cycle: Option<u64>, wait: Duration) -> Result<Option<Response>, Problem> {
    let coordinator = api.coordinator()?;
    tokio::select! {
        told = coordinator.decision(id, cycle, wait) => Ok(told?.map(|told| json(&*told))),
        () = api.shutdown.cancelled() => Err(Problem::draining()),
    }
}

/// A reader of the stream.
struct Reader {
    decisions: Decisions,
    least: u64,
    /// The last that it has.
    known: Option<String>,
}

impl Reader {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            let told = self.decisions.next().await?;
            let id = format!("{}-{}", told.epoch, told.cycle);
            if told.cycle >= self.least && self.known.as_deref() != Some(&id) {
                return Some(sent(id, &told));
            }
        }
    }
}

fn sent(id: String, told: &DecisionMessage) -> Sent {
    let json = serde_json::to_string(told).unwrap_or_else(|_| unreachable!("a decision is plain data"));
    Sent::default().id(id).data(json)
}

/// Takes an agent's word that it knows a decision. That it is not its last one is no error; that it was never given is one.
#[utoipa::path(
    post, path = "/api/coredinator/agents/{agent_id}/decision/ack", tag = "agents", operation_id = "acknowledge",
    params(("agent_id" = String, Path, description = "the agent's name")),
    request_body(content = schema::Acknowledgement, content_type = "application/json"),
    responses(
        (status = 204, description = "heard"),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such agent", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled, or the agent was given no such decision", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid: all that is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn acknowledge(
    State(api): State<Api>,
    Path(id): Path<String>,
    _: NoParams,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let coordinator = api.coordinator()?;
    let mut reader = FieldReader::new("", require_json(&headers, body, api.options.max_body).await?);
    let mut number = |key: &'static str| match reader.raw(key) {
        None => {
            reader.error(key, "is missing");
            0
        }
        Some(value) => value.as_u64().unwrap_or_else(|| {
            reader.error(key, "must be a whole number of 0 or more");
            0
        }),
    };
    let (cycle, epoch) = (number("cycle"), number("epoch"));
    reader.finish(|| ()).map_err(Problem::invalid)?;
    coordinator.acknowledge(&id, cycle, epoch)?;
    Ok(StatusCode::NO_CONTENT)
}
