//! The steps that the machine asks for, each a task of its own that tells the actor what came of it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use coredinator_core::{
    ConfigAction, InstanceId, InstanceRef, Observation, Reason, Runtime, RuntimeError, ServiceRecord, StartRequest,
    Started, StopRequest,
};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Map, Value};

use super::{Actor, Input};
use crate::{
    context::Context,
    machine::{Desired, StartOutcome},
    slot::Slot,
};

/// How long it takes until a runtime that broke off telling of an instance is asked again.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

impl Actor {
    fn runtime_of(&self, replica: u32) -> Option<Arc<dyn Runtime>> {
        let slot = self.machine.slots().find(|slot| slot.record.replica == replica)?;
        self.context.runtimes.get(&slot.record.runtime)
    }

    /// The document of a replica as a revision has it.
    fn document(&self, record: &ServiceRecord, revision: u64, replica: u32) -> Option<Map<String, Value>> {
        if revision == self.rollout.stable && revision != record.config_revision {
            return Some(self.rollout.config_of(replica));
        }
        record.config_of(replica)
    }

    /// Gives an instance its document, and does what the service declares.
    pub(super) fn deliver(&self, replica: u32, id: InstanceId, revision: u64, desired: &Desired) {
        let slot = self.machine.slots().find(|slot| slot.is(&id));
        let (Some(instance), Some(document), Some(runtime)) = (
            slot.and_then(Slot::instance),
            self.document(&desired.record, revision, replica),
            self.runtime_of(replica),
        ) else {
            let _ = self.sender.send(Input::ConfigChecked { replica, id });
            return;
        };
        let address = slot.map(|slot| (slot.record.host.clone(), slot.record.port)).unwrap_or_default();
        let change = desired.record.spec.config.change.clone();
        let (context, sender, name) = (Arc::clone(&self.context), self.sender.clone(), self.name.clone());
        let (tenure, grant) = (self.tenure().clone(), self.grant.clone());
        tokio::spawn(async move {
            if !tenure.holds(&grant) {
                return;
            }
            let giving = async {
                let path = context.write_config(&name, replica, document).await?;
                let to_runtime = async {
                    if let Some(path) = &path {
                        runtime.deliver(&instance, path).await?;
                    }
                    if change.action == ConfigAction::Signal {
                        runtime.signal(&instance, change.signal).await?;
                    }
                    Ok::<_, RuntimeError>(())
                };
                to_runtime.await.map_err(|error| chain(&error))?;
                if change.action == ConfigAction::Http {
                    let body = serde_json::json!({ "revision": revision, "instance_id": id }).to_string();
                    coredinator_registry::post_json(&address.0, address.1, &change.path, body).await?;
                }
                Ok(())
            };
            let limited = tokio::time::timeout(change.timeout, AssertUnwindSafe(giving).catch_unwind()).await;
            let result = match limited {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("its runtime panicked".to_owned()),
                Err(_) => Err(format!("no answer within {:?}", change.timeout)),
            };
            let _ = sender.send(Input::ConfigGiven { replica, id, revision, result });
        });
    }

    pub(super) fn start(&self, replica: u32, id: InstanceId, preferred_port: Option<u16>, desired: &Desired) {
        let given = self.machine.slots().find(|slot| slot.is(&id)).map_or(0, |slot| slot.record.config_revision);
        let config = if given == 0 { None } else { self.document(&desired.record, given, replica) };
        let config = config.map(|document| (given, document));
        let spec = Arc::new(desired.record.spec.clone());
        let runtime = self.runtime_of(replica);
        let (context, sender, generation) = (Arc::clone(&self.context), self.sender.clone(), desired.record.generation);
        let (tenure, grant) = (self.tenure().clone(), self.grant.clone());
        tokio::spawn(async move {
            let outcome = match runtime {
                None => StartOutcome::NotStarted(Reason::new("UnknownRuntime", "there is no such runtime")),
                Some(runtime) => match context.environment(&spec, generation, replica, config).await {
                    Err(reason) => StartOutcome::NotStarted(reason),
                    Ok(environment) => {
                        let request = StartRequest { id: id.clone(), replica, spec, preferred_port, environment };
                        // Time has passed since it was written down.
                        if !tenure.holds(&grant) {
                            return;
                        }
                        let outcome = outcome(AssertUnwindSafe(runtime.start(request)).catch_unwind().await);
                        if let StartOutcome::Started(started) = &outcome
                            && !tenure.holds(&grant)
                        {
                            undo(&context, runtime.as_ref(), &started.instance).await;
                            return;
                        }
                        outcome
                    }
                },
            };
            let _ = sender.send(Input::Started { replica, id, outcome });
        });
    }

