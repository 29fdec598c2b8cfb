//! What happened, as a list or as it happens.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response, sse::Event as Sent},
};
use coredinator_core::{Event, ServiceName};
use coredinator_registry::{EventCursor, EventItem};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::{
    model::ProblemDocument,
    params::Params,
    problem::Problem,
    schema,
    state::Api,
    stream::{EVENT_STREAM, accepts, send},
};

/// How many events a list holds unless `limit` says.
const LISTED: usize = 100;
/// More are not listed.
const MOST: usize = 10_000;

/// The newest events, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventList {
    /// The events.
    pub events: Vec<Arc<Event>>,
}

/// What happened: as it happens, or (`Accept: application/json`) the newest as a list.
///
/// Server-sent events have the event's number as `id` and the event as JSON `data`. With `Last-Event-ID` (or `after`) a
/// reader goes on where it was; 0 begins with the oldest that is kept. An event named `reset` says that some in between are
/// no longer kept. A comment goes out every 15 s of silence.
#[utoipa::path(
    get, path = "/api/coredinator/events", tag = "events", operation_id = "events",
    params(
        ("service" = Option<String>, Query, description = "those about one service alone", pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
        ("limit" = Option<usize>, Query, description = "of a list: how many (default 100, at most 10000); of a stream: so many of the newest come first", minimum = 1, maximum = 18446744073709551615_u64),
        ("after" = Option<u64>, Query, description = "as `Last-Event-ID`, for clients that cannot set it", minimum = 0, maximum = 18446744073709551615_u64),
        ("Last-Event-ID" = Option<String>, Header, description = "the number of the last event that was received; one that is not known here is answered by a `reset`"),
    ),
    responses(
        (status = 200, description = "the events", content(
            (schema::Event = "text/event-stream"),
            (schema::EventList = "application/json"),
        )),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(api): State<Api>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let service = params.read("service", ServiceName::new);
    let limit: Option<usize> = params.number("limit");
    if limit == Some(0) {
        params.error("limit", "must be at least 1");
    }
    let limit = limit.map(|limit| limit.min(MOST));
    let asked_after: Option<u64> = params.number("after");
    params.finish()?;
    // What is not a number of ours is an old acquaintance of another server: it is told to begin anew.
    let last = headers
        .get("last-event-id")
        .map(|id| id.to_str().ok().and_then(|id| id.trim().parse().ok()).unwrap_or(u64::MAX));
    let after = last.or(asked_after);
    if accepts(&headers, "application/json") && !accepts(&headers, EVENT_STREAM) {
        let mut events = api.registry.recent_events(limit.unwrap_or(LISTED), service.as_ref());
        events.retain(|event| after.is_none_or(|after| event.id > after));
        return Ok(Json(EventList { events }).into_response());
    }
    // The place is taken before the newest are read, so that nothing falls in between.
    let cursor = api.registry.events(after);
    let first = match (after, limit) {
        (None, Some(limit)) => api.registry.recent_events(limit, service.as_ref()).into(),
        _ => VecDeque::new(),
    };
    let told = first.back().map_or(0, |event: &Arc<Event>| event.id);
    let reader = Reader { first, cursor, service, told };
    Ok(send(&api, stream::unfold(reader, |mut reader| async move { Some((reader.next().await, reader)) })))
}

/// A reader of the stream.
struct Reader {
    /// What comes before the cursor's.
    first: VecDeque<Arc<Event>>,
    cursor: EventCursor,
    service: Option<ServiceName>,
    /// The last of `first`: what the cursor has up to there has been told.
    told: u64,
}

impl Reader {
    async fn next(&mut self) -> Sent {
        if let Some(event) = self.first.pop_front() {
            return sent(&event);
        }
        loop {
            match self.cursor.next().await {
                EventItem::Reset => return Sent::default().event("reset").data("{}"),
                EventItem::Event(event) => {
                    let wanted = self.service.as_ref().is_none_or(|service| *service == event.service);
                    if wanted && event.id > self.told {
                        return sent(&event);
                    }
                }
            }
        }
    }
}

fn sent(event: &Event) -> Sent {
    let json = serde_json::to_string(event).unwrap_or_else(|_| unreachable!("an event is plain data"));
    Sent::default().id(event.id.to_string()).data(json)
}
