//! The edge that every request passes: ids, refusals by origin, time-outs, panics, and problems written out.

use std::{net::SocketAddr, panic::AssertUnwindSafe};

use axum::{
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use super::{
    params::asked_wait,
    problem::{Problem, gave_up},
    state::{Api, ApiOptions},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// For how many seconds the store has not been reached: what is told may be that old. Absent where it is reached.
const STALE: HeaderName = HeaderName::from_static("x-coredinator-stale");

/// A response that is what it should be, although its status is an error's.
#[derive(Debug, Clone, Copy)]
pub(super) struct AsItIs;

/// The whole path of a request, wherever routing has got to.
#[derive(Debug, Clone)]
pub(super) struct AskedFor(pub(super) Uri);

/// What every request passes.
pub(super) async fn edge(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    request.extensions_mut().insert(AskedFor(uri.clone()));
    let response = match refuse_foreign(&request, &api.options) {
        Some(problem) => problem.into_response(),
        None => answer(&api.options, request, next).await,
    };
    let mut response = explain(response, &uri, &id).await;
    tracing::debug!(%method, path = uri.path(), status = response.status().as_u16(), id = ?id, "answered");
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(stale) = api.registry.stale_for() {
        response.headers_mut().insert(STALE, stale.as_secs().into());
    }
    response
}

async fn answer(options: &ApiOptions, request: Request, next: Next) -> Response {
    let patience = options.timeout + asked_wait(request.uri());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            tracing::error!(panic = words.unwrap_or("of unknown cause"), "a request's handler panicked");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", "something that should not happen did")
                .into_response()
        }
        Err(_) => gave_up(patience).into_response(),
    }
}

/// The id that the client gave, if it is fit to be printed, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=128).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
    };
    headers.get(REQUEST_ID).filter(fit).cloned().unwrap_or_else(|| {
        let random = fastrand::u64(..);
        let digits: [u8; 16] = std::array::from_fn(|i| b"0123456789abcdef"[(random >> (4 * i)) as usize & 15]);
        HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// Writes out problems, those too that were not told as such (by routing, by extractors).
async fn explain(mut response: Response, uri: &Uri, id: &HeaderValue) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || response.extensions().get::<AsItIs>().is_some() {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => of_plain(&mut response, uri).await,
    };
    let mut written = problem.write(uri.path(), id.to_str().unwrap_or("-"));
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        written.headers_mut().insert(header::ALLOW, allow);
    }
    written
}

/// The problem behind a plain response of the framework, whose short text is the detail.
async fn of_plain(response: &mut Response, uri: &Uri) -> Problem {
    let status = response.status();
    let body = to_bytes(std::mem::replace(response.body_mut(), Body::empty()), 4096).await.unwrap_or_default();
    let detail = match (std::str::from_utf8(&body), status) {
        (_, StatusCode::METHOD_NOT_ALLOWED) => {
            "this path does not take this method; the header Allow names those it takes".to_owned()
        }
        (Ok(text), _) if !text.is_empty() => text.to_owned(),
        (_, StatusCode::NOT_FOUND) => format!("there is nothing at {}; /docs tells what there is", shown(uri.path())),
        _ => status.canonical_reason().unwrap_or("error").to_lowercase(),
    };
    Problem::of_status(status, detail)
}

fn shown(path: &str) -> String {
    let mut shown: String = path.chars().take(128).collect();
    if shown.len() < path.len() {
        shown.push('…');
    }
    shown
}

/// Refuses what a page of another site makes a browser send here.
///
/// Browsers name the page's origin with everything that changes something. It must be the host that the request was
/// sent to; and where that is this machine, that must be its own name and not one that somebody else's name server made
/// point here.
fn refuse_foreign(request: &Request, options: &ApiOptions) -> Option<Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let origin = request.headers().get(header::ORIGIN)?;
    let refused = |detail: String| Some(Problem::new(StatusCode::FORBIDDEN, "CrossOrigin", detail));
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    if host.is_empty() || !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
        return refused(format!("a page of {origin:?} may not change anything here"));
    }
    let name = host_name(host);
    let ours = name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || options.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if is_local(request.headers(), peer(request.extensions())) && !ours {
        return refused(format!("{name:?} is not a name of this machine that is known here"));
    }
    None
}

/// The host of an authority, without its port and brackets.
fn host_name(authority: &str) -> &str {
    if let Some((inside, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside;
    }
    authority.split_once(':').map_or(authority, |(name, _)| name)
}

/// Who sent a request; `None` where that is not known.
pub(super) fn peer(extensions: &axum::http::Extensions) -> Option<SocketAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}

/// Whether a request comes from this machine, and not through a proxy on it.
pub(super) fn is_local(headers: &HeaderMap, peer: Option<SocketAddr>) -> bool {
    let forwarded = headers.contains_key(header::FORWARDED) || headers.contains_key("x-forwarded-for");
    !forwarded && peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_over_if_they_are_fit() {
        let with = |id: &str| request_id(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())]));
        assert_eq!(with("a-1.b:c_D"), "a-1.b:c_D");
        for unfit in ["", "a b", "<x>", &"x".repeat(129)] {
            assert_eq!(with(unfit).len(), 16, "{unfit}");
        }
    }

    #[test]
    fn hosts_lose_their_port() {
        for (authority, name) in [("a:1", "a"), ("a", "a"), ("[::1]:80", "::1"), ("127.0.0.1:8002", "127.0.0.1")] {
            assert_eq!(host_name(authority), name);
        }
    }

    #[test]
    fn a_proxy_on_this_machine_speaks_for_others() {
        let here = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
        let mapped = Some("[::ffff:127.0.0.1]:1".parse().unwrap());
        let forwarded =
            HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("1"))]);
        assert!(is_local(&HeaderMap::new(), here) && is_local(&HeaderMap::new(), mapped));
        assert!(!is_local(&forwarded, here) && !is_local(&HeaderMap::new(), None));
        assert!(!is_local(&HeaderMap::new(), Some(SocketAddr::from(([192, 0, 2, 1], 1)))));
    }
}
