//! Troubles that come from outside: pods that are evicted or killed inside, an API server that is cut off, others who write what is
//! ours, namespaces that allow little. On a double of a cluster, and on a real one where `COREDINATOR_TEST_KUBECONFIG` names it;
//! what only a real kubelet and real admission can do (`cluster`) there alone.

mod anywhere;
mod cluster;
#[expect(dead_code, unused_imports, reason = "other tests use more of it")]
#[path = "../support/mod.rs"]
mod support;

use coredinator_core::{LogQuery, Runtime, Started};
use futures_util::StreamExt;

/// What an instance's service has printed so far; nothing while it cannot be read.
async fn printed(runtime: &impl Runtime, started: &Started) -> Vec<String> {
    let service = started.instance.service.clone();
    let query = LogQuery { service, replica: None, tail: None, since: None, follow: false };
    let Ok(lines) = runtime.logs(query).await else { return Vec::new() };
    lines.filter_map(async |line| line.ok().map(|line| line.line)).collect().await
}
