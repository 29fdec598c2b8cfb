//! What only a runtime of processes can get wrong: groups, left-overs, numbers that are used again, files.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use coredinator_core::{
    Exit, InstanceId, InstanceRef, LogQuery, Observation, Runtime, RuntimeError, ServiceName, ServiceSpec, Signal,
    SpecDefaults, StartRequest, Started, StopRequest,
};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest that anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime of its own, whose instances are killed at the end of a test, failed or not.
struct Bench {
    runtime: ProcessRuntime,
    dir: TempDir,
    owner: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = format!("test-{}", fastrand::u64(..));
        let runtime = ProcessRuntime::new(ProcessRuntimeOptions::new(dir.path().join("logs"), &owner)).unwrap();
        Self { runtime, dir, owner }
    }

    /// Another runtime with this one's identity, as after a crash.
    fn reopened(&self) -> ProcessRuntime {
        ProcessRuntime::new(ProcessRuntimeOptions::new(self.dir.path().join("logs"), &self.owner)).unwrap()
    }

    async fn start(&self, document: Value) -> Result<Started, RuntimeError> {
        self.runtime.start(request(document)).await
    }

    async fn shell(&self, script: &str) -> Started {
        self.start(shell(script)).await.unwrap()
    }

    async fn output(&self, started: &Started) -> Vec<String> {
        let query = LogQuery {
            service: started.instance.service.clone(),
            replica: None,
            tail: None,
            since: None,
            follow: false,
        };
        let lines: Vec<_> = self.runtime.logs(query).await.unwrap().collect().await;
        lines.into_iter().map(|line| line.unwrap().line).collect()
    }

    async fn prints(&self, started: &Started, line: &str) {
        until(&format!("{line:?} is printed"), async || self.output(started).await.iter().any(|read| read == line))
            .await;
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for pid in carrying(&format!("COREDINATOR_OWNER={}", self.owner)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn shell(script: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", script]})
}

fn request(mut document: Value) -> StartRequest {
    document["runtime"] = json!("process");
    let spec = Arc::new(ServiceSpec::parse("", Some("svc"), document, &SpecDefaults::default()).unwrap());
    let id = InstanceId::coin(&spec.name, 0, fastrand::u64(..));
    StartRequest { id, replica: 0, spec, preferred_port: None, environment: BTreeMap::new() }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(what, wait).await;
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"))
}

async fn exit(runtime: &ProcessRuntime, instance: &InstanceRef) -> Exit {
    let watched: Vec<Observation> = within("an exit", runtime.watch(instance).collect()).await;
    match watched.into_iter().last() {
        Some(Observation::Exited(exit)) => exit,
        other => panic!("a watch ends with an exit, not {other:?}"),
    }
}

/// Whoever lives on this machine with this variable.
fn carrying(variable: &str) -> Vec<rustix::process::Pid> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let carries = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|entry| entry == variable.as_bytes())
    };
    entries.filter(carries).filter_map(rustix::process::Pid::from_raw).collect()
}

fn of(started: &Started) -> Vec<rustix::process::Pid> {
    carrying(&format!("COREDINATOR_INSTANCE_ID={}", started.instance.id))
}

