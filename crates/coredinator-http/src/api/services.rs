//! Services: listed, told, registered, deregistered.

use std::{collections::hash_map::DefaultHasher, hash::Hasher, sync::Arc};

use axum::{
    body::Body,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use coredinator_core::{HealthCheck, Origin, ProbeSpec, ServiceSpec, ServiceStatus};
use coredinator_registry::{Declared, ServiceView};

use super::{
    body::require_json,
    edge,
    model::{ProblemDocument, Service, ServiceList},
    params::Params,
    problem::Problem,
    schema,
    state::{Api, could_be_a_service},
    wait::{LongPoll, until},
};

/// What became of a declaration: `created`, `unchanged`, or `replaced`.
const DECLARED: HeaderName = HeaderName::from_static("x-coredinator-declared");
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-coredinator-index");

/// More services on a page are not given, whatever `limit` says.
const LARGEST_PAGE: usize = 1000;

/// The page that is asked for, and of which services.
#[derive(Debug, Default)]
struct Filter {
    labels: Vec<(String, Option<String>)>,
    statuses: Vec<ServiceStatus>,
    text: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl Filter {
    fn read(params: &mut Params) -> Self {
        let mut read = Self::default();
        let selectors = params.all("selector");
        let labels = params.all("label");
        for selector in labels.iter().map(String::as_str).chain(selectors.iter().flat_map(|all| all.split(','))) {
            match selector.trim().split_once('=') {
                Some((key, value)) => read.labels.push((key.to_owned(), Some(value.to_owned()))),
                None => read.labels.push((selector.trim().to_owned(), None)),
            }
        }
        for word in params.all("status").iter().flat_map(|all| all.split(',')) {
            match word.trim().parse() {
                Ok(status) => read.statuses.push(status),
                Err(error) => params.error("status", error),
            }
        }
        read.text = params.text("q").map(|text| text.to_lowercase());
        read.limit = params.number("limit");
        if read.limit == Some(0) {
            params.error("limit", "must be at least 1");
        }
        read.limit = read.limit.map(|limit| limit.clamp(1, LARGEST_PAGE));
        if let Some(token) = params.text("page_token").filter(|token| !token.is_empty()) {
            match token.split_once('.') {
                Some((digest, after)) if digest == read.digest() => read.after = Some(after.to_owned()),
                _ => params.error("page_token", "is not one that was given out for these parameters; begin anew"),
            }
        }
        read
    }

    fn is_all(&self) -> bool {
        let Self { labels, statuses, text, limit, after } = self;
        labels.is_empty() && statuses.is_empty() && text.is_none() && limit.is_none() && after.is_none()
    }

    fn matches(&self, view: &ServiceView) -> bool {
        let spec = &view.record.spec;
        let label = |(key, value): &(String, Option<String>)| {
            spec.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        let holds = |text: &String| {
            [spec.name.as_str(), spec.version.as_deref().unwrap_or_default()]
                .into_iter()
                .chain(spec.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]))
                .any(|part| part.to_lowercase().contains(text))
        };
        self.labels.iter().all(label)
            && (self.statuses.is_empty() || self.statuses.contains(&view.status))
            && self.text.as_ref().is_none_or(holds)
    }

    /// Tells one filter's page tokens from another's.
    fn digest(&self) -> String {
        let mut hasher = DefaultHasher::new();
        hasher.write(format!("{:?}{:?}{:?}", self.labels, self.statuses, self.text).as_bytes());
        format!("{:08x}", hasher.finish() as u32)
    }

    /// The page, and the token of the next one.
    fn page(&self, services: Vec<Arc<ServiceView>>) -> (Vec<Arc<ServiceView>>, String) {
        let beyond = |view: &Arc<ServiceView>| self.after.as_deref().is_none_or(|after| view.name().as_str() > after);
        let mut found = services.into_iter().filter(|view| beyond(view) && self.matches(view));
        let Some(limit) = self.limit else { return (found.collect(), String::new()) };
        let page: Vec<_> = found.by_ref().take(limit).collect();
        let token = match (found.next(), page.last()) {
            (Some(_), Some(last)) => format!("{}.{}", self.digest(), last.name()),
            _ => String::new(),
        };
        (page, token)
    }
}

/// All services, or those that match, in the order of their names.
///
/// Without `limit` all are on one page. With `index` it is answered when something has changed since, or after `wait`.
#[utoipa::path(
    get, path = "/api/coredinator/services", tag = "services", operation_id = "list_services",
    params(
        ("label" = Option<Vec<String>>, Query, description = "`key=value`, or `key` alone; all must hold", explode = true),
        ("selector" = Option<String>, Query, description = "the same, several joined by commas"),
        ("status" = Option<Vec<schema::ServiceStatus>>, Query, description = "any of these; may be joined by commas", explode = true),
        ("q" = Option<String>, Query, description = "a text in the name, version or labels"),
        ("limit" = Option<usize>, Query, description = "services on a page, 1000 at most", minimum = 1, maximum = 18446744073709551615_u64),
        ("page_token" = Option<String>, Query, description = "the `next_page_token` of the page before"),
        ("index" = Option<u64>, Query, description = "wait until `X-Coredinator-Index` is another", minimum = 0, maximum = 18446744073709551615_u64),
        ("wait" = Option<String>, Query, description = "how long, such as `30s` (default 5 min, at most 10 min)", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
    ),
    responses(
        (status = 200, description = "the services", body = ServiceList,
            headers(("X-Coredinator-Index" = u64), ("ETag" = String), ("Link" = String, description = "the next page"))),
        (status = 304, description = "as `If-None-Match` says"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "shutting down", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    uri: axum::http::Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut filter = Filter::default();
    if uri.query().is_some_and(|query| !query.is_empty()) {
        let mut params = Params::new(&uri)?;
        filter = Filter::read(&mut params);
        let poll = LongPoll::read(&mut params);
        params.finish()?;
        if let Some(poll) = poll {
            let Ok(()) = poll.ended(&api, || Ok::<_, std::convert::Infallible>(*api.index.borrow())).await;
        }
    }
    let index = *api.index.borrow();
    if let Some(unchanged) = unchanged(&api, &headers, index) {
        return Ok(unchanged);
    }
    if filter.is_all() {
        let kept = api.renderer.kept_list(index);
        let json = kept.unwrap_or_else(|| api.renderer.full_list(index, &api.registry.services(), api.now()));
        return Ok(told(&api, index, json));
    }
    let (page, token) = filter.page(api.registry.services());
    let mut response = told(&api, index, api.renderer.list_of(&page, &token, api.now()));
    if !token.is_empty() {
        let rest = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("page_token="));
        let link = format!("<{}?{}&page_token={token}>; rel=\"next\"", uri.path(), rest.collect::<Vec<_>>().join("&"));
        response.headers_mut().extend(HeaderValue::from_str(&link).ok().map(|link| (header::LINK, link)));
    }
    Ok(response)
}

/// One service.
///
/// With `index` it is answered when the service has changed since, or after `wait`.
#[utoipa::path(
    get, path = "/api/coredinator/services/{service_id}", tag = "services", operation_id = "get_service",
    params(
        ("service_id" = String, Path, description = "the service's name"),
        ("index" = Option<u64>, Query, description = "wait until the service's `index` is another", minimum = 0, maximum = 18446744073709551615_u64),
        ("wait" = Option<String>, Query, description = "how long, such as `30s` (default 5 min, at most 10 min)", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
    ),
    responses(
        (status = 200, description = "the service", body = Service,
            headers(("X-Coredinator-Index" = u64), ("ETag" = String, description = "covers all but check results and uptimes"))),
        (status = 304, description = "as `If-None-Match` says"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let poll = LongPoll::read(&mut params);
    params.finish()?;
    let mut view = api.service(&name)?;
    if let Some(poll) = poll {
        poll.ended(&api, || api.service(&name).map(|view| view.index)).await?;
        view = api.service(&name)?;
    }
    let answer = unchanged(&api, &headers, view.index);
    Ok(answer.unwrap_or_else(|| told(&api, view.index, api.renderer.service(&view, || api.now()))))
}

/// Registers a service: an external one, or one to run.
///
/// Registering again with the same document changes nothing. `status` and `last_health_check` are passed over: they are
/// coredinator's to tell. Without authentication, what names something to be run is taken from this machine alone.
#[utoipa::path(
    post, path = "/api/coredinator/services/register", tag = "services", operation_id = "register_service",
    params(("replace" = Option<bool>, Query, description = "change a service that is registered differently")),
    request_body(content = schema::ServiceDocument, content_type = "application/json"),
    responses(
        (status = 200, description = "it was registered like this before, or has been replaced", body = Service,
            headers(("X-Coredinator-Declared" = String, description = "`unchanged` or `replaced`"))),
        (status = 201, description = "it is registered", body = Service,
            headers(("Location" = String), ("X-Coredinator-Declared" = String, description = "`created`"))),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "not from there", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "it is registered differently", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid: all that is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store or the validator is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    peer: Option<axum::Extension<ConnectInfo<std::net::SocketAddr>>>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let replace = params.switch("replace");
    params.finish()?;
    let mut document = require_json(&headers, body, api.options.max_body).await?;
    if let Some(fields) = document.as_object_mut() {
        // The specification's record has them; they are written by coredinator alone.
        for observed in ["status", "last_health_check"] {
            fields.remove(observed);
        }
    }
    let spec = ServiceSpec::parse("", None, document, &api.spec_defaults()).map_err(Problem::invalid)?;
    let peer = peer.map(|axum::Extension(ConnectInfo(peer))| peer);
    if runs_something(&spec) && !edge::is_local(&headers, peer) {
        let detail = "services that name something to be run are registered from this machine alone, because callers are \
                      not authenticated";
        return Err(Problem::new(StatusCode::FORBIDDEN, "RemoteCommand", detail));
    }
    let invalid = api.runtimes.validate(&spec);
    if !invalid.is_empty() {
        return Err(Problem::invalid(invalid));
    }
    let (declared, view) = api.registry.declare(spec, Origin::Api, replace).await?;
    let mut response = told(&api, view.index, api.renderer.service(&view, || api.now()));
    let became = match declared {
        Declared::Created => "created",
        Declared::Unchanged => "unchanged",
        Declared::Replaced => "replaced",
    };
    response.headers_mut().insert(DECLARED, HeaderValue::from_static(became));
    if declared == Declared::Created {
        *response.status_mut() = StatusCode::CREATED;
        let location = format!("/api/coredinator/services/{}", view.name());
        response.headers_mut().extend(HeaderValue::from_str(&location).ok().map(|value| (header::LOCATION, value)));
    }
    Ok(response)
}

/// Deregisters a service. Instances of a managed one are stopped first.
#[utoipa::path(
    delete, path = "/api/coredinator/services/{service_id}", tag = "services", operation_id = "deregister_service",
    params(
        ("service_id" = String, Path, description = "the service's name"),
        ("wait" = Option<String>, Query, description = "how long to wait until it is gone, such as `30s`", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
    ),
    responses(
        (status = 202, description = "its instances are being stopped", body = Service),
        (status = 204, description = "it is gone"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "not gone within `wait`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn deregister(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = params.wait();
    params.finish()?;
    could_be_a_service(&name)?;
    api.registry.deregister(&name).await?;
    let gone = |view: Option<&ServiceView>| view.is_none_or(|view| !view.record.deleting);
    if let Some(wait) = wait {
        until(&api, &name, wait, gone).await?;
    }
    match api.registry.service(&name).ok().filter(|view| !gone(Some(view))) {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(view) => Ok(accepted(&api, &view)),
    }
}

/// 202 with a service as it stands.
pub(super) fn accepted(api: &Api, view: &ServiceView) -> Response {
    let mut response = told(api, view.index, api.renderer.service(view, || api.now()));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// Whether a spec names something that is carried out on this machine.
pub(super) fn runs_something(spec: &ServiceSpec) -> bool {
    let by_check = |check: &Option<HealthCheck>| {
        check.as_ref().is_some_and(|check| matches!(check.probe, ProbeSpec::Command { .. } | ProbeSpec::Custom { .. }))
    };
    spec.is_managed() || by_check(&spec.health_check) || by_check(&spec.readiness_check)
}

/// 304, if the client has what is at `index`.
fn unchanged(api: &Api, headers: &HeaderMap, index: u64) -> Option<Response> {
    let known = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let tag = api.renderer.tag(index);
    let matches = known.split(',').map(str::trim).any(|one| one == "*" || one == tag);
    matches.then(|| {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        set_index(api, index, response.headers_mut());
        response
    })
}

/// 200 with JSON that is at `index`.
fn told(api: &Api, index: u64, json: Bytes) -> Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set_index(api, index, headers);
    response
}

fn set_index(api: &Api, index: u64, headers: &mut HeaderMap) {
    headers.insert(INDEX, HeaderValue::from(index));
    headers.extend(HeaderValue::try_from(api.renderer.tag(index)).ok().map(|tag| (header::ETAG, tag)));
}
