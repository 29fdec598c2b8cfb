//! Requests that another replica has to answer: passed on to it over HTTP, once.
//!
//! What is decided about agents is the leader's; what instances wrote, and what their checks say in full, is known where they
//! are looked after. A request that was passed on already is never passed on again: two replicas that each believe in the
//! other do not send it to and fro.

use axum::{
    body::{Body, HttpBody},
    extract::{RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use coredinator_core::NodeName;
use coredinator_registry::{
    ServiceView,
    leadership::{Reach, Seat},
};
use futures_util::StreamExt;

use super::{
    edge::{AsItIs, AskedFor, peer},
    problem::{Problem, chain},
    state::Api,
};

/// Says which replica has passed a request on.
pub(super) const PASSED_ON_BY: HeaderName = HeaderName::from_static("x-coredinator-passed-on-by");
/// Says which replica has answered, where that is not the one that was asked.
const ANSWERED_BY: HeaderName = HeaderName::from_static("x-coredinator-answered-by");

/// What holds of one connection alone, or is made anew for the next.
const OF_THE_CONNECTION: [HeaderName; 11] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    // It was looked at here, where it came in.
    header::ORIGIN,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Has the leader answer.
pub(super) async fn to_leader(State(api): State<Api>, request: Request, next: Next) -> Response {
    pass_on(&api, &Seat::Leader, request, next).await
}

/// Has the replica answer that looks after a service.
pub(super) async fn to_owner(State(api): State<Api>, params: RawPathParams, request: Request, next: Next) -> Response {
    match named(&api, &params) {
        Some(view) => {
            let seat = seat(&api, &view);
            pass_on(&api, &seat, request, next).await
        }
        None => next.run(request).await,
    }
}

/// The same of a question without a body, where what is known here has to do if that replica cannot be reached.
pub(super) async fn to_owner_if_reached(
    State(api): State<Api>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let place = api.registry.place();
    let reach = named(&api, &params).map(|view| place.reach(&seat(&api, &view)));
    let Some(Ok(Reach::At { node, address })) = reach.filter(|_| !is_passed_on(&request)) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let asked = Request::from_parts(parts.clone(), Body::empty());
    let us = place.node().cloned();
    match send(&api, us.as_ref(), &node, &address, asked).await {
        Ok(response) => response,
        Err(_) => next.run(Request::from_parts(parts, body)).await,
    }
}

/// Has the replica of the node answer on which a service's instances live; what all replicas reach alike is answered here.
pub(super) async fn to_node(State(api): State<Api>, params: RawPathParams, request: Request, next: Next) -> Response {
    match named(&api, &params).map(|view| seat(&api, &view)) {
        Some(seat @ Seat::Node(_)) => pass_on(&api, &seat, request, next).await,
        _ => next.run(request).await,
    }
}

fn named(api: &Api, params: &RawPathParams) -> Option<std::sync::Arc<ServiceView>> {
    let name = params.iter().find(|(key, _)| *key == "service_id").map(|(_, name)| name)?;
    api.service(name).ok()
}

/// Where a service is looked after: where its instances live, while any do.
fn seat(api: &Api, view: &ServiceView) -> Seat {
    let place = api.registry.place();
    let live = view.instances.iter().find(|instance| instance.record.state.is_live());
    live.map_or_else(|| place.seat(&view.record), |live| place.seat_of_instance(&view.record, &live.record))
}

fn is_passed_on(request: &Request) -> bool {
    request.headers().contains_key(PASSED_ON_BY)
}

async fn pass_on(api: &Api, seat: &Seat, request: Request, next: Next) -> Response {
    let place = api.registry.place();
    let (node, address) = match place.reach(seat) {
        Ok(Reach::Here) => return next.run(request).await,
        Ok(Reach::At { node, address }) => (node, address),
        Err(why) => return nobody(seat, &why).into_response(),
    };
    if is_passed_on(&request) {
        return nobody(seat, &format!("this replica was asked by another, and believes that node {node} does"))
            .into_response();
    }
    let us = place.node().cloned();
    send(api, us.as_ref(), &node, &address, request).await.unwrap_or_else(IntoResponse::into_response)
}

/// 503: who would have to answer is not there.
fn nobody(seat: &Seat, why: &str) -> Problem {
    let (code, who) = match seat {
        Seat::Leader => ("NoLeader", "no replica that leads can answer"),
        Seat::Node(_) | Seat::Nowhere => ("NodeUnreachable", "the replica that looks after this cannot answer"),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, format!("{who}: {why}")).retryable()
}

async fn send(
    api: &Api,
    us: Option<&NodeName>,
    node: &NodeName,
    address: &str,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // Within a nested router the path is only its rest.
    let uri = parts.extensions.get::<AskedFor>().map_or(&parts.uri, |asked| &asked.0);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = parts.headers.clone();
    of_the_message(&mut headers);
    let name = |node: &NodeName| HeaderValue::from_str(node.as_str()).ok();
    headers.extend(us.and_then(name).map(|us| (PASSED_ON_BY, us)));
    if let Some(from) = peer(&parts.extensions).and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok()) {
        headers.append("x-forwarded-for", from);
    }
    let mut sent = api.forwarder.request(parts.method, format!("{address}{path}")).headers(headers);
    if !body.is_end_stream() {
        sent = sent.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    let answer = sent.send().await.map_err(|error| {
        let detail = format!("node {node} at {address} did not answer: {}", chain(&error));
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NodeUnreachable", detail).retryable()
    })?;
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    of_the_message(&mut headers);
    headers.remove("x-request-id");
    headers.extend(name(node).map(|node| (ANSWERED_BY, node)));
    let until = api.shutdown.clone().cancelled_owned();
    let mut response = Response::new(Body::from_stream(answer.bytes_stream().take_until(until)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // A refusal is the other's, in its own words.
    response.extensions_mut().insert(AsItIs);
    Ok(response)
}

fn of_the_message(headers: &mut HeaderMap) {
    for name in &OF_THE_CONNECTION {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}
