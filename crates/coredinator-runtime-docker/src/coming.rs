//! Instances that have been taken on and wait for their image.
//!
//! What is told of them lives in memory alone: when coredinator dies meanwhile, nothing of them is left, and the next one
//! starts them under the same id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coredinator_core::{InstanceId, InstanceRef, Reason, ServiceName, StartRequest, Started, Timestamp};
use tokio::sync::watch;

/// How far an instance has come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// On its way, and what it waits for.
    Waiting(Reason),
    /// It could not be started.
    Failed(Reason),
    /// Its container is there, or it was given up: what the engine says counts.
    Over,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Coming {
    service: ServiceName,
    replica: u32,
    host: String,
    stage: watch::Sender<Stage>,
    given_up: watch::Sender<bool>,
}

impl Coming {
    /// Tells how far it has come; one that was given up or has failed stays so.
    pub(crate) fn tell(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let news = matches!(now, Stage::Waiting(_)) && *now != stage;
            if news {
                *now = stage;
            }
            news
        });
    }

    pub(crate) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    pub(crate) fn is_given_up(&self) -> bool {
        *self.given_up.borrow()
    }

    /// Waits until nobody wants it any more.
    pub(crate) async fn given_up(&self) {
        // `self` holds the sender: this cannot fail.
        let _ = self.given_up.subscribe().wait_for(|given_up| *given_up).await;
    }

    fn to_started(&self, id: &InstanceId) -> Started {
        let instance =
            InstanceRef { id: id.clone(), service: self.service.clone(), replica: self.replica, handle: None };
        let started_at = Timestamp::UNIX_EPOCH;
        Started { instance, pid: None, host: self.host.clone(), port: 0, started_at, running: false }
    }
}

/// All of them, and those whose failure may still be asked for: until their replica is started again, or forgotten.
#[derive(Debug, Default)]
pub(crate) struct AllComing(Mutex<HashMap<InstanceId, Arc<Coming>>>);

impl AllComing {
    fn all(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Coming>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<Arc<Coming>> {
        self.all().get(id).cloned()
    }

    /// Takes one on. What is left of earlier lives of its replica is forgotten.
    pub(crate) fn add(&self, request: &StartRequest, host: &str, reason: Reason) -> Arc<Coming> {
        let coming = Arc::new(Coming {
            service: request.spec.name.clone(),
            replica: request.replica,
            host: host.to_owned(),
            stage: watch::Sender::new(Stage::Waiting(reason)),
            given_up: watch::Sender::new(false),
        });
        let mut all = self.all();
        all.retain(|_, other| {
            let same = other.service == coming.service && other.replica == coming.replica;
            !same || matches!(*other.stage.borrow(), Stage::Waiting(_))
        });
        all.insert(request.id.clone(), Arc::clone(&coming));
        coming
    }

    /// Its container is there, or it is no more.
    pub(crate) fn over(&self, id: &InstanceId) {
        let gone = self.all().remove(id);
        gone.iter().for_each(|coming| coming.tell(Stage::Over));
    }

    /// Nobody wants it any more. Answers how it comes to its end, if it is on its way.
    pub(crate) fn give_up(&self, id: &InstanceId) -> Option<watch::Receiver<Stage>> {
        let coming = self.get(id)?;
        coming.given_up.send_replace(true);
        if matches!(*coming.stage.borrow(), Stage::Failed(_)) {
            self.all().remove(id);
            return None;
        }
        Some(coming.stage())
    }

    /// Those that are on their way, as a runtime answers them.
    pub(crate) fn started(&self) -> Vec<Started> {
        let all = self.all();
        let waiting = all.iter().filter(|(_, coming)| matches!(*coming.stage.borrow(), Stage::Waiting(_)));
        waiting.map(|(id, coming)| coming.to_started(id)).collect()
    }

    pub(crate) fn forget(&self, service: &ServiceName) {
        self.all()
            .retain(|_, coming| coming.service != *service || matches!(*coming.stage.borrow(), Stage::Waiting(_)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coredinator_core::ServiceSpec;

    use super::*;

    fn request(number: u64) -> StartRequest {
        let document = serde_json::json!({"runtime": "docker", "image": "x"});
        let spec = ServiceSpec::parse("", Some("svc"), document, &Default::default()).unwrap();
        let id = InstanceId::coin(&spec.name, 0, number);
        StartRequest { id, replica: 0, spec: Arc::new(spec), preferred_port: None, environment: BTreeMap::new() }
    }

    fn reason(word: &str) -> Reason {
        Reason::new(word, "as it is")
    }

    #[tokio::test]
    async fn a_failure_can_be_asked_for_until_the_next_start() {
        let (all, first, second) = (AllComing::default(), request(1), request(2));
        let coming = all.add(&first, "h", reason("Pulling"));
        assert_eq!(all.started().len(), 1);
        coming.tell(Stage::Failed(reason("ImagePullFailed")));
        coming.tell(Stage::Over);
        assert_eq!(*coming.stage().borrow(), Stage::Failed(reason("ImagePullFailed")), "the first end counts");
        assert!(all.started().is_empty() && all.get(&first.id).is_some());
        all.add(&second, "h", reason("Pulling"));
        assert!(all.get(&first.id).is_none() && all.get(&second.id).is_some());
        all.forget(&second.spec.name);
        assert!(all.get(&second.id).is_some(), "what is on its way is not forgotten");
        all.over(&second.id);
        assert!(all.get(&second.id).is_none());
    }

    #[tokio::test]
    async fn who_is_given_up_hears_of_it() {
        let (all, request) = (AllComing::default(), request(1));
        let coming = all.add(&request, "h", reason("Pulling"));
        assert!(!coming.is_given_up());
        let mut stage = all.give_up(&request.id).expect("it is on its way");
        coming.given_up().await;
        all.over(&request.id);
        assert_eq!(*stage.wait_for(|stage| !matches!(stage, Stage::Waiting(_))).await.unwrap(), Stage::Over);
        assert!(all.give_up(&request.id).is_none());
    }
}
