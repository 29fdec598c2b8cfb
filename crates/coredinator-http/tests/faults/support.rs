//! A plant of its own for every test: a directory, a file of services, and the real binary on it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use reqwest::{Client, Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    described::assert_described,
    processes::{self, Process},
};

/// An upper bound for a loaded machine, never waited for in full.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The variable that marks coredinator and, as it is inherited, all that it starts.
const MARK: &str = "FAULTS_OF";

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    /// For how long the store has not been reached.
    pub(crate) stale: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "refused: {self:?}");
        self.body
    }
}

pub(crate) struct Plant {
    _dir: TempDir,
    root: PathBuf,
    data: PathBuf,
    mark: String,
    client: Client,
    coredinator: Option<Child>,
    address: String,
    lives: u32,
    /// An upper bound on what is waited for: [`PATIENCE`], unless what runs the services takes longer.
    pub(crate) patience: Duration,
    /// Run by a shell before coredinator takes its place.
    pub(crate) prelude: Option<String>,
    pub(crate) arguments: Vec<String>,
}

impl Drop for Plant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what coredinator said last:\n{}", self.said());
        }
        processes::kill_all(MARK, &self.mark);
        if let Some(mut child) = self.coredinator.take() {
            let _ = child.wait();
        }
    }
}

impl Plant {
    /// A plant with these services in its file; nothing is started yet.
    pub(crate) fn new(services: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let plant = Self {
            mark: format!("{}-{:016x}", std::process::id(), fastrand::u64(..)),
            data: root.join("data"),
            root,
            _dir: dir,
            client: Client::builder().timeout(PATIENCE).no_proxy().build().unwrap(),
            coredinator: None,
            address: String::new(),
            lives: 0,
            patience: PATIENCE,
            prelude: None,
            arguments: Vec::new(),
        };
        plant.declare(services);
        plant
    }

    /// The same, started and ready.
    pub(crate) async fn running(services: &Value) -> Self {
        let mut plant = Self::new(services);
        plant.start().await;
        plant
    }

