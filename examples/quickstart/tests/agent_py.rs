//! `examples/agent.py`, against the real binary: two of them share what is not enough for both.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// An upper bound for a loaded machine, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with the test, however that ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log");
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("COREDINATOR_")) {
            command.env_remove(key);
        }
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().expect("the same log")).stderr(log);
        Self(command.spawn().expect("it starts"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it is told");
    }
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn two_agents_in_python_share_what_is_not_enough_for_both() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let said = |name: &str| fs::read_to_string(at(name)).unwrap_or_default();
    // Outside of the ports that the system hands out by itself.
    let port = (0..1000)
        .map(|_| fastrand::u16(10_000..20_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port");
    let section = json!({"sync_interval": 0.2, "resources": {"steam": {"capacity": 10}}});
    fs::write(at("plant.yaml"), json!({"coredinator": {"coordination": section}}).to_string()).expect("written");
    let server = |log: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
        command.args(["serve", "--port", &port.to_string(), "--config"]).arg(at("plant.yaml"));
        Program::start(command.arg("--data-dir").arg(at("data")), &at(log))
    };
    let coredinator = server("first");
    let base = format!("http://127.0.0.1:{port}");
    let agents = ["left", "right"].map(|name| {
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../agent.py")).args(["--name", name, "--wants", "steam=6"]);
        Program::start(command.args(["--coredinator", &base]), &at(name))
    });
    let told = |what: &str| said("left").contains(what) && said("right").contains(what);
    let shared = || {
        let both = said("left") + &said("right");
        both.contains("granted, steam 6.0") && both.contains("substituted, steam 3.0")
    };
    until("one gets all that it wants and the other half", async || shared()).await;

    // Without a word they let go, and they come back.
    drop(coredinator);
    until("both are on their own", async || told("on its own: steam 0")).await;
    let heard = ["left", "right"].map(|name| said(name).matches("cycle ").count());
    let _coredinator = server("second");
    until("both are told again", async || {
        ["left", "right"].iter().zip(heard).all(|(name, before)| said(name).matches("cycle ").count() > before)
    })
    .await;

    agents.iter().for_each(|agent| agent.signal(Signal::TERM));
    until("both have taken their leave", async || told("deregistered")).await;
    let client = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
    let answer = client.get(format!("{base}/api/coredinator/agents")).send().await.expect("it answers");
    assert_eq!(answer.json::<Value>().await.expect("JSON"), json!({"agents": []}));
}
