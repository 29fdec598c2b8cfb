//! Services as JSON: rendered once per snapshot and a moment, and served from there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use coredinator_core::{Exit, InstanceState, Reason, ServiceName, ServiceStatus, Timestamp};
use coredinator_registry::{
    InstanceView, ServiceView,
    health::{CheckCell, CheckSnapshot},
};
use tokio::time::Instant;

use super::model::{
    CheckSummary, Desired, Instance, InstanceConfigState, LastExit, RejectedRevision, Service, ServiceConfigState,
};

/// What does not change a snapshot (check results, uptimes) is at most this old.
const MOMENT: Duration = Duration::from_millis(100);

/// The JSON of one service.
#[derive(Clone)]
struct Fragment {
    index: u64,
    made: Instant,
    json: Bytes,
}

/// The JSON of all services.
#[derive(Clone)]
struct List {
    index: u64,
    made: Instant,
    json: Bytes,
}

/// Renders services, and keeps what it rendered for as long as it holds.
pub(super) struct Renderer {
    /// Makes the entity tags of this process its own.
    nonce: u64,
    fragments: Mutex<HashMap<ServiceName, Fragment>>,
    list: Mutex<Option<List>>,
}

impl Renderer {
    pub(super) fn new(nonce: u64) -> Self {
        Self { nonce, fragments: Mutex::default(), list: Mutex::default() }
    }

    /// The weak entity tag of whatever is at `index`: it covers all but check results and uptimes.
    pub(super) fn tag(&self, index: u64) -> String {
        format!("W/\"{:x}-{index}\"", self.nonce)
    }

    /// One service.
    pub(super) fn service(&self, view: &ServiceView, now: impl FnOnce() -> Timestamp) -> Bytes {
        let mut fragments = self.fragments.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = fragments.get(view.name()).filter(|kept| kept.index == view.index && kept.made.elapsed() < MOMENT);
        if let Some(kept) = kept {
            return kept.json.clone();
        }
        let json = to_json(&Service::new(view, now()));
        let fragment = Fragment { index: view.index, made: Instant::now(), json: json.clone() };
        fragments.insert(view.name().clone(), fragment);
        json
    }

    /// The list of all services, as of `index` (read before `services` are), if it was rendered a moment ago.
    pub(super) fn kept_list(&self, index: u64) -> Option<Bytes> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.as_ref().filter(|list| list.index == index && list.made.elapsed() < MOMENT).map(|list| list.json.clone())
    }

    /// The list of all services, kept for `index`, which was read before `services` were.
    pub(super) fn full_list(&self, index: u64, services: &[Arc<ServiceView>], now: Timestamp) -> Bytes {
        let json = self.list_of(services, "", now);
        let mut fragments = self.fragments.lock().unwrap_or_else(PoisonError::into_inner);
        if fragments.len() > services.len() {
            // Some that were rendered are gone by now. The services are in the order of their names.
            fragments.retain(|name, _| services.binary_search_by(|view| view.name().cmp(name)).is_ok());
        }
        drop(fragments);
        let list = List { index, made: Instant::now(), json: json.clone() };
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Some(list);
        json
    }

    /// A list of these services, with the token of the next page (which needs no escaping).
    pub(super) fn list_of(&self, services: &[Arc<ServiceView>], next_page_token: &str, now: Timestamp) -> Bytes {
        let fragments: Vec<Bytes> = services.iter().map(|view| self.service(view, || now)).collect();
        let size: usize = fragments.iter().map(|fragment| fragment.len() + 1).sum();
        let mut json = BytesMut::with_capacity(size + 64);
        json.put_slice(b"{\"services\":[");
        for (i, fragment) in fragments.iter().enumerate() {
            if i > 0 {
                json.put_u8(b',');
            }
            json.put_slice(fragment);
        }
        json.put_slice(b"],\"next_page_token\":\"");
        json.put_slice(next_page_token.as_bytes());
        json.put_slice(b"\"}");
        json.freeze()
    }
}

/// A document as JSON. The documents of this crate have text keys and finite numbers, which cannot fail.
pub(super) fn to_json<T: serde::Serialize>(document: &T) -> Bytes {
    serde_json::to_vec(document).unwrap_or_else(|_| unreachable!("a document without maps of odd keys")).into()
}

