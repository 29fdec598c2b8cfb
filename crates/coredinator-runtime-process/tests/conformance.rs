//! The public suite for runtimes.

use coredinator_core::conformance::runtime::{self, Subject, Workload};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use serde_json::{Value, json};

fn workload(workload: Workload) -> Value {
    let script = match workload {
        Workload::Runs => "exec sleep 1000".to_owned(),
        Workload::Exits { code } => format!("exit {code}"),
        Workload::IgnoresStop => "trap '' TERM; echo ready; sleep 1000".to_owned(),
        Workload::Prints { lines } => format!("seq {lines}; exec sleep 1000"),
        Workload::CannotStart => return json!({"runtime": "process", "command": ["./is-not-there"]}),
    };
    json!({"runtime": "process", "command": ["/bin/sh", "-c", script]})
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    runtime::run(|| async {
        let dir = tempfile::tempdir().unwrap();
        let owner = format!("conformance-{}", fastrand::u64(..));
        let options = ProcessRuntimeOptions::new(dir.path(), owner);
        let open = move || ProcessRuntime::new(options.clone()).unwrap();
        Subject::new(open(), workload).reopened_by(move || std::future::ready(open())).guarded(dir)
    })
    .await;
}
