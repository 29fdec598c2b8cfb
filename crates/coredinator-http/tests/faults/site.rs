//! Several replicas of coredinator on one PostgreSQL server, each a process of its own with a line of its own to the server.
//!
//! A replica is the reference binary's command line with one more runtime: processes that every replica on this machine
//! reaches alike, so that they are looked after by whoever leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{
    FieldError, InstanceRef, LogQuery, LogStream, ObservationStream, Runtime, RuntimeCapabilities, RuntimeError,
    RuntimeName, Scope, ServiceName, ServiceSpec, StartRequest, Started, StopRequest,
};
use coredinator_http::cli::{Program, main_with};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use coredinator_test_postgres::Cluster;
use reqwest::{Client, Method};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    described::assert_described,
    processes::{self, Process},
};

/// An upper bound for a loaded machine, never waited for in full.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The variable that marks replicas and, as it is inherited, all that they start.
const MARK: &str = "FAULTS_OF";
/// Tells this program to be a replica: its arguments, as JSON.
const REPLICA: &str = "FAULTS_REPLICA";

/// Processes that every replica reaches alike, as all are on this machine.
struct Anywhere(ProcessRuntime);

#[async_trait]
impl Runtime for Anywhere {
    fn name(&self) -> RuntimeName {
        RuntimeName::new("anywhere").unwrap()
    }
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities { scope: Scope::Cluster, ..self.0.capabilities() }
    }
    fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        self.0.validate(spec)
    }
    async fn start(&self, request: StartRequest) -> Result<Started, RuntimeError> {
        self.0.start(request).await
    }
    async fn list(&self, known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        self.0.list(known).await
    }
    fn watch(&self, instance: &InstanceRef) -> ObservationStream {
        self.0.watch(instance)
    }
    async fn stop(&self, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError> {
        self.0.stop(instance, how).await
    }
    async fn signal(&self, instance: &InstanceRef, signal: coredinator_core::Signal) -> Result<(), RuntimeError> {
        self.0.signal(instance, signal).await
    }
    /// Each replica writes documents into a folder of its own: brings one to where the instance looks for it.
    async fn deliver(&self, instance: &InstanceRef, file: &Path) -> Result<(), RuntimeError> {
        let failed = |error| RuntimeError::internal("cannot bring a document", error);
        let wanted = processes::variable(instance.id.as_str(), "COREDINATOR_CONFIG_FILE");
        match wanted.filter(|wanted| Path::new(wanted) != file) {
            Some(wanted) => {
                let beside = format!("{wanted}.{:016x}", fastrand::u64(..));
                fs::copy(file, &beside).and_then(|_| fs::rename(&beside, wanted)).map_err(failed)
            }
            None => Ok(()),
        }
    }
    async fn logs(&self, query: LogQuery) -> Result<LogStream, RuntimeError> {
        self.0.logs(query).await
    }
    async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        self.0.forget(service).await
    }
}

/// Not a test: what a replica runs, in a process that is told so.
#[test]
fn runs_as_a_replica_where_it_is_told_to() {
    let Ok(arguments) = std::env::var(REPLICA) else { return };
    let arguments: Vec<String> = serde_json::from_str(&arguments).unwrap();
    let serve = coredinator_http::server(|coredinator| {
        coredinator.runtime(|identity| {
            let options = ProcessRuntimeOptions::new(&identity.log_dir, &identity.owner);
            Ok(Arc::new(Anywhere(ProcessRuntime::new(options)?)))
        })
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let program = Program { serve: Some(serve), ..Program::default() };
    runtime.block_on(main_with(program, arguments.into_iter().map(OsString::from)));
}

/// A line to the database server that can be cut: then nothing comes through, and neither end is told.
#[derive(Debug)]
pub(crate) struct Line {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Line {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut is_open = is_open.clone();
                tokio::spawn(async move {
                    // An error says that the test has ended.
                    if is_open.wait_for(|open| *open).await.is_err() {
                        return;
                    }
                    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(carry(near_in, far_out, is_open.clone()), carry(far_in, near_out, is_open));
                });
            }
        });
        Self { address, open }
    }

    /// The URL of a database by this line.
    pub(crate) fn url(&self, url: &str) -> String {
        let (user, place) = url.rsplit_once('@').expect("a user");
        let (_, database) = place.split_once('/').expect("a database");
        format!("{user}@{}/{database}", self.address)
    }

    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if is_open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// One replica, alive or not.