    /// Writes its file anew. JSON is YAML.
    pub(crate) fn declare(&self, services: &Value) {
        fs::write(self.root.join("plant.yaml"), json!({"coredinator": {"services": services}}).to_string()).unwrap();
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the coredinator of now is reached.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn keep_data_in(&mut self, data: impl Into<PathBuf>) {
        self.data = data.into();
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.data.join("store.sqlite")
    }

    fn log(&self) -> PathBuf {
        self.root.join(format!("coredinator-{}.log", self.lives))
    }

    /// What the coredinator of now has said on its standard error.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// The command that runs a coredinator on this plant, marked.
    pub(crate) fn command(&self, port: u16) -> Command {
        let binary = env!("CARGO_BIN_EXE_coredinator");
        let mut command = match &self.prelude {
            None => Command::new(binary),
            Some(prelude) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{prelude}; exec \"$0\" \"$@\""), binary]);
                shell
            }
        };
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("COREDINATOR_")) {
            command.env_remove(key);
        }
        command.arg("serve").arg("--config").arg(self.root.join("plant.yaml")).arg("--data-dir").arg(&self.data);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).args(&self.arguments);
        command.env(MARK, &self.mark).env("COREDINATOR_LOG_FORMAT", "text").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts a coredinator, and does not wait for anything.
    pub(crate) fn launch(&mut self) {
        self.launch_at(0);
    }

    pub(crate) fn launch_at(&mut self, port: u16) {
        assert!(self.coredinator.is_none(), "one coredinator at a time");
        self.lives += 1;
        self.address.clear();
        let log = fs::File::create(self.log()).unwrap();
        self.coredinator = Some(self.command(port).stderr(log).spawn().unwrap());
    }

    /// Waits until it listens; `false` if it has ended instead.
    pub(crate) async fn listens(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(address) = listening(&self.said()) {
                self.address = address;
                return true;
            }
            if self.ended().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "it never listened:\n{}", self.said());
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Starts a coredinator, and waits until it has found what runs already.
    pub(crate) async fn start(&mut self) {
        self.launch();
        assert!(self.listens().await, "it ended:\n{}", self.said());
        self.until("coredinator is ready", async |plant| {
            plant.get("/readyz").await.is_some_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.coredinator.as_ref().expect("a coredinator runs").id()
    }

    /// How coredinator ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.coredinator.as_mut()?.try_wait().unwrap()
    }

    /// Waits for coredinator's end.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(status) = self.ended() {
                self.coredinator = None;
                return status;
            }
            assert!(Instant::now() < deadline, "coredinator does not end:\n{}", self.said());
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        processes::signal(self.pid(), Signal::KILL);
        self.end().await;
    }

    /// SIGTERM, to the end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        processes::signal(self.pid(), Signal::TERM);
        self.end().await
    }

    /// `None`: no answer came. One that comes is one that the description promises.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        let request = self.client.request(method.clone(), format!("{}{path}", self.address));
        let mut request = request.header("accept", "application/json");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.ok()?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, content_type) = (response.status(), header("content-type").unwrap_or_default());
        let (retry_after, stale) = (header("retry-after"), header("x-coredinator-stale"));
        let text = response.text().await.ok()?;
        assert_described(method.as_str(), path, status.as_u16(), &content_type, text.as_bytes());
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Some(Answer { status, content_type, retry_after, stale, body })
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn register(&self, document: Value) -> Option<Answer> {
        self.call(Method::POST, "/api/coredinator/services/register?replace=true", Some(document)).await
    }

    pub(crate) async fn deregister(&self, name: &str) -> Option<Answer> {
        self.call(Method::DELETE, &format!("/api/coredinator/services/{name}"), None).await
    }

    /// `start`, `stop` or `restart`.
    pub(crate) async fn order(&self, name: &str, order: &str) -> Option<Answer> {
        self.call(Method::POST, &format!("/api/coredinator/services/{name}/{order}"), None).await
    }

    pub(crate) async fn scale(&self, name: &str, replicas: u32) -> Option<Answer> {
        let path = format!("/api/coredinator/services/{name}/scale");
        self.call(Method::PUT, &path, Some(json!({"replicas": replicas}))).await
    }

    /// All services, as the API tells them.
    pub(crate) async fn services(&self) -> Vec<Value> {
        let answer = self.get("/api/coredinator/services?limit=1000").await.expect("coredinator answers");
        answer.ok()["services"].as_array().unwrap().clone()
    }

    /// One service, as the API tells it; `Null` if there is none.
    pub(crate) async fn service(&self, name: &str) -> Value {
        let answer = self.get(&format!("/api/coredinator/services/{name}")).await.expect("coredinator answers");
        if answer.status == StatusCode::NOT_FOUND { Value::Null } else { answer.ok() }
    }

    /// What runs, by the kernel's account.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::marked(MARK, &self.mark)
    }

    /// What runs, after a check that no replica does twice.
    pub(crate) fn none_doubled(&self) -> Vec<Process> {
        let seen = self.processes();
        let doubled = processes::doubled(&seen);
        assert!(doubled.is_empty(), "doubled: {doubled:#?}\nall: {seen:#?}");
        seen
    }

    pub(crate) fn assert_nothing_runs(&self) {
        assert_eq!(self.processes(), [], "left behind");
    }

    /// Waits until `holds`, watching all the while that nothing is doubled.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(2);
        while !holds(self).await {
            let seen = self.none_doubled();
            if Instant::now() >= deadline {
                let services = self.get("/api/coredinator/services?limit=1000").await.map(|answer| answer.body);
                panic!("never: {what}\nservices: {services:#?}\nprocesses: {seen:#?}");
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Waits until the service's document is as wanted, and answers it.
    pub(crate) async fn service_until(&self, name: &str, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        self.until(&format!("{name} {what}"), async |plant| {
            last = plant.service(name).await;
            holds(&last)
        })
        .await;
        last
    }

    /// Waits until exactly `replicas` instances run and are in discovery, and API and kernel agree on their pids: those.
    pub(crate) async fn runs(&self, name: &str, replicas: usize) -> BTreeSet<u32> {
        let mut pids = BTreeSet::new();
        self.until(&format!("{replicas} of {name} run, by the API and by the kernel"), async |plant| {
            let service = plant.service(name).await;
            let told = running(&service);
            pids = told.into_iter().collect();
            pids.len() == replicas
                && service["ready"] == replicas
                && service["instances"].as_array().is_some_and(|instances| instances.len() == replicas)
                && pids == processes::leaders_of(&plant.none_doubled(), name)
        })
        .await;
        pids
    }
}

/// The pids of the instances that the API says run.
pub(crate) fn running(service: &Value) -> Vec<u32> {
    let instances = service["instances"].as_array().into_iter().flatten();
    let pid = |instance: &Value| u32::try_from(instance["pid"].as_u64()?).ok();
    instances.filter(|instance| instance["state"] == "running").filter_map(pid).collect()
}

/// The address in the line in which coredinator says where it listens.
fn listening(said: &str) -> Option<String> {
    let complete = said.rfind('\n').map_or("", |end| &said[..end]);
    let line = complete.lines().find(|line| line.contains("listening") && line.contains("http://127.0.0.1:"))?;
    let address = &line[line.find("http://")?..];
    Some(address.split_whitespace().next()?.trim_end_matches(['/', '.', ',', ';']).to_owned())
}

/// A managed service that does nothing for a long time, and comes back fast.
pub(crate) fn sleeper() -> Value {
    script("exec sleep 1000")
}

/// A managed service run by a shell.
pub(crate) fn script(text: &str) -> Value {
    json!({
        "runtime": "process",
        "command": ["sh", "-c", text],
        "backoff": {"initial": 0.02, "max": 0.1, "jitter": 0.1},
        "stop_grace_period": 5,
    })
}

/// `base` with `more` laid over it.
pub(crate) fn with(base: Value, more: Value) -> Value {
    let (Value::Object(mut base), Value::Object(more)) = (base, more) else { panic!("both are objects") };
    base.extend(more);
    Value::Object(base)
}
