//! The quickstart as containers: its own program in an image from scratch, on a real engine.

#[path = "../../../crates/coredinator-runtime-docker/tests/support/mod.rs"]
mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Engine, left_out};
use tokio::time::{Instant, sleep};

/// An upper bound for a loaded machine, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(120);
const PROGRAM: &str = env!("CARGO_BIN_EXE_quickstart");
const CONTROLLERS: [&str; 2] = ["corerl-a", "corerl-b"];

struct Coredinator {
    child: Child,
    log: PathBuf,
    url: String,
}

impl Drop for Coredinator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Coredinator {
    async fn start(engine: &Engine, example: &Path, port: u16) -> Self {
        let log = engine.folder().join("coredinator.log");
        let mut command = Command::new(PROGRAM);
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("COREDINATOR_")) {
            command.env_remove(key);
        }
        command.args(["serve", "--port", "0", "--config"]).arg(example.join("plant.yaml"));
        command.arg("--data-dir").arg(engine.folder().join("coredinator"));
        command.env("DOCKER_HOST", engine.host()).env("COREIO_PORT", port.to_string());
        command.env("COREDINATOR_LOG_FORMAT", "text");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).expect("a log"));
        let mut new = Self { child: command.spawn().expect("it starts"), log, url: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while new.url.is_empty() {
            assert!(Instant::now() < deadline && new.child.try_wait().expect("a child").is_none(), "it never listened");
            let said = fs::read_to_string(&new.log).unwrap_or_default();
            let line = said.lines().find(|line| line.contains("listening") && line.contains("http://"));
            let url = line.and_then(|line| line[line.find("http://")?..].split_whitespace().next());
            new.url = url.unwrap_or_default().trim_end_matches(['/', '.', ',']).to_owned();
            sleep(Duration::from_millis(20)).await;
        }
        new
    }

    async fn get(&self, path: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        match client.get(format!("{}{path}", self.url)).send().await {
            Ok(response) => response.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            if Instant::now() > deadline {
                panic!("never: {what}; {:#}", self.get("/api/coredinator/services").await);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plant_runs_as_containers() {
    let Some(engine) = Engine::start().await else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../containers");
    if !Command::new("ldd").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return left_out("the quickstart as containers", "there is no ldd");
    }
    let mut build = Command::new(example.join("image.sh"));
    // What builds in the engine itself is enough for three lines.
    let built = build.arg(PROGRAM).env("DOCKER_HOST", engine.host()).env("DOCKER_BUILDKIT", "0").output();
    let built = built.expect("the script can be run");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let mut coredinator = Coredinator::start(&engine, &example, port).await;
    coredinator
        .until("the plant and its controllers are well", async |it| {
            let health = it.get("/api/coredinator/health").await;
            let is = |name: &str, status: &str| health["services"][name]["status"] == status;
            is("check", "completed") && ["coreio", "corerl-a", "corerl-b"].iter().all(|name| is(name, "healthy"))
        })
        .await;
    coredinator
        .until("both share the steam by one plan", async |it| {
            let agents = it.get("/api/coredinator/agents").await;
            let granted = |agent: &Value| {
                let service = agent["service"].as_str().unwrap_or_default();
                CONTROLLERS.contains(&service) && agent["holding"].is_object()
            };
            agents["agents"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(granted))
        })
        .await;
    // A controller that dies comes back, and has not forgotten what it learned.
    let find = || engine.asked(&["ps", "--quiet", "--filter", "label=coredinator.service=corerl-a"]);
    let first = find();
    engine.asked(&["kill", &first]);
    coredinator
        .until("the controller is another, and well", async |it| {
            let service = it.get("/api/coredinator/services/corerl-a").await;
            service["status"] == "healthy" && service["instances"][0]["restarts"] == 1 && find() != first
        })
        .await;
    kill_process(Pid::from_child(&coredinator.child), Signal::TERM).expect("it is told");
    assert!(coredinator.child.wait().expect("it ends").success());
    assert_eq!(engine.asked(&["ps", "--quiet"]), "", "nothing is left running");
}