pub(crate) struct Replica {
    pub(crate) node: String,
    pub(crate) line: Line,
    /// The name of its data directory.
    data: String,
    port: u16,
    child: Option<Child>,
    lives: u32,
}

/// What a replica says of who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Says {
    pub(crate) leads: bool,
    pub(crate) epoch: u64,
    pub(crate) leader: Option<String>,
}

/// Replicas on one database.
pub(crate) struct Site {
    dir: TempDir,
    url: String,
    mark: String,
    client: Client,
    timing: [String; 3],
    pub(crate) replicas: Vec<Replica>,
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for at in 0..self.replicas.len() {
                let said = self.said(at);
                let from = said.len().saturating_sub(6000);
                eprintln!("--- what {} said last:\n{}", self.replicas[at].node, said.get(from..).unwrap_or(&said));
            }
        }
        processes::kill_all(MARK, &self.mark);
        for replica in &mut self.replicas {
            if let Some(mut child) = replica.child.take() {
                let _ = child.wait();
            }
        }
    }
}

impl Site {
    /// Replicas on a new database of this server; none is started yet. `timing`: lease, renew deadline, retry, in seconds.
    pub(crate) async fn new(cluster: &Cluster, nodes: &[&str], timing: [f64; 3]) -> Self {
        let mut replicas = Vec::new();
        for node in nodes {
            let line = Line::to(cluster.port()).await;
            // Reserved for a moment, and free again: nobody else takes it in that time.
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let node = (*node).to_owned();
            replicas.push(Replica { data: node.clone(), node, line, port, child: None, lives: 0 });
        }
        Self {
            dir: tempfile::tempdir().unwrap(),
            url: cluster.database(),
            mark: format!("{}-{:016x}", std::process::id(), fastrand::u64(..)),
            client: Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().unwrap(),
            timing: timing.map(|seconds| seconds.to_string()),
            replicas,
        }
    }

