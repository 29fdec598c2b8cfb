//! What runtimes run already, and what becomes of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coredinator_core::{
    InstanceRecord, InstanceRef, Runtime, RuntimeName, ServiceName, Started, StopRequest, StoreError,
};
use coredinator_registry::{
    Registry, ServiceView,
    leadership::{Grant, Post},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{actor::chain, adopt, context::Context};

/// What a runtime found when this replica came to look after what it runs, or when the actor of one service had to be made
/// anew.
pub(super) struct Listed {
    pub(super) runtime: RuntimeName,
    /// What it was asked by.
    pub(super) grant: Grant,
    pub(super) of: Asked,
    /// `None`: it cannot tell yet; it is asked again.
    pub(super) running: Option<BTreeMap<(ServiceName, u32), Started>>,
}

/// What a runtime was asked about.
#[derive(Clone)]
pub(super) enum Asked {
    /// Whatever it runs.
    All,
    /// One service, until nobody waits for the answer any more.
    Of { service: ServiceName, end: CancellationToken },
}

impl Asked {
    fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::All => true,
            Self::Of { service: of, .. } => of == service,
        }
    }
}

/// Asks a runtime for what runs already (of one service, or of all), until it answers, or until this replica no longer looks
/// after what it runs.
pub(super) async fn list(
    context: Arc<Context>,
    runtime: Arc<dyn Runtime>,
    of: Asked,
    grant: Grant,
    listed: mpsc::UnboundedSender<Listed>,
) {
    let name = runtime.name();
    let place = context.registry.place();
    let post = place.post_of(&name);
    let tenure = place.tenure(post);
    let mut pause = Duration::from_millis(100);
    let mut told = false;
    while tenure.holds(&grant) {
        // What whoever looked after it before has written last is seen before anything is concluded from records.
        let settled = context.registry.confirm(&grant).await;
        let mut records = records_of(&context.registry, &name);
        records.retain(|(service, _), _| of.covers(service));
        let known = known(&context.registry, &records, post);
        for view in context.registry.services() {
            if view.record.spec.runtime.as_ref() == Some(&name) {
                runtime.declared(&view.record.spec);
            }
        }
        match settled {
            Ok(()) => match runtime.list(&known).await {
                Ok(mut found) => {
                    found.retain(|started| of.covers(&started.instance.service));
                    let plan = adopt::plan(found, &records);
                    let ending = plan
                        .end
                        .into_iter()
                        .map(|instance| end(Arc::clone(&context), Arc::clone(&runtime), instance, grant.clone(), post));
                    ending.for_each(|ending| drop(tokio::spawn(ending)));
                    let _ = listed.send(Listed { runtime: name, grant, of, running: Some(plan.adopt) });
                    return;
                }
                Err(error) if is_used(&context.registry, &name) => {
                    tracing::warn!(runtime = %name, error = chain(&error), "cannot tell what runs; its services wait");
                }
                // Such as a Docker engine on a machine that has none, and needs none.
                Err(error) => tracing::debug!(runtime = %name, error = chain(&error), "cannot tell what runs"),
            },
            Err(error) => {
                tracing::debug!(runtime = %name, error = chain(&error), "what runs is not asked before the store answers");
                if matches!(error, StoreError::Fenced { .. }) {
                    tenure.doubt();
                }
            }
        }
        if !std::mem::replace(&mut told, true) {
            let (runtime, grant, of) = (name.clone(), grant.clone(), of.clone());
            let _ = listed.send(Listed { runtime, grant, of, running: None });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

/// What of a runtime the records say lives, and is this replica's.
fn known(registry: &Registry, records: &BTreeMap<(ServiceName, u32), InstanceRecord>, post: Post) -> Vec<InstanceRef> {
    let place = registry.place();
    let ours = |record: &&InstanceRecord| {
        let view = registry.service(record.service.as_str());
        view.is_ok_and(|view| place.at(&place.seat_of_instance(&view.record, record)) == Some(post))
    };
    records
        .values()
        .filter(|record| record.state.is_live())
        .filter(ours)
        .filter_map(InstanceRecord::reference)
        .collect()
}

/// Ends an instance that is in no record, if the store confirms that nobody else can have recorded it.
async fn end(context: Arc<Context>, runtime: Arc<dyn Runtime>, instance: InstanceRef, grant: Grant, post: Post) {
    let confirmed = context.registry.confirm(&grant).await;
    let recorded = context.registry.recorded(&instance.service, instance.replica).await;
    let unknown = match recorded {
        Ok(record) => record.is_none_or(|record| record.id.as_ref() != Some(&instance.id)),
        Err(_) => false,
    };
    if confirmed.is_err() || !unknown || !context.registry.place().tenure(post).holds(&grant) {
        tracing::warn!(id = %instance.id, "an instance of no declared service is left to who lists next");
        return;
    }
    let how = StopRequest { grace: Duration::from_secs(10), ..StopRequest::KILL };
    tracing::warn!(id = %instance.id, "an instance of no declared service is being ended");
    if let Err(error) = runtime.stop(&instance, how).await {
        tracing::error!(id = %instance.id, %error, "it could not be ended");
    }
    context.note_leftovers();
}

fn records_of(registry: &Registry, runtime: &RuntimeName) -> BTreeMap<(ServiceName, u32), InstanceRecord> {
    let services = registry.services();
    let instances = services.iter().flat_map(|view| view.instances.iter().map(|i| i.record.as_ref().clone()));
    instances.filter(|r| r.runtime == *runtime).map(|r| ((r.service.clone(), r.replica), r)).collect()
}

/// Whether a service is declared to run there, or has run there.
pub(super) fn is_used(registry: &Registry, runtime: &RuntimeName) -> bool {
    registry.services().iter().any(|view| runtimes_of(view).any(|used| used == runtime))
}

/// Where a service is declared to run, and where it has run.
pub(super) fn runtimes_of(view: &ServiceView) -> impl Iterator<Item = &RuntimeName> {
    view.instances.iter().map(|instance| &instance.record.runtime).chain(&view.record.spec.runtime)
}
