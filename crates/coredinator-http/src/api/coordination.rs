//! Coordination as a whole: how it stands, its cycles, and what is done to it by hand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{Response, sse::Event as Sent},
};
use coredinator_coord::{Amount, CoordError, CoordinationEvent, Events};
use coredinator_core::{
    FieldError,
    coordination::DEFAULT_GROUP,
    field::{FieldReader, join, kind},
};
use futures_util::stream;
use serde_json::{Value, json};

use super::{
    body::{read_json, require_json},
    coordination_schema as schema,
    model::ProblemDocument,
    params::{NoParams, Params},
    problem::Problem,
    render::json as told,
    state::Api,
    stream::{EVENT_STREAM, accepts, send},
};
use crate::coordination;

/// How many cycles or events a list holds unless `limit` says.
const LISTED: usize = 100;
/// More are not listed.
const MOST: usize = 10_000;
/// How long a posted problem is worked on unless it says, and at most, in milliseconds.
const DRY_RUN: (u64, u64) = (10_000, 20_000);

/// How coordination stands: its groups, their strategies, what there is to share, and what was counted.
#[utoipa::path(
    get, path = "/api/coredinator/coordination/status", tag = "coordination", operation_id = "coordination_status",
    responses(
        (status = 200, description = "as it stands, enabled or not", body = schema::CoordinationStatus),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn status(State(api): State<Api>, _: NoParams) -> Response {
    told(&api.coordinator.status())
}

/// The last cycles of a group, the newest first.
#[utoipa::path(
    get, path = "/api/coredinator/coordination/cycles", tag = "coordination", operation_id = "list_cycles",
    params(
        ("group" = Option<String>, Query, description = "of which group (default `default`)"),
        ("limit" = Option<usize>, Query, description = "how many (default 100, at most 10000)", minimum = 1, maximum = 18446744073709551615_u64),
    ),
    responses(
        (status = 200, description = "the cycles, each in short", body = schema::CycleList),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such group", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cycles(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let group = group(&mut params);
    let limit = limit(&mut params);
    params.finish()?;
    let cycles = api.coordinator()?.cycles(&group, limit.unwrap_or(LISTED))?;
    Ok(told(&json!({ "group": group, "cycles": cycles })))
}

/// One cycle: the problem, the plan, what went wrong, and how long it took; enough to solve it again.
#[utoipa::path(
    get, path = "/api/coredinator/coordination/cycles/{cycle}", tag = "coordination", operation_id = "get_cycle",
    params(
        ("cycle" = u64, Path, description = "the cycle's number", minimum = 0, maximum = 18446744073709551615_u64),
        ("group" = Option<String>, Query, description = "of which group (default `default`)"),
    ),
    responses(
        (status = 200, description = "the cycle", body = schema::CycleRecord),
        (status = 400, description = "a parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such group, or the cycle is not kept (any more)", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cycle(
    State(api): State<Api>,
    Path(number): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let group = group(&mut params);
    params.finish()?;
    let number: u64 = number.parse().map_err(|_| {
        Problem::bad_request("InvalidParameter", "the number of a cycle is a whole number of 0 or more")
    })?;
    let coordinator = api.coordinator()?;
    if let Some(record) = coordinator.cycle(&group, number)? {
        return Ok(told(&*record));
    }
    let detail = match coordinator.cycles(&group, 1)?.first() {
        Some(newest) if newest.cycle < number => {
            format!("cycle {number} of {group:?} has not ended yet; the newest is {}", newest.cycle)
        }
        Some(_) => format!("cycle {number} of {group:?} is not kept: records go after a while, and with the process"),
        // There may have been some in an earlier life.
        None => format!("no cycle of {group:?} has ended since this coredinator was started"),
    };
    Err(Problem::new(StatusCode::NOT_FOUND, "NotFound", detail))
}

/// Runs a cycle now; or (`dry_run`) solves the problem that is posted, and tells nobody.
///
/// A dry run works while coordination is disabled, too. It takes at most 20 s (10 s unless the problem's budget says), and
/// goes by `strategy`, or else by that of the problem's group.
#[utoipa::path(
    post, path = "/api/coredinator/coordination/step", tag = "coordination", operation_id = "step",
    params(
        ("group" = Option<String>, Query, description = "of which group (default `default`); not with `dry_run`"),
        ("dry_run" = Option<bool>, Query, description = "solve the problem in the body, and no more"),
        ("strategy" = Option<String>, Query, description = "with `dry_run`: by which strategy; a name, or JSON with the name as its one key and options as its value"),
    ),
    request_body(content = Option<schema::CoordinationProblem>, content_type = "application/json"),
    responses(
        (status = 200, description = "what became of the cycle; of a dry run, the plan", body = schema::Stepped),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such group", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled, or the problem has no plan", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid: all that is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "shutting down, or another coredinator leads", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn step(
    State(api): State<Api>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let dry_run = params.switch("dry_run");
    let group = params.text("group");
    let strategy = params.text("strategy");
    if dry_run && group.is_some() {
        params.error("group", "has no meaning with dry_run: the problem names its group");
    } else if !dry_run && strategy.is_some() {
        params.error("strategy", "has no meaning without dry_run");
    }
    params.finish()?;
    if dry_run {
        let document = read_json(&headers, body, api.options.max_problem).await?.ok_or_else(|| {
            Problem::invalid(vec![FieldError::new("", "is empty, and should be the problem that a dry run solves")])
        })?;
        return solve(&api, &document, strategy.as_deref()).await;
    }
    let coordinator = api.coordinator()?;
    if let Some(document) = read_json(&headers, body, api.options.max_body).await? {
        FieldReader::new("", document).finish(|| ()).map_err(Problem::invalid)?;
    }
    tokio::select! {
        record = coordinator.step(group.as_deref().unwrap_or(DEFAULT_GROUP)) => Ok(told(&*record?)),
        () = api.shutdown.cancelled() => Err(Problem::draining()),
    }
}

/// Solves a problem on paper.
async fn solve(api: &Api, document: &Value, strategy: Option<&str>) -> Result<Response, Problem> {
    let mut problem = coordination::problem(document).map_err(Problem::invalid)?;
    let choice = strategy.map(|text| match serde_json::from_str(text) {
        Ok(choice @ Value::Object(_)) => choice,
        _ => Value::from(text),
    });
    let (usual, most) = DRY_RUN;
    problem.budget.deadline_ms = Some(problem.budget.deadline_ms.unwrap_or(usual).min(most));
    let solving = async {
        // Cycles come first: whoever only wants to know waits for his turn.
        let _turn = api.dry_runs.acquire().await;
        api.coordinator.dry_run(problem, choice.as_ref()).await
    };
    let resolved = tokio::select! {
        resolved = solving => resolved.map_err(of_query)?,
        () = api.shutdown.cancelled() => return Err(Problem::draining()),
    };
    match resolved.plan {
        Some(plan) => Ok(told(&plan)),
        None => {
            let why: Vec<String> = resolved.faults.into_iter().flat_map(|fault| fault.details).collect();
            Err(Problem::conflict("NoPlan", format!("not even what is safe for everyone fits: {}", why.join("; "))))
        }
    }
}

/// Of a dry run the strategy is named by a query parameter: what is wrong with it is told with its place there.
fn of_query(error: CoordError) -> Problem {
    match error {
        CoordError::Invalid(mut errors) if errors.iter().all(|error| error.pointer.starts_with("/strategy")) => {
            errors.iter_mut().for_each(|error| error.pointer.replace_range(..1, "?"));
            CoordError::Invalid(errors).into()
        }
        other => other.into(),
    }
}

/// Switches the strategy of a group (of all groups, if none is named), from the next cycle on, and for good: until the
/// configuration names another.
#[utoipa::path(
    post, path = "/api/coredinator/coordination/strategy", tag = "coordination", operation_id = "set_strategy",
    request_body(content = schema::StrategyChoice, content_type = "application/json"),
    responses(
        (status = 200, description = "it is in force", body = schema::CoordinationStatus),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such group", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "no such strategy, or options that it does not take", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable, or another coredinator leads", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn strategy(
    State(api): State<Api>,
    _: NoParams,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let coordinator = api.coordinator()?;
    let mut reader = FieldReader::new("", require_json(&headers, body, api.options.max_body).await?);
    let group: Option<String> = reader.optional("group");
    let choice = reader.raw("conflict_resolution");
    if choice.is_none() {
        reader.error("conflict_resolution", "is missing");
    }
    let choice = reader.finish(|| choice.unwrap_or_default()).map_err(Problem::invalid)?;
    let groups = match group {
        Some(group) => vec![group],
        None => coordinator.config().groups.keys().cloned().collect(),
    };
    for group in groups {
        coordinator
            .set_strategy(&group, choice.clone())
            .await
            .map_err(|error| Problem::from(error).under("/conflict_resolution"))?;
    }
    Ok(told(&coordinator.status()))
}

/// Changes how much there is of resources of a group, from the next cycle on, and for good: until the configuration says
/// something else about them. A cycle under way ends with what it began with.
#[utoipa::path(
    post, path = "/api/coredinator/coordination/resources", tag = "coordination", operation_id = "set_resources",
    request_body(content = schema::ResourceAmounts, content_type = "application/json"),
    responses(
        (status = 200, description = "it is in force", body = schema::CoordinationStatus),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such group", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "no such resource, or not an amount: all that is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable, or another coredinator leads", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn resources(
    State(api): State<Api>,
    _: NoParams,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let coordinator = api.coordinator()?;
    let mut reader = FieldReader::new("", require_json(&headers, body, api.options.max_body).await?);
    let group: Option<String> = reader.optional("group");
    let amounts = reader.parsed("resources", amounts);
    if amounts.is_none() && reader.is_clean() {
        reader.error("resources", "is missing");
    }
    let amounts = reader.finish(|| amounts.unwrap_or_default()).map_err(Problem::invalid)?;
    coordinator
        .set_resources(group.as_deref().unwrap_or(DEFAULT_GROUP), amounts)
        .await
        .map_err(|error| Problem::from(error).under("/resources"))?;
    Ok(told(&coordinator.status()))
}

/// Reads how much there is of each resource that is named.
fn amounts(pointer: &str, value: Value) -> Result<BTreeMap<String, Amount>, Vec<FieldError>> {
    let Value::Object(named) = value else {
        return Err(vec![FieldError::new(pointer, format!("must be an object, but is {}", kind(&value)))]);
    };
    if named.is_empty() {
        return Err(vec![FieldError::new(pointer, "names no resource")]);
    }
    let mut amounts = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, value) in named {
        match amount(&join(pointer, &name), value) {
            Ok(amount) => drop(amounts.insert(name, amount)),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() { Ok(amounts) } else { Err(errors) }
}

fn amount(pointer: &str, value: Value) -> Result<Amount, Vec<FieldError>> {
    if let Some(capacity) = value.as_f64() {
        return Ok(Amount { capacity, reserve: None });
    }
    if !value.is_object() {
        let detail = format!("must be a number or an object, but is {}", kind(&value));
        return Err(vec![FieldError::new(pointer, detail)]);
    }
    let mut reader = FieldReader::new(pointer, value);
    let capacity: Option<f64> = reader.optional("capacity");
    let reserve = reader.optional("reserve");
    if capacity.is_none() && reader.is_clean() {
        reader.error("capacity", "is missing");
    }
    reader.finish(|| Amount { capacity: capacity.unwrap_or_default(), reserve })
}

/// What happens in coordination: as it happens, or (`Accept: application/json`) the newest as a list.
///
/// Server-sent events have the event's number as `id` and the event as JSON `data`. With `Last-Event-ID` (or `after`) a
/// reader goes on where it was; 0 begins with the oldest that is kept. An event named `reset` says that some in between are
/// no longer kept. A comment goes out every 15 s of silence.
#[utoipa::path(
    get, path = "/api/coredinator/coordination/events", tag = "coordination", operation_id = "coordination_events",
    params(
        ("group" = Option<String>, Query, description = "those about one group alone"),
        ("limit" = Option<usize>, Query, description = "of a list: how many (default 100, at most 10000); of a stream: so many of the newest come first", minimum = 1, maximum = 18446744073709551615_u64),
        ("after" = Option<u64>, Query, description = "as `Last-Event-ID`, for clients that cannot set it", minimum = 0, maximum = 18446744073709551615_u64),
        ("Last-Event-ID" = Option<String>, Header, description = "the number of the last event that was received; one that is not known here is answered by a `reset`"),
    ),
    responses(
        (status = 200, description = "the events", content(
            (schema::CoordinationEvent = "text/event-stream"),
            (schema::CoordinationEventList = "application/json"),
        )),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such group", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "coordination is disabled", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(api): State<Api>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let group = params.text("group");
    let limit = limit(&mut params);
    let asked_after: Option<u64> = params.number("after");
    params.finish()?;
    let coordinator = api.coordinator()?;
    if let Some(group) = &group {
        // Whether there is such a group.
        coordinator.cycles(group, 0)?;
    }
    // What is not a number of ours is an old acquaintance of another server: it is told to begin anew.
    let last = headers
        .get("last-event-id")
        .map(|id| id.to_str().ok().and_then(|id| id.trim().parse().ok()).unwrap_or(u64::MAX));
    let after = last.or(asked_after);
    let of_group = |event: &Arc<CoordinationEvent>| {
        group.as_ref().is_none_or(|group| event.group.as_ref().is_none_or(|about| about == group))
    };
    let newest = |after: u64, limit: usize| {
        let mut events = coordinator.events(Some(after));
        let mut kept: VecDeque<Arc<CoordinationEvent>> =
            std::iter::from_fn(|| events.ready()).filter(|event| event.id > after).filter(of_group).collect();
        kept.drain(..kept.len().saturating_sub(limit));
        (kept, events)
    };
    if accepts(&headers, "application/json") && !accepts(&headers, EVENT_STREAM) {
        let (kept, _) = newest(after.unwrap_or(0), limit.unwrap_or(LISTED));
        return Ok(told(&json!({ "events": kept })));
    }
    let (first, cursor) = match (after, limit) {
        (None, Some(limit)) => newest(0, limit),
        _ => (VecDeque::new(), coordinator.events(after)),
    };
    let expected = after.map(|after| after.saturating_add(1));
    let reader = Reader { first, cursor, group, expected, waiting: None };
    Ok(send(&api, stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) })))
}

/// A reader of the stream.
struct Reader {
    /// What comes before the cursor's.
    first: VecDeque<Arc<CoordinationEvent>>,
    cursor: Events,
    group: Option<String>,
    /// The number that the next event has, unless some were forgotten; `None`: any will do.
    expected: Option<u64>,
    /// What comes after a reset.
    waiting: Option<Arc<CoordinationEvent>>,
}

impl Reader {
    async fn next(&mut self) -> Option<Sent> {
        if let Some(event) = self.first.pop_front() {
            return Some(sent(&event));
        }
        loop {
            let event = match self.waiting.take() {
                Some(event) => event,
                None => self.cursor.next().await?,
            };
            let expected = self.expected.replace(event.id + 1);
            if expected.is_some_and(|expected| expected != event.id) {
                self.expected = Some(event.id);
                self.waiting = Some(event);
                return Some(Sent::default().event("reset").data("{}"));
            }
            let wanted = |group: &String| event.group.as_ref().is_none_or(|about| about == group);
            if self.group.as_ref().is_none_or(wanted) {
                return Some(sent(&event));
            }
        }
    }
}

fn sent(event: &CoordinationEvent) -> Sent {
    let json = serde_json::to_string(event).unwrap_or_else(|_| unreachable!("an event is plain data"));
    Sent::default().id(event.id.to_string()).data(json)
}

fn group(params: &mut Params) -> String {
    params.text("group").unwrap_or_else(|| DEFAULT_GROUP.to_owned())
}

fn limit(params: &mut Params) -> Option<usize> {
    let limit: Option<usize> = params.number("limit");
    if limit == Some(0) {
        params.error("limit", "must be at least 1");
    }
    limit.map(|limit| limit.min(MOST))
}