fn kill_leader(started: &Started) {
    let pid = rustix::process::Pid::from_raw(started.pid.unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A process that is none of the runtime's.
struct Foreign(Child);

impl Foreign {
    fn start() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_its_leader_is_ended_before_the_exit_is_told() {
    let bench = Bench::new();
    // One child in the group, one that ignores signals, one in a session of its own.
    let script = "sleep 1000 & (trap '' TERM HUP; sleep 1000) & setsid sleep 1000 & echo up; wait";
    let started = bench.shell(script).await;
    bench.prints(&started, "up").await;
    until("all four run", async || of(&started).len() >= 4).await;
    kill_leader(&started);
    let exit = exit(&bench.runtime, &started.instance).await;
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(of(&started), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn left_overs_of_an_adopted_instance_are_ended_too() {
    let bench = Bench::new();
    let started = bench.shell("sleep 1000 & setsid sleep 1000 & echo up; wait").await;
    until("all three run", async || of(&started).len() >= 3).await;
    let runtime = bench.reopened();
    assert_eq!(runtime.list(std::slice::from_ref(&started.instance)).await.unwrap().len(), 1);
    kill_leader(&started);
    exit(&runtime, &started.instance).await;
    assert_eq!(of(&started), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_is_for_the_whole_group_and_not_for_its_leader_alone() {
    let bench = Bench::new();
    let script = "(trap 'sleep 0.3; echo drained; exit' TERM; echo up; while :; do sleep 0.05; done) & wait";
    let started = bench.shell(script).await;
    bench.prints(&started, "up").await;
    let how = StopRequest { signal: Signal::Term, grace: PATIENCE };
    within("the stop", bench.runtime.stop(&started.instance, how)).await.unwrap();
    assert!(bench.output(&started).await.contains(&"drained".to_owned()));
    assert_eq!(of(&started), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_can_be_ended() {
    let bench = Bench::new();
    let started = bench.shell("echo up; kill -STOP $$; sleep 1000").await;
    bench.prints(&started, "up").await;
    let how = StopRequest { signal: Signal::Term, grace: PATIENCE * 2 };
    within("the stop", bench.runtime.stop(&started.instance, how)).await.unwrap();
    assert_eq!(of(&started), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_starts_name_their_reason_and_heal_when_the_file_appears() {
    let bench = Bench::new();
    let path = bench.dir.path().join("late");
    let document = || json!({"command": [path.to_str().unwrap()]});
    let fails = async |document: Value, code: &str, names: &Path| match bench.start(document).await {
        Err(RuntimeError::NotStarted { reason }) => {
            assert_eq!(reason.code, code, "{reason:?}");
            assert!(reason.message.contains(names.to_str().unwrap()), "{reason:?}");
        }
        other => panic!("expected {code}, but saw {other:?}"),
    };
    fails(document(), "CommandNotFound", &path).await;
    fs::write(&path, "not a program").unwrap();
    fails(document(), "NotExecutable", &path).await;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    fails(document(), "ExecFormatError", &path).await;
    fs::write(&path, "#!/bin/sh\nexit 4\n").unwrap();
    let started = bench.start(document()).await.unwrap();
    assert_eq!(exit(&bench.runtime, &started.instance).await.code, Some(4));

    let nowhere = bench.dir.path().join("nowhere");
    fails(json!({"command": ["true"], "working_dir": nowhere}), "WorkingDirNotFound", &nowhere).await;
    fails(json!({"command": ["no-such-program-anywhere"]}), "CommandNotFound", Path::new("no-such-program")).await;
    // A relative program is found from the working directory.
    let document = json!({"command": ["./late"], "working_dir": bench.dir.path()});
    let started = bench.start(document).await.unwrap();
    assert_eq!(exit(&bench.runtime, &started.instance).await.code, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_anothers_by_now_is_never_touched() {
    let bench = Bench::new();
    let mut foreign = Foreign::start();
    let started = bench.shell("exec sleep 1000").await;
    let handle = started.instance.handle.clone().unwrap();
    let ours = handle["start_time"].as_u64().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", foreign.0.id())).unwrap();
    let theirs: u64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
    let runtime = bench.reopened();
    for (start_time, boot_id) in [
        (theirs + 1, handle["boot_id"].clone()),
        (theirs, json!("another boot")),
        // Even a perfect lie names a process that leads no session, as every instance does.
        (theirs, handle["boot_id"].clone()),
        (ours, handle["boot_id"].clone()),
    ] {
        let mut lie = handle.clone();
        lie["pid"] = json!(foreign.0.id());
        lie["start_time"] = json!(start_time);
        lie["boot_id"] = boot_id;
        let service = ServiceName::new("svc").unwrap();
        let id = InstanceId::coin(&service, 0, fastrand::u64(..));
        let stale = InstanceRef { id: id.clone(), service, replica: 0, handle: Some(lie) };
        let listed = runtime.list(std::slice::from_ref(&stale)).await.unwrap();
        assert!(listed.iter().all(|found| found.instance.id != id), "{listed:?}");
        assert_eq!(exit(&runtime, &stale).await.code, None);
        runtime.stop(&stale, StopRequest::KILL).await.unwrap();
        assert!(foreign.lives());
    }
    assert_eq!(of(&started).len(), 1, "what is ours was not touched either");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_owners_instances_are_left_alone() {
    let (ours, theirs) = (Bench::new(), Bench::new());
    let started = theirs.shell("exec sleep 1000").await;
    assert_eq!(ours.runtime.list(std::slice::from_ref(&started.instance)).await.unwrap(), []);
    ours.runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
    assert_eq!(theirs.runtime.list(&[]).await.unwrap(), [started]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_overwrote_its_environment_is_found_by_its_handle() {
    let bench = Bench::new();
    let started = bench.shell("exec env -i /bin/sleep 1000").await;
    until("the environment is gone", async || of(&started).is_empty()).await;
    let runtime = bench.reopened();
    let found = runtime.list(std::slice::from_ref(&started.instance)).await.unwrap();
    assert_eq!(found.iter().map(|found| &found.instance).collect::<Vec<_>>(), [&started.instance]);
    runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
    assert_eq!(exit(&bench.runtime, &started.instance).await.signal, Some(9));
}

/// The exit code of a process that is not our child, as every adopted one is.
#[tokio::test(flavor = "multi_thread")]
async fn the_exit_of_an_adopted_instance_is_known() {
    let bench = Bench::new();
    let go = bench.dir.path().join("go");
    // The outer shell ends at once, so that init inherits the instance.
    let up = bench.dir.path().join("up");
    let wait = format!("touch {}; until [ -e {} ]; do sleep 0.02; done; exit 7", up.display(), go.display());
    let script = format!("setsid sh -c '{wait}' &");
    let mut launcher = Command::new("/bin/sh");
    launcher.args(["-c", &script]).env("COREDINATOR_OWNER", &bench.owner);
    launcher
        .env("COREDINATOR_INSTANCE_ID", "svc-3-x")
        .env("COREDINATOR_SERVICE", "svc")
        .env("COREDINATOR_REPLICA", "3");
    assert!(launcher.status().unwrap().success());
    let runtime = &bench.runtime;
    // Before it leads a session it would be taken for what is left of an instance, and ended.
    until("it leads its session", async || up.exists()).await;
    let found = runtime.list(&[]).await.unwrap().remove(0).instance;
    assert_eq!((found.id.as_str(), found.service.as_str(), found.replica), ("svc-3-x", "svc", 3));
    fs::write(&go, "").unwrap();
    let exit = exit(runtime, &found).await;
    if runtime.capabilities().exit_of_adopted {
        assert_eq!((exit.code, exit.signal), (Some(7), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_and_the_port_are_as_documented() {
    let bench = Bench::new();
    let script = "echo $PORT {port} $0 $GREETING $EXTRA $COREDINATOR_SERVICE $COREDINATOR_REPLICA $COREDINATOR_INSTANCE_ID; \
                  ls /proc/self/fd; cat; echo end";
    let mut request = request(json!({
        "command": ["/bin/sh", "-c", script, "at={host}:{port}"],
        "environment": {"GREETING": "hello-{port}", "EXTRA": "spec", "PORT": "1"},
    }));
    request.environment.insert("EXTRA".to_owned(), "request".to_owned());
    let started = bench.runtime.start(request).await.unwrap();
    exit(&bench.runtime, &started.instance).await;
    let (port, id) = (started.port, &started.instance.id);
    assert_ne!(port, 0);
    let output = bench.output(&started).await;
    assert_eq!(output[0], format!("{port} {port} at=localhost:{port} hello-{port} request svc 0 {id}"));
    // Descriptor 3 is the directory that `ls` reads: nothing else was inherited.
    assert_eq!(output[1..], ["0", "1", "2", "3", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_loses_no_line_of_a_fast_writer() {
    const LINES: u32 = 300_000;
    let bench = Bench::new();
    let script = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; done; echo end >&2; exec sleep 1000");
    let mut document = shell(&script);
    document["logs"] = json!({"max_size": 16384, "max_files": 1000});
    let started = bench.start(document).await.unwrap();
    let rotated = bench.dir.path().join("logs/svc/0.stdout.log.1");
    let query =
        LogQuery { service: started.instance.service.clone(), replica: None, tail: None, since: None, follow: true };
    let mut followed = bench.runtime.logs(query).await.unwrap();
    let mut expected = 1;
    while expected <= LINES {
        let line = within("the next line", followed.next()).await.unwrap().unwrap().line;
        if line != "end" {
            assert_eq!(line, expected.to_string());
            expected += 1;
        }
    }
    until("it is rotated", async || rotated.exists()).await;
    let mut output = bench.output(&started).await;
    output.retain(|line| line != "end");
    assert!(output.into_iter().eq((1..=LINES).map(|number| number.to_string())));
}

#[test]
fn output_goes_on_when_the_runtime_is_gone() {
    let threads = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let first = threads();
    let bench = first.block_on(async { Bench::new() });
    let go = bench.dir.path().join("go");
    let script = format!("echo before; until [ -e {} ]; do sleep 0.02; done; echo after", go.display());
    let started = first.block_on(bench.shell(&script));
    first.block_on(bench.prints(&started, "before"));
    drop(first);
    fs::write(&go, "").unwrap();
    let log = bench.dir.path().join("logs/svc/0.stdout.log");
    let printed = async || fs::read_to_string(&log).is_ok_and(|text| text == "before\nafter\n");
    threads().block_on(until("it goes on", printed));
}
