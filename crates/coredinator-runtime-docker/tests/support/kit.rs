//! Starting and watching instances by the runtime itself.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{
    Exit, InstanceId, LogLine, LogQuery, Observation, ObservationStream, Reason, Runtime, ServiceSpec, StartRequest,
    Started,
};
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Engine, IMAGE, PATIENCE};

pub(crate) fn runtime(engine: &Engine, owner: &str) -> DockerRuntime {
    DockerRuntime::new(DockerRuntimeOptions::new(owner).with_host(engine.host()))
}

/// A start of a shell's script in a container without a network, with `more` in its document.
#[expect(clippy::needless_pass_by_value, reason = "as `json!` makes them")]
pub(crate) fn request(script: &str, more: Value) -> StartRequest {
    let mut document = json!({
        "runtime": "docker", "image": IMAGE, "network_mode": "none", "command": ["sh", "-c", script],
    });
    let fields = document.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    let spec = ServiceSpec::parse("", Some("svc"), document, &Default::default()).unwrap();
    let id = InstanceId::coin(&spec.name, 0, fastrand::u64(..));
    StartRequest { id, replica: 0, spec: Arc::new(spec), preferred_port: None, environment: BTreeMap::new() }
}

pub(crate) async fn started(runtime: &DockerRuntime, script: &str, more: Value) -> Started {
    begun(runtime, request(script, more)).await
}

pub(crate) async fn begun(runtime: &DockerRuntime, request: StartRequest) -> Started {
    timeout(PATIENCE, runtime.start(request)).await.expect("a start ends").expect("it starts")
}

/// The engine's id of an instance's container.
pub(crate) fn container(started: &Started) -> String {
    started.instance.handle.as_ref().unwrap()["container"].as_str().unwrap().to_owned()
}

pub(crate) async fn observed(watch: &mut ObservationStream) -> Observation {
    timeout(PATIENCE, watch.next()).await.expect("an observation").expect("no end before the end")
}

/// Waits until it runs; answers what was told before, and how it runs.
pub(crate) async fn runs(watch: &mut ObservationStream) -> (Vec<Reason>, Started) {
    let mut before = Vec::new();
    loop {
        match observed(watch).await {
            Observation::Waiting(reason) => before.push(reason),
            Observation::Running(started) => return (before, started),
            other => panic!("expected it to run, but saw {other:?} after {before:?}"),
        }
    }
}

pub(crate) async fn ends(watch: &mut ObservationStream) -> Exit {
    loop {
        if let Observation::Exited(exit) = observed(watch).await {
            return exit;
        }
    }
}

/// The output of an instance's service, until there are so many lines.
pub(crate) async fn lines(runtime: &DockerRuntime, started: &Started, count: usize) -> Vec<LogLine> {
    let service = started.instance.service.clone();
    let query = LogQuery { service, replica: None, tail: None, since: None, follow: true };
    let logs = runtime.logs(query).await.expect("its output can be read").take(count);
    let all: Vec<_> = timeout(PATIENCE, logs.collect()).await.expect("so many lines");
    all.into_iter().map(|line| line.expect("a line")).collect()
}
