//! How everything is: services, the machine, coredinator itself.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use coredinator_core::{HealthCheck, InstanceRecord, ServiceStatus};
use coredinator_registry::{
    ServiceView,
    health::{CheckCell, CheckResult as Kept},
};

use super::{
    edge::AsItIs,
    forward::PASSED_ON_BY,
    leadership,
    model::{
        Check, CheckKind, CheckResult, Health, HealthOfService, OverallStatus, ProblemDocument, ReplicaRole,
        ServiceHealth, SystemHealth, SystemMetrics, Version,
    },
    params::{NoParams, Params},
    problem::Problem,
    render::{as_millis, millis, summary},
    state::Api,
};

/// What the status of one service means for the whole.
fn weight(status: ServiceStatus) -> OverallStatus {
    match status {
        ServiceStatus::Healthy | ServiceStatus::Stopped | ServiceStatus::Completed => OverallStatus::Healthy,
        ServiceStatus::Degraded | ServiceStatus::Starting | ServiceStatus::Unknown => OverallStatus::Degraded,
        ServiceStatus::Unhealthy | ServiceStatus::Backoff | ServiceStatus::Failed => OverallStatus::Unhealthy,
    }
}

/// The worst of all services.
fn overall<'a>(services: impl IntoIterator<Item = &'a ServiceStatus>) -> OverallStatus {
    services.into_iter().map(|status| weight(*status)).max().unwrap_or(OverallStatus::Healthy)
}

/// The health of every service and of the machine.
///
/// Told from memory: it is as quick when a service is not. The HTTP status tells of coredinator itself, so that nothing
/// restarts it because of a service.
#[utoipa::path(
    get, path = "/api/coredinator/health", tag = "health", operation_id = "system_health",
    responses(
        (status = 200, description = "coredinator is ready, whatever its services", body = SystemHealth),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "coredinator is coming up or going down", body = SystemHealth),
    )
)]
pub(super) async fn system(State(api): State<Api>, _: NoParams, headers: HeaderMap) -> Response {
    // Asked by another replica, it tells what it knows itself.
    let alone = headers.contains_key(PASSED_ON_BY);
    let peers = if alone { Vec::new() } else { api.peers.ask(&api).await };
    let services = api.registry.services();
    let of_service = |view: &ServiceView| HealthOfService {
        status: view.status,
        last_check: view.last_check().map(millis),
        response_time: view.response_time().map(|time| format!("{}ms", as_millis(time).round())),
    };
    let ready = api.ready.borrow().is_ready();
    let mut told: BTreeMap<_, _> = services.iter().map(|view| (view.name().clone(), of_service(view))).collect();
    for view in &services {
        let elsewhere = !view.instances.iter().any(|i| is_checked_here(&api, view, Some(&i.record)))
            && !is_checked_here(&api, view, None);
        // Of the newest result of its checks those know who make them.
        let newer = peers.iter().filter_map(|peer| peer.services.get(view.name()));
        if let (true, Some(kept)) = (elsewhere, told.get_mut(view.name())) {
            for newer in newer {
                if newer.last_check > kept.last_check {
                    kept.clone_from(newer);
                }
            }
        }
    }
    let status = if ready { overall(told.values().map(|health| &health.status)) } else { OverallStatus::Unhealthy };
    let uptime = api.now().duration_since(api.info.started_at).as_secs();
    answer(
        ready,
        Json(SystemHealth {
            status,
            services: told,
            system_metrics: SystemMetrics {
                cpu_usage: format!("{}%", api.system.cpu()),
                memory_usage: format!("{}%", api.system.memory()),
                active_agents: peers
                    .iter()
                    .find(|peer| peer.leadership.role == ReplicaRole::Leader)
                    .map_or_else(|| active_agents(&api), |leader| leader.system_metrics.active_agents),
            },
            version: api.info.version.clone(),
            uptime_seconds: u64::try_from(uptime).unwrap_or(0),
            ready,
            reload: api
                .options
                .reloader
                .as_ref()
                .and_then(crate::reload::Reloader::last)
                .map(|last| super::model::Reload { at: millis(last.at), error: last.error }),
            leadership: leadership::in_short(&api),
        }),
    )
}

fn is_checked_here(api: &Api, view: &ServiceView, instance: Option<&InstanceRecord>) -> bool {
    api.registry.place().checks(&view.record, instance)
}

/// How many agents take part in coordination; none where it is disabled.
fn active_agents(api: &Api) -> u32 {
    let agents = api.coordinator().map_or(0, coredinator_coord::Coordinator::active_agents);
    u32::try_from(agents).unwrap_or(u32::MAX)
}

/// 200 or 503 with the same document.
fn answer(ready: bool, document: impl IntoResponse) -> Response {
    let mut response = document.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.extensions_mut().insert(AsItIs);
    }
    response
}

/// Whether coredinator is ready, for load balancers and container engines.
#[utoipa::path(
    get, path = "/health", tag = "server", operation_id = "health",
    responses(
        (status = 200, description = "ready", body = Health),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "coming up or going down", body = Health),
    )
)]
pub(super) async fn health(State(api): State<Api>, _: NoParams) -> Response {
    let ready = api.ready.borrow().is_ready();
    let services = api.registry.services();
    let status = match (ready, overall(services.iter().map(|view| &view.status))) {
        (false, _) => OverallStatus::Unhealthy,
        (true, OverallStatus::Healthy) => OverallStatus::Healthy,
        (true, _) => OverallStatus::Degraded,
    };
    answer(ready, Json(Health { status }))
}

