//! The public suite for runtimes, on the example's own.

use std::sync::Arc;

use coredinator_core::{
    SystemClock,
    conformance::runtime::{self, Subject, Workload},
};
use embed::TaskRuntime;
use serde_json::{Value, json};

fn workload(workload: Workload) -> Value {
    let command = match workload {
        Workload::Runs => json!(["runs"]),
        Workload::Exits { code } => json!(["exits", code.to_string()]),
        Workload::IgnoresStop => json!(["ignores"]),
        Workload::Prints { .. } | Workload::CannotStart => json!(["nowhere"]),
    };
    json!({"runtime": "task", "command": command})
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    runtime::run(|| async {
        let tasks = TaskRuntime::new(Arc::new(SystemClock))
            .program("runs", |_, stop| async move {
                stop.cancelled().await;
                0
            })
            .program("exits", |arguments, _| async move { arguments[0].parse().unwrap() })
            .program("ignores", |_, _| std::future::pending());
        Subject::new(tasks, workload)
    })
    .await;
}
