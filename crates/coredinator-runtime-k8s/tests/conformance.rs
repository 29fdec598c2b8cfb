//! The public suite for runtimes: on a double of a cluster, and on a real one where `COREDINATOR_TEST_KUBECONFIG` names it.

#[expect(dead_code, unused_imports, reason = "other tests use more of it")]
mod support;

use coredinator_core::conformance::runtime::{self, Subject, Workload};
use serde_json::{Value, json};
use support::{IMAGE, Place};

fn workload(workload: Workload) -> Value {
    let script = match workload {
        Workload::Runs => "exec sleep 1000".to_owned(),
        Workload::Exits { code } => format!("exit {code}"),
        Workload::IgnoresStop => "trap '' TERM; echo ready; sleep 1000".to_owned(),
        Workload::Prints { lines } => format!("seq {lines}; exec sleep 1000"),
        Workload::CannotStart => {
            return json!({"runtime": "kubernetes", "image": "localhost/is-not:there", "pull": "never", "user": 1000});
        }
    };
    json!({
        "runtime": "kubernetes", "image": IMAGE, "pull": "never", "user": 1000, "command": ["sh", "-c", script],
    })
}

/// Each case has a namespace of its own.
async fn passes_the_suite(open: impl AsyncFn() -> Option<Place>) {
    runtime::run(|| async {
        let place = open().await.expect("it was there before");
        let owner = format!("conformance-{}", fastrand::u64(..));
        let (first, guard) = (place.runtime(&owner), place.clone());
        Subject::new(first, workload).reopened_by(move || std::future::ready(place.runtime(&owner))).guarded(guard)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_on_a_double() {
    passes_the_suite(async || Some(Place::double().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_on_a_cluster() {
    if Place::cluster().await.is_some() {
        passes_the_suite(Place::cluster).await;
    }
}