    /// Where what instances of a test write may be put.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The database, without a line that can be cut.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn log(&self, at: usize) -> std::path::PathBuf {
        let replica = &self.replicas[at];
        self.dir.path().join(format!("{}-{}.log", replica.data, replica.lives))
    }

    pub(crate) fn said(&self, at: usize) -> String {
        String::from_utf8_lossy(&fs::read(self.log(at)).unwrap_or_default()).into_owned()
    }

    /// Where a replica is reached.
    pub(crate) fn address(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.replicas[at].port)
    }

    /// Gives a replica a data directory of its own, although another has its name.
    pub(crate) fn keep_apart(&mut self, at: usize) {
        self.replicas[at].data = format!("{}-{at}", self.replicas[at].node);
    }

    /// Starts a replica, and does not wait for anything.
    pub(crate) fn launch(&mut self, at: usize) {
        assert!(self.replicas[at].child.is_none(), "one life at a time");
        self.replicas[at].lives += 1;
        let replica = &self.replicas[at];
        let [scheme_and_user, rest] = self.url.split('@').collect::<Vec<_>>()[..] else { panic!("{}", self.url) };
        let (_, database) = rest.split_once('/').unwrap();
        let join = if database.contains('?') { '&' } else { '?' };
        let url =
            format!("{scheme_and_user}@{}/{database}{join}connect_timeout=2&statement_timeout=5", replica.line.address);
        let data = self.dir.path().join(&replica.data);
        let port = replica.port.to_string();
        let arguments = [
            "coredinator",
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--node",
            &replica.node,
            "--database-url",
            &url,
            "--data-dir",
            data.to_str().unwrap(),
            "--detach",
        ];
        let mut command = Command::new(std::env::current_exe().unwrap());
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("COREDINATOR_")) {
            command.env_remove(key);
        }
        for (key, value) in ["LEASE", "RENEW_DEADLINE", "RETRY"].iter().zip(&self.timing) {
            command.env(format!("COREDINATOR_LEADERSHIP__{key}"), value);
        }
        command.args(["--exact", "site::runs_as_a_replica_where_it_is_told_to", "--nocapture"]);
        command.env(REPLICA, json!(arguments).to_string()).env(MARK, &self.mark).env("COREDINATOR_LOG_FORMAT", "text");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(self.log(at)).unwrap());
        self.replicas[at].child = Some(command.spawn().unwrap());
    }

    /// Starts a replica, and waits until it has found what runs already.
    pub(crate) async fn start(&mut self, at: usize) {
        self.launch(at);
        self.until("it is ready", async |site| {
            site.ask(at, Method::GET, "/readyz", None).await.is_some_and(|(s, _)| s == 200)
        })
        .await;
    }

    pub(crate) fn signal(&self, at: usize, signal: Signal) {
        processes::signal(self.replicas[at].child.as_ref().expect("it runs").id(), signal);
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, at: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.replicas[at].child.as_mut().expect("it runs").try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.said(at));
            sleep(Duration::from_millis(2)).await;
        }
        self.replicas[at].child = None;
    }

    /// `None`: no answer came.
    pub(crate) async fn ask(&self, at: usize, method: Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let replica = &self.replicas[at];
        replica.child.as_ref()?;
        let request = self.client.request(method.clone(), format!("http://127.0.0.1:{}{path}", replica.port));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.to_owned();
        let text = response.text().await.ok()?;
        assert_described(method.as_str(), path, status, &kind, text.as_bytes());
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// What a replica says of who leads; `None`: it says nothing within a moment.
    pub(crate) async fn says(&self, at: usize) -> Option<Says> {
        let asking = self.ask(at, Method::GET, "/api/coredinator/leadership", None);
        let (_, told) = tokio::time::timeout(Duration::from_millis(500), asking).await.ok()??;
        Some(Says {
            leads: told["role"] == "leader",
            epoch: told["epoch"].as_u64()?,
            leader: told["leader"]["node"].as_str().map(str::to_owned),
        })
    }

    /// One service, as a replica tells it.
    pub(crate) async fn service(&self, at: usize, name: &str) -> Value {
        let path = format!("/api/coredinator/services/{name}");
        self.ask(at, Method::GET, &path, None).await.map_or(Value::Null, |(_, service)| service)
    }

    /// The pids of a service's instances by the kernel's account, after a check that no replica of any runs twice.
    pub(crate) fn pids(&self) -> BTreeMap<String, BTreeSet<u32>> {
        let seen = processes::marked(MARK, &self.mark);
        let doubled: Vec<Vec<Process>> = processes::doubled(&seen);
        assert!(doubled.is_empty(), "doubled: {doubled:#?}");
        let mut pids: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for process in seen.iter().filter(|process| process.leads) {
            pids.entry(process.service.clone()).or_default().insert(process.pid);
        }
        pids
    }

    /// Waits until `holds`, watching all the while that nothing runs twice and no two lead.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            let pids = self.pids();
            self.no_two_lead().await;
            if Instant::now() >= deadline {
                let mut told = Vec::new();
                for at in 0..self.replicas.len() {
                    let services = self.ask(at, Method::GET, "/api/coredinator/services?limit=1000", None).await;
                    told.push((self.says(at).await, services));
                }
                panic!("never: {what}\nprocesses: {pids:#?}\nreplicas: {told:#?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Each answers by itself and later than the one before: one that leads before another did and after it, too, is a
    /// second one.
    async fn no_two_lead(&self) {
        let leads = async |at| self.says(at).await.filter(|says| says.leads).map(|says| says.epoch);
        for first in 0..self.replicas.len() {
            let Some(before) = leads(first).await else { continue };
            for second in (0..self.replicas.len()).filter(|second| *second != first) {
                if leads(second).await.is_some() {
                    assert_ne!(leads(first).await, Some(before), "two lead at the same time");
                }
            }
        }
    }

    /// The replica that leads, as it says itself.
    pub(crate) async fn leader(&self) -> usize {
        let mut found = None;
        self.until("one leads", async |site| {
            for at in 0..site.replicas.len() {
                if site.says(at).await.is_some_and(|says| says.leads) {
                    found = Some(at);
                }
            }
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}
