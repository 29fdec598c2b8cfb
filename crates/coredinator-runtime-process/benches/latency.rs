//! How long a start takes, how soon an end is told, and how soon a killed instance is replaced.
//!
//! `cargo bench -p coredinator-runtime-process`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coredinator_core::{InstanceId, Runtime, ServiceSpec, SpecDefaults, StartRequest, Started, StopRequest};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use futures_util::{StreamExt, future::join_all};

#[expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's time")]
fn now() -> Instant {
    Instant::now()
}

fn request(spec: &Arc<ServiceSpec>, replica: u32, random: u64) -> StartRequest {
    StartRequest {
        id: InstanceId::coin(&spec.name, replica, random),
        replica,
        spec: Arc::clone(spec),
        preferred_port: None,
        environment: [].into(),
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{what:<44} median {:>9.1?}  p99 {:>9.1?}  (n = {})", at(50), at(99), times.len());
}

/// Starts one, kills it as a crash would, waits until that is told, starts its replacement.
async fn rounds(runtime: &ProcessRuntime, spec: &Arc<ServiceSpec>, label: &str) {
    let (mut starts, mut ends, mut replacements) = (Vec::new(), Vec::new(), Vec::new());
    let mut killed_at: Option<Instant> = None;
    for round in 0..200 {
        let before = now();
        let started = runtime.start(request(spec, 5000, round)).await.expect("starts");
        starts.push(before.elapsed());
        replacements.extend(killed_at.map(|at| at.elapsed()));
        let mut watch = runtime.watch(&started.instance);
        watch.next().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let at = now();
        kill(&started);
        while watch.next().await.is_some() {}
        ends.push(at.elapsed());
        killed_at = Some(at);
    }
    report(&format!("{label}: start"), starts);
    report(&format!("{label}: kill to end told"), ends);
    report(&format!("{label}: kill to replacement started"), replacements);
}

fn kill(started: &Started) {
    let pid = started.pid.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
}

async fn run() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = ProcessRuntimeOptions::new(dir.path(), format!("bench-{}", std::process::id()));
    let runtime = ProcessRuntime::new(options).expect("a runtime");
    runtime.list(&[]).await.expect("a list");
    let document = serde_json::json!({"runtime": "process", "command": ["/bin/sleep", "1000"]});
    let spec = ServiceSpec::parse("", Some("sleeper"), document, &SpecDefaults::default()).expect("a spec");
    let spec = Arc::new(spec);

    rounds(&runtime, &spec, "alone").await;
    let before = now();
    let fleet = join_all((0..100).map(|replica| runtime.start(request(&spec, replica, u64::from(replica))))).await;
    let fleet: Vec<Started> = fleet.into_iter().map(|started| started.expect("starts")).collect();
    println!("{:<44} {:>16.1?}", "100 started side by side", before.elapsed());
    rounds(&runtime, &spec, "beside 100").await;
    let before = now();
    fleet.iter().for_each(kill);
    join_all(fleet.iter().map(|started| runtime.watch(&started.instance).collect::<Vec<_>>())).await;
    println!("{:<44} {:>16.1?}", "100 killed at once, all ends told", before.elapsed());
    for started in &fleet {
        runtime.stop(&started.instance, StopRequest::KILL).await.expect("stops");
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a tokio runtime");
    runtime.block_on(run());
}