/// Whether the process answers at all.
#[utoipa::path(
    get, path = "/livez", tag = "server", operation_id = "livez",
    responses(
        (status = 200, description = "it does", body = String, content_type = "text/plain"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn livez(_: NoParams) -> &'static str {
    "ok\n"
}

/// Whether it should be asked: not while it is coming up or going down.
#[utoipa::path(
    get, path = "/readyz", tag = "server", operation_id = "readyz",
    params(("verbose" = Option<bool>, Query, description = "tell more")),
    responses(
        (status = 200, description = "ready", body = String, content_type = "text/plain"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "coming up or going down", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn readyz(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let verbose = params.switch("verbose");
    params.finish()?;
    let readiness = *api.ready.borrow();
    let ready = readiness.is_ready();
    let mark = if ready { "+" } else { "-" };
    let text = match (verbose, ready) {
        (false, true) => "ok\n".to_owned(),
        (false, false) => format!("{readiness}\n"),
        (true, _) => {
            let services = api.registry.services().len();
            let leadership = leadership::in_lines(&api);
            format!("[+]registry ok: {services} services\n{leadership}[{mark}]server {readiness}\n")
        }
    };
    Ok(answer(ready, text))
}

/// What this server is.
#[utoipa::path(
    get, path = "/version", tag = "server", operation_id = "version",
    responses(
        (status = 200, description = "this", body = Version),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn version(State(api): State<Api>, _: NoParams) -> Json<Version> {
    Json(Version {
        name: "coredinator".to_owned(),
        version: api.info.version.clone(),
        started_at: millis(api.info.started_at),
        address: api.info.address.map(|address| address.to_string()).unwrap_or_default(),
    })
}

/// The health of one service, check by check, with the last results.
#[utoipa::path(
    get, path = "/api/coredinator/services/{service_id}/health", tag = "health", operation_id = "service_health",
    params(
        ("service_id" = String, Path, description = "the service's name"),
        ("fresh" = Option<bool>, Query, description = "make all of its checks now, and answer when they have answered"),
    ),
    responses(
        (status = 200, description = "its health, good or bad", body = ServiceHealth),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "the checks did not answer in time", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_service(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<Json<ServiceHealth>, Problem> {
    let fresh = params.switch("fresh");
    params.finish()?;
    let mut view = api.service(&name)?;
    if fresh {
        view = api.registry.check_now(&name).await?;
    }
    Ok(Json(ServiceHealth::new(&view)))
}

impl ServiceHealth {
    /// What the checks behind `view` say.
    #[must_use]
    pub fn new(view: &ServiceView) -> Self {
        let spec = &view.record.spec;
        let check = |kind, spec: &Option<HealthCheck>, cell: &CheckCell| {
            let now = cell.snapshot();
            Check {
                kind,
                probe: spec.as_ref().map(|check| check.probe.kind().to_owned()).unwrap_or_default(),
                replica: None,
                instance_id: None,
                since: now.since.map(millis),
                checks: now.checks,
                failures: now.failures,
                now: summary(now),
                history: cell.history().into_iter().map(CheckResult::from).collect(),
            }
        };
        let external = view.check.iter().map(|cell| check(CheckKind::Health, &spec.health_check, cell));
        let of_instances = view.instances.iter().flat_map(|instance| {
            let health = instance.health.iter().map(|cell| check(CheckKind::Health, &spec.health_check, cell));
            let readiness =
                instance.readiness.iter().map(|cell| check(CheckKind::Readiness, &spec.readiness_check, cell));
            let of = |check| Check {
                replica: Some(instance.record.replica),
                instance_id: instance.record.id.clone(),
                ..check
            };
            health.chain(readiness).map(of).collect::<Vec<_>>()
        });
        Self {
            service: view.name().clone(),
            status: view.status,
            reason: view.reason.message.clone(),
            reason_code: view.reason.code.clone(),
            since: millis(view.since),
            last_check: view.last_check().map(millis),
            response_time_ms: view.response_time().map(as_millis),
            checks: external.chain(of_instances).collect(),
        }
    }
}

impl From<Kept> for CheckResult {
    fn from(result: Kept) -> Self {
        Self {
            at: millis(result.at),
            outcome: result.outcome,
            response_time_ms: result.response_time.map(as_millis),
            message: result.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_as_its_worst_service() {
        use ServiceStatus as S;
        for (services, expected) in [
            (&[][..], OverallStatus::Healthy),
            (&[S::Healthy, S::Stopped, S::Completed], OverallStatus::Healthy),
            (&[S::Healthy, S::Starting], OverallStatus::Degraded),
            (&[S::Unknown], OverallStatus::Degraded),
            (&[S::Degraded, S::Backoff], OverallStatus::Unhealthy),
            (&[S::Failed, S::Healthy], OverallStatus::Unhealthy),
        ] {
            assert_eq!(overall(services), expected, "{services:?}");
        }
    }
}
