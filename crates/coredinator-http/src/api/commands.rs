//! Commands about services, and their own word on how they are.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use coredinator_core::{Outcome, ProbeReport, field::FieldReader};
use coredinator_registry::{Command, ServiceView};

use super::{
    body::{read_json, require_json},
    model::{Heartbeat, ProblemDocument, Scale, Service},
    params::{NoParams, Params},
    problem::Problem,
    services::accepted,
    state::{Api, could_be_a_service},
    wait::{is_settled, until},
};

macro_rules! command {
    ($(#[$doc:meta])* $handler:ident, $path:literal, $id:literal, $command:expr) => {
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, tag = "commands", operation_id = $id,
            params(
                ("service_id" = String, Path, description = "the service's name"),
                ("wait" = Option<String>, Query, description = "how long to wait until it has settled, such as `30s`", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
            ),
            responses(
                (status = 200, description = "it has settled", body = Service),
                (status = 202, description = "it is under way", body = Service),
                (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
                (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
                (status = 409, description = "it is external, or being deregistered", body = ProblemDocument, content_type = "application/problem+json"),
                (status = 503, description = "the store is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
                (status = 504, description = "not settled within `wait`", body = ProblemDocument, content_type = "application/problem+json"),
            )
        )]
        pub(super) async fn $handler(
            State(api): State<Api>,
            Path(name): Path<String>,
            params: Params,
        ) -> Result<Response, Problem> {
            carry_out(&api, &name, params, $command).await
        }
    };
}

command! {
    /// Runs a service, also one that was stopped by hand or has ended. What runs is left alone.
    start, "/api/coredinator/services/{service_id}/start", "start_service", Command::Start
}

command! {
    /// Stops a service until it is started by hand.
    stop, "/api/coredinator/services/{service_id}/stop", "stop_service", Command::Stop
}

command! {
    /// Replaces every instance of a service by a new one; starts it if it does not run.
    restart, "/api/coredinator/services/{service_id}/restart", "restart_service", Command::Restart
}

/// Runs as many instances of a service, until the declared number changes.
#[utoipa::path(
    put, path = "/api/coredinator/services/{service_id}/scale", tag = "commands", operation_id = "scale_service",
    params(
        ("service_id" = String, Path, description = "the service's name"),
        ("wait" = Option<String>, Query, description = "how long to wait until it has settled, such as `30s`", pattern = "^([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+)$"),
    ),
    request_body(content = Scale, content_type = "application/json"),
    responses(
        (status = 200, description = "it has settled", body = Service),
        (status = 202, description = "it is under way", body = Service),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "it is external, or being deregistered", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not a number of instances that it can have", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "the store is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "not settled within `wait`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn scale(
    State(api): State<Api>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut reader = FieldReader::new("", require_json(&headers, body, api.options.max_body).await?);
    let replicas = reader.optional::<u32>("replicas");
    if replicas.is_none() && reader.is_clean() {
        reader.error("replicas", "the number of instances is missing");
    }
    let replicas = reader.finish(|| replicas.unwrap_or_default()).map_err(Problem::invalid)?;
    carry_out(&api, &name, params, Command::Scale(replicas)).await
}

async fn carry_out(api: &Api, name: &str, mut params: Params, command: Command) -> Result<Response, Problem> {
    let wait = params.wait();
    params.finish()?;
    could_be_a_service(name)?;
    let view = api.registry.command(name, command).await?;
    let Some(wait) = wait else { return Ok(accepted(api, &view)) };
    let settled = |view: Option<&ServiceView>| view.is_none_or(is_settled);
    let view = until(api, name, wait, settled).await?.ok_or_else(|| Problem::no_service(name))?;
    let mut response = accepted(api, &view);
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// Takes a service's own word that it lives. An empty body says that all is well.
#[utoipa::path(
    post, path = "/api/coredinator/services/{service_id}/heartbeat", tag = "health", operation_id = "heartbeat",
    params(("service_id" = String, Path, description = "the service's name")),
    request_body(content = Option<Heartbeat>, content_type = "application/json"),
    responses(
        (status = 204, description = "heard"),
        (status = 400, description = "malformed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service: register it (again)", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "it declares no heartbeat, or there is no such instance", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "not valid: all that is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    Path(name): Path<String>,
    _: NoParams,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let heard = match read_json(&headers, body, api.options.max_body).await? {
        None => Heartbeat::default(),
        Some(document) => {
            let mut reader = FieldReader::new("", document);
            let heard = Heartbeat {
                status: reader.optional("status"),
                message: reader.optional("message"),
                instance_id: reader.optional("instance_id"),
            };
            reader.finish(|| heard).map_err(Problem::invalid)?
        }
    };
    api.service(&name)?;
    let outcome = heard.status.unwrap_or(Outcome::Pass);
    let report = ProbeReport::new(outcome, heard.message.unwrap_or_default());
    api.registry.heartbeat(&name, heard.instance_id.as_ref(), report.outcome, &report.message)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