/// An answer with this document.
pub(super) fn json<T: serde::Serialize>(document: &T) -> Response {
    let mut response = Response::new(Body::from(to_json(document)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Service {
    /// What `view` says at `now`.
    #[must_use]
    pub fn new(view: &ServiceView, now: Timestamp) -> Self {
        let (record, spec) = (&view.record, &view.record.spec);
        let instances: Vec<Instance> =
            view.instances.iter().map(|instance| Instance::new(instance, view, now)).collect();
        let external = view.check.as_deref().map(CheckCell::snapshot).map(summary);
        let checks = || {
            let of_instances = instances.iter().flat_map(|i| i.health.iter().chain(&i.readiness));
            external.iter().chain(of_instances)
        };
        let (ready, port) = if spec.is_managed() {
            let ready = instances.iter().filter(|instance| instance.ready).count();
            let allocated = instances.iter().map(|instance| instance.port).find(|port| *port != 0);
            (ready, if spec.port == 0 { allocated.unwrap_or(0) } else { spec.port })
        } else {
            let up = matches!(view.status, ServiceStatus::Healthy | ServiceStatus::Degraded);
            (usize::from(up), spec.port)
        };
        let stopped = view.intent.stopped || record.deleting;
        Self {
            name: spec.name.clone(),
            status: view.status,
            reason: view.reason.message.clone(),
            reason_code: view.reason.code.clone(),
            since: millis(view.since),
            desired: if stopped { Desired::Stopped } else { Desired::Running },
            host: spec.host.clone(),
            port,
            health_endpoint: spec.health_endpoint.clone(),
            restart_policy: spec.restart_policy,
            runtime: spec.runtime.clone(),
            node: record.node.clone(),
            command: spec.command.clone(),
            replicas: view.declared_replicas(),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            labels: spec.labels.clone(),
            version: spec.version.clone(),
            depends_on: spec.depends_on.iter().map(|(name, dependency)| (name.clone(), dependency.condition)).collect(),
            last_health_check: checks().filter_map(|check| check.last_check).max(),
            response_time_ms: checks().filter_map(|check| check.response_time_ms).reduce(f64::max),
            next_restart_at: instances.iter().filter_map(|instance| instance.next_restart_at).min(),
            origin: record.origin,
            created_at: millis(record.created_at),
            generation: record.generation,
            deleting: record.deleting,
            index: view.index,
            config: record.config.as_ref().map(|_| ServiceConfigState {
                revision: record.config_revision,
                stable: view.rollout.stable,
                drifted: u32::try_from(drifted(&instances).count()).unwrap_or(u32::MAX),
                rejected: view.rollout.rejected.as_ref().map(|rejected| RejectedRevision {
                    revision: rejected.revision,
                    reason: rejected.reason.clone(),
                    at: millis(rejected.at),
                }),
            }),
            instances,
        }
    }
}

/// The instances in which another revision of their document is in force than the newest.
fn drifted(instances: &[Instance]) -> impl Iterator<Item = &Instance> {
    instances.iter().filter(|instance| instance.config.as_ref().is_some_and(|config| config.drifted))
}

impl Instance {
    fn new(view: &InstanceView, service: &ServiceView, now: Timestamp) -> Self {
        let record = &view.record;
        let running = record.state == InstanceState::Running && service.record.config.is_some();
        let config = running.then(|| {
            let ack = service.acks.get(&record.replica).filter(|ack| record.id.as_ref() == Some(&ack.instance));
            let acknowledged = ack.map(|ack| ack.revision);
            let in_force = acknowledged.unwrap_or(record.config_revision);
            let drifted = in_force != service.record.config_revision;
            InstanceConfigState { revision: record.config_revision, acknowledged, drifted }
        });
        let Reason { code, message } = &record.reason;
        let runs = matches!(record.state, InstanceState::Running | InstanceState::Stopping);
        let uptime = record.started_at.filter(|_| runs).map(|started| now.duration_since(started).as_secs());
        let check = |cell: &Option<Arc<CheckCell>>| cell.as_deref().map(CheckCell::snapshot).map(summary);
        Self {
            id: record.id.clone(),
            replica: record.replica,
            state: record.state,
            reason: message.clone(),
            reason_code: code.clone(),
            since: millis(record.since),
            ready: view.ready,
            node: record.node.clone(),
            pid: record.pid,
            host: record.host.clone(),
            port: record.port,
            started_at: record.started_at.map(millis),
            // A clock that was set back makes no negative time of it.
            uptime_seconds: uptime.map(|seconds| u64::try_from(seconds).unwrap_or(0)),
            restarts: record.restarts,
            attempts: record.attempts,
            next_restart_at: record.next_restart_at.map(millis),
            last_exit: record.last_exit.as_ref().map(|Exit { code, signal, oom_killed, at, .. }| LastExit {
                code: *code,
                signal: *signal,
                oom_killed: *oom_killed,
                at: millis(*at),
            }),
            health: check(&view.health),
            readiness: check(&view.readiness),
            config,
        }
    }
}

/// What a check says, in short.
pub(super) fn summary(snapshot: CheckSnapshot) -> CheckSummary {
    CheckSummary {
        status: snapshot.status,
        message: snapshot.message,
        consecutive_failures: snapshot.consecutive_failures,
        last_check: snapshot.last_check.map(millis),
        response_time_ms: snapshot.response_time.map(as_millis),
    }
}

/// A duration in milliseconds, to the microsecond.
pub(super) fn as_millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A time cut to the millisecond.
pub(super) fn millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}
