//! What was really asked of whatever runs instances.

use axum::{
    Json,
    extract::{Path, State},
};
use coredinator_core::InstanceRecord;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    model::{Inspected, InspectedInstance, ProblemDocument},
    params::Params,
    problem::Problem,
    state::Api,
};

/// How many instances a runtime is asked about side by side.
const SIDE_BY_SIDE: usize = 8;

/// What was really asked for a service's instances, in the words of what runs them: the process, the container, the pod.
///
/// Of those that run, or are on their way to or from it. Values that may be secret are shown as `***`.
#[utoipa::path(
    get, path = "/api/coredinator/services/{service_id}/inspect", tag = "services", operation_id = "inspect_service",
    params(
        ("service_id" = String, Path, description = "the service's name"),
        ("replica" = Option<u32>, Query, description = "of one replica alone", minimum = 0, maximum = 4294967295_u32),
    ),
    responses(
        (status = 200, description = "what was asked", body = Inspected),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "it is external: nothing was asked for it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 501, description = "its runtime does not show it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "its runtime is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<Json<Inspected>, Problem> {
    let replica: Option<u32> = params.number("replica");
    params.finish()?;
    let view = api.service(&name)?;
    let Some(declared) = &view.record.spec.runtime else {
        return Err(Problem::conflict("External", format!("{name} is external: coredinator did not start it")));
    };
    let wanted = |record: &InstanceRecord| record.state.is_live() && replica.is_none_or(|one| one == record.replica);
    let records: Vec<_> =
        view.instances.iter().map(|one| &one.record).filter(|record| wanted(record)).cloned().collect();
    let asked = records.into_iter().map(|record| {
        let runtime = api.runtimes.get(&record.runtime);
        async move {
            let instance = record.reference();
            let asked = match (runtime, &instance) {
                (Some(runtime), Some(instance)) => runtime.inspect(instance).await?,
                _ => None,
            };
            let InstanceRecord { replica, runtime, .. } = record.as_ref().clone();
            Ok::<_, Problem>(InspectedInstance { replica, id: instance.map(|instance| instance.id), runtime, asked })
        }
    });
    let instances = stream::iter(asked).buffered(SIDE_BY_SIDE).try_collect().await?;
    Ok(Json(Inspected { service: view.name().clone(), runtime: declared.clone(), instances }))
}
