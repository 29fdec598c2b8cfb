//! The limit of open descriptors, which is the whole process's: hence a file, and a process, of its own.

use std::sync::Arc;

use coredinator_core::{InstanceId, Runtime, ServiceSpec, SpecDefaults, StartRequest, StopRequest};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions, raise_descriptor_limit};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test]
async fn the_raised_limit_is_coredinators_and_not_its_instances() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: hard }).unwrap();
    assert_eq!(raise_descriptor_limit().unwrap(), hard);
    assert_eq!(raise_descriptor_limit().unwrap(), hard);
    assert_eq!(getrlimit(Resource::Nofile).current, hard);

    let dir = tempfile::tempdir().unwrap();
    let owner = format!("test-{}", fastrand::u64(..));
    let runtime = ProcessRuntime::new(ProcessRuntimeOptions::new(dir.path(), owner)).unwrap();
    let document = serde_json::json!({"runtime": "process", "command": ["sleep", "1000"]});
    let spec = Arc::new(ServiceSpec::parse("", Some("a"), document, &SpecDefaults::default()).unwrap());
    let id = InstanceId::coin(&spec.name, 0, fastrand::u64(..));
    let request = StartRequest { id, replica: 0, spec, preferred_port: None, environment: [].into() };
    let started = runtime.start(request).await.unwrap();
    let pid = started.pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).unwrap();
    let limit = read_limit(pid);
    runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
    assert_eq!(limit, "256");
}

/// The soft limit, as the kernel tells of another process.
fn read_limit(pid: Pid) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}
