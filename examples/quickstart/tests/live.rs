//! The quickstart as a person runs it: the real binary on `plant.yaml`, with ports and a folder of its own.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quickstart::{
    action::Action,
    learner::{Learner, LearnerConfig, Observation},
    plant::Plant,
    state_file,
};
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const CAPACITY: f64 = 18.0;
const CONTROLLERS: [&str; 2] = ["corerl-a", "corerl-b"];
/// What both take without a word.
const SAFE: f64 = 13.0;
/// An upper bound for a loaded machine, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(60);
/// Inherited by all that is started.
const MARK: &str = "QUICKSTART_OF";

struct Quickstart {
    dir: TempDir,
    mark: String,
    ports: [u16; 2],
    client: Client,
    coredinator: Option<Child>,
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
        if let Some(mut child) = self.coredinator.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.alive() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A port outside of those that the system hands out by itself.
fn free_port() -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(10_000..20_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

impl Quickstart {
    /// The plant of `plant.yaml`, with controllers that have learned already.
    fn new() -> Self {
        let ports = [free_port(), free_port()];
        let quickstart = Self {
            dir: tempfile::tempdir().expect("a directory"),
            mark: format!("{}-{:016x}", std::process::id(), fastrand::u64(..)),
            ports,
            client: Client::builder().timeout(Duration::from_secs(5)).no_proxy().build().expect("a client"),
            coredinator: None,
        };
        let file = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/plant.yaml")).expect("plant.yaml");
        fs::create_dir_all(quickstart.file().parent().expect("a parent")).expect("a directory");
        let file = file.replace("8002", &ports[0].to_string()).replace("8001", &ports[1].to_string());
        fs::write(quickstart.file(), file).expect("written");
        train(&quickstart.data().join("plant"));
        quickstart
    }

    fn file(&self) -> PathBuf {
        // Its `working_dir` is two folders up.
        self.dir.path().join("examples/quickstart/plant.yaml")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("coredinator.log")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("COREDINATOR_")) {
            command.env_remove(key);
        }
        command.args(args).stdin(Stdio::null()).env("QUICKSTART", env!("CARGO_BIN_EXE_quickstart"));
        command.env("COREDINATOR_DATA_DIR", self.data()).env(MARK, &self.mark);
        command
    }

    fn up(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let mut command = self.command(&["up", "--config"]);
        command.arg(self.file()).stdout(log.try_clone().expect("the same log")).stderr(log);
        self.coredinator = Some(command.spawn().expect("it starts"));
    }

    fn end(&mut self, signal: Signal) {
        let child = self.coredinator.as_mut().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it is told");
    }

    /// What the command line answers.
    fn says(&self, args: &[&str]) -> String {
        let address = format!("127.0.0.1:{}", self.ports[0]);
        let output = self.command(args).env("COREDINATOR_ADDR", address).output().expect("it runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    async fn get(&self, port: u16, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("http://127.0.0.1:{port}{path}")).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    async fn api(&self, path: &str) -> Option<Value> {
        self.get(self.ports[0], &format!("/api/coredinator{path}")).await
    }

    /// Process ids and ports of the services, by name, once all of them run.
    async fn services(&self) -> Option<BTreeMap<&'static str, (u64, u16)>> {
        let mut services = BTreeMap::new();
        for name in ["coreio", "corerl-a", "corerl-b"] {
            let service = self.api(&format!("/services/{name}")).await?;
            let instance = service["instances"].get(0).filter(|instance| instance["ready"] == true)?;
            services.insert(name, (instance["pid"].as_u64()?, u16::try_from(instance["port"].as_u64()?).ok()?));
        }
        Some(services)
    }

    /// How each controller stands with coredinator.
    async fn standings(&self, services: &BTreeMap<&'static str, (u64, u16)>) -> Option<Vec<Value>> {
        let mut standings = Vec::new();
        for name in CONTROLLERS {
            standings.push(self.get(services[name].1, "/api/corerl/status").await?["coordination"].clone());
        }
        Some(standings)
    }

    async fn until<T>(&mut self, what: &str, look: impl AsyncFn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            assert!(Instant::now() < deadline, "never: {what}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// All that carry the mark, and live.
    fn alive(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.mark);
        let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
        entries
            .filter_map(|entry| {
                let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
                let environment = fs::read(entry.path().join("environ")).ok()?;
                environment.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()).then_some(pid)
            })
            .collect()
    }
}

/// Lets the controllers learn in simulated time, so that nobody has to wait for it, and keeps what they learned where the
/// services look for it.
fn train(folder: &std::path::Path) {
    let mut plant = Plant::new(1);
    let config = |setpoint, max_steam| LearnerConfig { setpoint, max_steam, episode_steps: 20 };
    let mut learners = [(Learner::new(1), config(62.0, 14.0)), (Learner::new(2), config(80.0, 8.0))];
    for _ in 0..200 {
        for (index, (learner, config)) in learners.iter_mut().enumerate() {
            let tank = Observation {
                time_s: plant.time_s,
                temperature: plant.tanks[index].measured,
                inlet_temperature: plant.inlet(index).temperature,
                steam: plant.tanks[index].steam,
            };
            let (demand, _) = learner.step(config, tank);
            plant.act(&Action::Tank { index, steam: Some(demand.steam), valve: None });
        }
        plant.advance(5.0, CAPACITY);
    }
    for (index, steam) in [(0, 9.0), (1, 4.0)] {
        plant.act(&Action::Tank { index, steam: Some(steam), valve: None });
    }
    state_file::save(&folder.join("coreio.json"), &plant).expect("kept");
    for ((learner, _), unit) in learners.iter().zip(["tank-a", "tank-b"]) {
        assert!(learner.forecast().is_some(), "{unit} has learned nothing");
        state_file::save(&folder.join(format!("corerl-{unit}.json")), learner).expect("kept");
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

/// Whether both do what they were told, by a later epoch than this one.
fn told(standings: &[Value], epoch: u64) -> bool {
    standings.iter().all(|standing| standing["standing"] == "told" && number(standing, "epoch") > epoch)
}

/// The steam that is asked of the plant.
fn demand(state: &Value) -> Option<f64> {
    ["tank-a", "tank-b", "tank-c"]
        .iter()
        .map(|tank| state["tags"][format!("{tank}.steam_wanted")]["value"].as_f64())
        .sum()
}

/// What was asked of the plant, looked at again and again.
type Seen = Arc<Mutex<Vec<f64>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_share_the_plant_and_outlive_their_coredinator() {
    let mut quickstart = Quickstart::new();
    quickstart.up();
    let services = quickstart.until("the services run", async |it| it.services().await).await;
    let (seen, watching) = (Seen::default(), Arc::new(AtomicBool::new(true)));
    let watch = {
        let (seen, watching, client) = (Arc::clone(&seen), Arc::clone(&watching), quickstart.client.clone());
        let url = format!("http://127.0.0.1:{}/api/coreio/state", quickstart.ports[1]);
        tokio::spawn(async move {
            while watching.load(Ordering::Relaxed) {
                let state = async { client.get(&url).send().await.ok()?.json::<Value>().await.ok() };
                let state = state.await;
                seen.lock().expect("not poisoned").extend(state.as_ref().and_then(demand));
                sleep(Duration::from_millis(100)).await;
            }
        })
    };

    // They want more than there is, and a feed that cannot be both; and are told one plan.
    let mut subjects = BTreeMap::new();
    let mut last = 0;
    while subjects.len() < 2 {
        let record = quickstart
            .until("another cycle with conflicts", async |it| {
                let cycles = it.api("/coordination/cycles?limit=50").await?;
                let fresh = |cycle: &&Value| number(cycle, "cycle") > last && number(cycle, "conflicts") > 0;
                let cycle = cycles["cycles"].as_array()?.iter().rfind(fresh)?;
                it.api(&format!("/coordination/cycles/{}", number(cycle, "cycle"))).await
            })
            .await;
        let plan = &record["plan"];
        last = number(plan, "cycle");
        for conflict in plan["conflicts"].as_array().expect("conflicts") {
            subjects.insert(conflict["type"].to_string(), last);
        }
        let steam = &plan["utilization"]["steam"];
        let used = steam["granted"].as_f64().expect("a number") + steam["held"].as_f64().expect("a number");
        assert!(plan["verified"] == true && used <= CAPACITY * (1.0 + 1e-9), "{plan}");
        assert_eq!(plan["decisions"].as_array().map(Vec::len), Some(2), "{plan}");
    }
    let before = quickstart
        .until("both do what they are told", async |it| it.standings(&services).await.filter(|all| told(all, 0)))
        .await;
    let agents = quickstart.says(&["agents", "-o", "name"]);
    assert_eq!(agents, "corerl-a\ncorerl-b\n");
    assert!(quickstart.says(&["cycles"]).contains("centralized"));
    let shown = quickstart.says(&["cycle", &last.to_string()]);
    assert!(shown.contains("corerl-a") && shown.contains("steam"), "{shown}");

    // Its death stops nobody; when what they were told counts no more they fall back, each by itself.
    quickstart.end(Signal::KILL);
    quickstart.coredinator.take().expect("it ran").wait().expect("it ended");
    quickstart
        .until("both are on the safe side", async |it| {
            let all = it.standings(&services).await?;
            let at_most: Option<f64> = all.iter().map(|standing| standing["steam_at_most"].as_f64()).sum();
            let alone = all.iter().all(|standing| standing["standing"] == "alone" && standing["feed"].is_null());
            let state = it.get(it.ports[1], "/api/coreio/state").await?;
            (alone && at_most? <= SAFE && demand(&state)? <= SAFE + 1e-9).then_some(())
        })
        .await;

    // Another one finds them, and they rejoin; nobody has been started anew.
    quickstart.up();
    let epoch = before.iter().map(|standing| number(standing, "epoch")).max().unwrap_or_default();
    let after = quickstart
        .until("both are told by the next coredinator", async |it| {
            it.standings(&services).await.filter(|all| told(all, epoch))
        })
        .await;
    for (before, after) in before.iter().zip(&after) {
        assert!(number(after, "cycle") > number(before, "cycle"), "{before} {after}");
    }
    let same = quickstart.until("the services are found", async |it| it.services().await).await;
    assert_eq!(same, services);

    watching.store(false, Ordering::Relaxed);
    watch.await.expect("it watched");
    let metrics = quickstart.get(quickstart.ports[1], "/api/coreio/metrics").await.expect("the plant answers");
    assert_eq!(metrics["boiler"]["trips"], 0, "{metrics}");
    let seen = seen.lock().expect("not poisoned").clone();
    let over = seen.iter().filter(|demand| **demand > CAPACITY + 1e-6).count();
    let most = seen.iter().copied().fold(0.0, f64::max);
    println!("{} looks, {over} above {CAPACITY} t/h, at most {most:.2} t/h", seen.len());
    // A controller that the machine does not let run for a whole cycle may be late to let go; nobody else is.
    assert!(!seen.is_empty() && over * 50 <= seen.len(), "{over} of {} looks, at most {most} t/h", seen.len());

    quickstart.end(Signal::TERM);
    // Of one that has ended the kernel tells no environment any more, waited for or not.
    quickstart.until("all have ended", async |it| it.alive().is_empty().then_some(())).await;
    let status = quickstart.coredinator.take().expect("it ran").wait().expect("it ended");
    assert!(status.success(), "{status}");
}
