//! The API's description, made from the code.

use utoipa::{
    Modify, OpenApi,
    openapi::{ContentBuilder, Ref, ResponseBuilder, path::Operation},
};

use super::{
    agents, commands, config, coordination, database, discovery, events, health, inspect, leadership, logs, metrics,
    services,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "coredinator",
        description = "The control plane for fleets of reinforcement-learning services that share one plant.\n\nErrors are \
                       `application/problem+json` (RFC 9457). Every answer carries `X-Request-Id`, the request's own if it \
                       has one. Query parameters that are not known are refused.",
        license(name = "MIT OR Apache-2.0"),
    ),
    servers((url = "/")),
    modifiers(&OfTheEdge),
    paths(
        services::list,
        services::get,
        services::register,
        services::deregister,
        health::of_service,
        commands::start,
        commands::stop,
        commands::restart,
        commands::scale,
        commands::heartbeat,
        logs::logs,
        inspect::inspect,
        discovery::endpoints,
        discovery::prometheus,
        events::events,
        agents::register,
        agents::list,
        agents::get,
        agents::deregister,
        agents::heartbeat,
        agents::intend,
        agents::told,
        agents::acknowledge,
        coordination::status,
        coordination::cycles,
        coordination::cycle,
        coordination::step,
        coordination::strategy,
        coordination::resources,
        coordination::events,
        config::generate,
        config::validate,
        config::update,
        config::history,
        config::revision,
        config::rollback,
        config::of_service,
        config::acknowledge,
        config::reload,
        database::status,
        database::verify,
        health::system,
        health::health,
        health::livez,
        health::readyz,
        leadership::leadership,
        health::version,
        metrics::metrics,
    ),
    tags(
        (name = "services", description = "what is declared, and how it stands"),
        (name = "commands", description = "what is done to services by hand"),
        (name = "health", description = "how everything is"),
        (name = "events", description = "what happened"),
        (name = "agents", description = "who takes part in coordination, what they want and what they get"),
        (name = "coordination", description = "how conflicts between agents are resolved, cycle by cycle"),
        (name = "config", description = "what is declared, as one document with a history"),
        (name = "database", description = "the store behind everything"),
        (name = "discovery", description = "where services are reached"),
        (name = "server", description = "coredinator itself"),
    )
)]
struct Description;

/// What the edge may answer in the place of any operation.
struct OfTheEdge;

impl Modify for OfTheEdge {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        for item in api.paths.paths.values_mut() {
            for changing in [&mut item.post, &mut item.put, &mut item.delete].into_iter().flatten() {
                unless_described(changing, "403", "asked by another site's page");
            }
            for any in [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten() {
                unless_described(any, "500", "what should not happen did; the log says more");
                unless_described(any, "504", "not answered in time");
            }
        }
    }
}

/// Adds a problem to what an operation may answer, unless the operation itself says more of it.
fn unless_described(operation: &mut Operation, status: &str, description: &str) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDocument"))).build();
    let problem = ResponseBuilder::new().description(description).content("application/problem+json", content);
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem.into());
}

/// The API's description.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