    pub(super) fn stop(&self, instance: InstanceRef, how: StopRequest) {
        let (runtime, sender) = (self.runtime_of(instance.replica), self.sender.clone());
        let (tenure, grant) = (self.tenure().clone(), self.grant.clone());
        tokio::spawn(async move {
            if !tenure.holds(&grant) {
                return;
            }
            let failed = match runtime {
                None => Some(Reason::new("UnknownRuntime", "there is no such runtime")),
                Some(runtime) => match AssertUnwindSafe(runtime.stop(&instance, how)).catch_unwind().await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(Reason::new("StopFailed", format!("cannot be stopped: {}", chain(&error)))),
                    Err(_) => Some(Reason::new("StopFailed", "its runtime panicked while stopping it")),
                },
            };
            if let Some(reason) = failed {
                let InstanceRef { id, replica, .. } = instance;
                let _ = sender.send(Input::StopFailed { replica, id, reason });
            }
        });
    }

    /// Has the runtime tell of an instance until it has ended. A runtime that breaks off says nothing about the instance, so
    /// it is asked again.
    pub(super) fn watch(&self, replica: u32, instance: InstanceRef) {
        let (runtime, sender) = (self.runtime_of(replica), self.sender.clone());
        tokio::spawn(async move {
            let Some(runtime) = runtime else { return };
            loop {
                let observe = async {
                    let mut observations = runtime.watch(&instance);
                    while let Some(observation) = observations.next().await {
                        let ended = matches!(observation, Observation::Exited(_) | Observation::NotStarted(_));
                        let (id, replica) = (instance.id.clone(), instance.replica);
                        if sender.send(Input::Observed { replica, id, observation }).is_err() || ended {
                            return true;
                        }
                    }
                    false
                };
                if matches!(AssertUnwindSafe(observe).catch_unwind().await, Ok(true)) {
                    return;
                }
                tracing::warn!(id = %instance.id, "its runtime broke off telling of it; asking again");
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(WATCH_AGAIN) => {}
                }
            }
        });
    }
}

/// An instance was started so late that somebody else may look after the service by now: if that one has it (the record says
/// so), it is left to him, and else ended by who alone knows of it.
async fn undo(context: &Context, runtime: &dyn Runtime, instance: &InstanceRef) {
    tracing::warn!(id = %instance.id, "it was started too late: another may look after its service by now");
    loop {
        match context.registry.recorded(&instance.service, instance.replica).await {
            Ok(record) if record.as_ref().and_then(|record| record.id.as_ref()) == Some(&instance.id) => return,
            Ok(_) => break,
            Err(error) => tracing::debug!(id = %instance.id, %error, "whether it is in a record is not known"),
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
    if let Err(error) = runtime.stop(instance, StopRequest::KILL).await {
        tracing::error!(id = %instance.id, %error, "it is in no record, and could not be ended");
    }
}

fn outcome(result: std::thread::Result<Result<Started, RuntimeError>>) -> StartOutcome {
    match result {
        Ok(Ok(started)) => StartOutcome::Started(started),
        Ok(Err(RuntimeError::NotStarted { reason })) => StartOutcome::NotStarted(reason),
        Ok(Err(error @ RuntimeError::Unavailable { .. })) => {
            StartOutcome::Unknown(Reason::new("RuntimeUnavailable", chain(&error)))
        }
        Ok(Err(error)) => StartOutcome::NotStarted(Reason::new("StartFailed", chain(&error))),
        Err(_) => StartOutcome::NotStarted(Reason::new("StartFailed", "its runtime panicked while starting it")),
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
