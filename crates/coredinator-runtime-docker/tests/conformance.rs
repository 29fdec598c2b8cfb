//! The public suite for runtimes, against a real engine.

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use coredinator_core::conformance::runtime::{self, Subject, Workload};
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
use serde_json::{Value, json};
use support::{Engine, IMAGE};

fn workload(workload: Workload) -> Value {
    let script = match workload {
        Workload::Runs => "exec sleep 1000".to_owned(),
        Workload::Exits { code } => format!("exit {code}"),
        Workload::IgnoresStop => "trap '' TERM; echo ready; sleep 1000".to_owned(),
        Workload::Prints { lines } => format!("seq {lines}; exec sleep 1000"),
        Workload::CannotStart => {
            return json!({"runtime": "docker", "image": "is-not:there", "pull": "never", "network_mode": "none"});
        }
    };
    json!({"runtime": "docker", "image": IMAGE, "network_mode": "none", "command": ["sh", "-c", script]})
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let Some(engine) = Engine::start().await else { return };
    runtime::run(|| async {
        let owner = format!("conformance-{}", fastrand::u64(..));
        let options = DockerRuntimeOptions::new(owner).with_host(engine.host());
        let open = move || DockerRuntime::new(options.clone());
        Subject::new(open(), workload).reopened_by(move || std::future::ready(open()))
    })
    .await;
}
