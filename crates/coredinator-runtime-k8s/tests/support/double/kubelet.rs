//! The double's node: it runs each pod's program as a local process, and tells of it as a kubelet does.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use coredinator_core::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::Instant,
};

use super::{
    IMAGE,
    world::{self, Key, World},
};

/// The pause before a program is started again in place.
const BACK_OFF: Duration = Duration::from_millis(300);

/// What one run of a program printed.
#[derive(Debug, Clone)]
pub(super) struct Printed {
    lines: Arc<Mutex<Vec<(Timestamp, String)>>>,
    /// How many lines there are, and whether there will be no more.
    count: watch::Sender<(usize, bool)>,
}

impl Printed {
    fn new() -> Self {
        Self { lines: Arc::default(), count: watch::Sender::new((0, false)) }
    }

    fn push(&self, at: Timestamp, line: String) {
        let count = {
            let mut lines = self.lines.lock().unwrap();
            lines.push((at, line));
            lines.len()
        };
        self.count.send_modify(|(lines, _)| *lines = count);
    }

    pub(super) fn read(&self, since: Option<Timestamp>, tail: Option<usize>) -> Reader {
        let lines = self.lines.lock().unwrap();
        let first = since.map_or(0, |since| lines.partition_point(|(at, _)| *at < since));
        let next = tail.map_or(first, |tail| first.max(lines.len().saturating_sub(tail)));
        Reader { printed: self.clone(), next, count: self.count.subscribe() }
    }
}

/// Reads what is printed, from a line on.
pub(super) struct Reader {
    printed: Printed,
    next: usize,
    count: watch::Receiver<(usize, bool)>,
}

impl Reader {
    pub(super) async fn next(&mut self, follow: bool) -> Option<(Timestamp, String)> {
        loop {
            let (_, ended) = *self.count.borrow_and_update();
            if let Some(line) = self.printed.lines.lock().unwrap().get(self.next).cloned() {
                self.next += 1;
                return Some(line);
            }
            if ended || !follow || self.count.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// What a kubelet is told of one pod, and what it has of it.
#[derive(Debug)]
pub(super) struct Pod {
    /// By when it is to have ended.
    ending: watch::Sender<Option<Instant>>,
    state: Arc<Mutex<Run>>,
}

#[derive(Debug, Default)]
struct Run {
    group: Option<Pid>,
    lost: bool,
    printed: Option<Printed>,
    previous: Option<Printed>,
}

impl Pod {
    /// Begins to end it. As real kubelets do, it goes by the first grace that it hears of, whatever comes later.
    pub(super) fn end(&self, grace: Duration) {
        let by = Instant::now() + grace;
        self.ending.send_if_modified(|earlier| {
            let is_first = earlier.is_none();
            earlier.get_or_insert(by);
            is_first
        });
    }

    pub(super) fn lose(&self) {
        self.state.lock().unwrap().lost = true;
    }

    pub(super) fn kill(&self) {
        signal(&self.state, Signal::KILL);
    }

    pub(super) fn printed(&self, previous: bool) -> Option<Printed> {
        let state = self.state.lock().unwrap();
        if previous { state.previous.clone() } else { state.printed.clone() }
    }
}

fn signal(state: &Mutex<Run>, signal: Signal) {
    if let Some(group) = state.lock().unwrap().group {
        let _ = kill_process_group(group, signal);
    }
}

/// Takes on a pod that was just made.
pub(super) fn run(world: &Arc<World>, pod: &Value) {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (key, uid) = (world::key("pods", &text("/metadata/namespace"), &text("/metadata/name")), text("/metadata/uid"));
    let (ending, told) = watch::channel(None);
    let state = Arc::new(Mutex::new(Run::default()));
    world.nodes.lock().unwrap().insert(uid, Pod { ending, state: Arc::clone(&state) });
    let node = Node { world: Arc::clone(world), key, pod: pod.clone(), state, told };
    tokio::spawn(node.live());
}

struct Node {
    world: Arc<World>,
    key: Key,
    pod: Value,
    state: Arc<Mutex<Run>>,
    told: watch::Receiver<Option<Instant>>,
}

impl Node {
    async fn live(mut self) {
        let container = self.pod["spec"]["containers"][0].clone();
        let Some(node) = self.pod["spec"].get("nodeSelector").is_none().then_some("double") else {
            let message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
            self.tell(|status| {
                status["conditions"] = json!([{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                }]);
            });
            return self.until_deleted().await;
        };
        self.tell(|status| {
            status["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
            status["hostIP"] = json!("127.0.0.1");
            status["nominatedNodeName"] = json!(node);
            waiting(status, "ContainerCreating", None);
        });
        if container["image"] != IMAGE {
            let never = container["imagePullPolicy"] == "Never";
            let (reason, message) = if never {
                ("ErrImageNeverPull", "Container image is not present with pull policy of Never")
            } else {
                ("ImagePullBackOff", "Back-off pulling image")
            };
            self.tell(|status| waiting(status, reason, Some(message)));
            return self.until_deleted().await;
        }
        let policy = self.pod["spec"]["restartPolicy"].as_str().unwrap_or("Always").to_owned();
        let mut restarts = 0;
        loop {
            let ended = self.run_once(&container, restarts).await;
            let code = ended["exitCode"].as_i64().unwrap_or(0);
            let again = self.told.borrow().is_none() && (policy == "Always" || (policy == "OnFailure" && code != 0));
            if !again {
                self.tell(|status| {
                    status["phase"] = json!(if code == 0 { "Succeeded" } else { "Failed" });
                    status["containerStatuses"][0]["state"] = json!({"terminated": ended});
                    status["containerStatuses"][0]["ready"] = json!(false);
                    ready(status, false);
                });
                break;
            }
            self.tell(|status| {
                status["containerStatuses"][0]["lastState"] = json!({"terminated": ended});
                waiting(status, "CrashLoopBackOff", Some("back-off restarting failed container"));
                ready(status, false);
            });
            let told = tokio::time::timeout(BACK_OFF, self.told.wait_for(Option::is_some)).await.is_ok();
            if told {
                self.tell(|status| status["phase"] = json!("Failed"));
                break;
            }
            restarts += 1;
        }
        self.until_deleted().await;
    }

    /// Waits until the pod is to be deleted, and says that it has ended.
    async fn until_deleted(mut self) {
        if self.told.wait_for(Option::is_some).await.is_ok() && !self.state.lock().unwrap().lost {
            self.world.remove(&self.key);
        }
    }

    /// Runs the program once; answers how it ended.
    async fn run_once(&mut self, container: &Value, restarts: u32) -> Value {
        let started_at = self.world.stamp();
        let ended = |code: i64, reason: &str, message: &str, at: String| {
            json!({
                "exitCode": code, "reason": reason, "message": message, "startedAt": started_at, "finishedAt": at,
            })
        };
        let mut child = match command(container).spawn() {
            Ok(child) => child,
            Err(error) => {
                let message = format!("exec: {error}: no such file or directory");
                self.tell(|status| {
                    status["containerStatuses"] =
                        json!([{"name": "main", "restartCount": restarts, "ready": false, "state": {}}]);
                });
                return ended(128, "StartError", &message, self.world.stamp());
            }
        };
        let printed = Printed::new();
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        {
            let mut state = self.state.lock().unwrap();
            state.group = group;
            state.previous = state.printed.take();
            state.printed = Some(printed.clone());
        }
        self.world.processes.fetch_add(1, Ordering::SeqCst);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let out = self.reading(out, &printed);
        let err = self.reading(err, &printed);
        let at = started_at.clone();
        self.tell(|status| {
            status["phase"] = json!("Running");
            status["podIP"] = json!("127.0.0.1");
            status["startTime"] = json!(at);
            let last = status["containerStatuses"][0]["lastState"].clone();
            let (ready_at_once, started) = (container["readinessProbe"].is_null(), container["startupProbe"].is_null());
            status["containerStatuses"] = json!([{
                "name": "main", "restartCount": restarts, "ready": ready_at_once && started, "started": started,
                "state": {"running": {"startedAt": at}}, "lastState": last,
            }]);
            ready(status, ready_at_once && started);
        });
        let checking = tokio::spawn(check(Arc::clone(&self.world), self.key.clone(), container.clone(), group));
        let (code, signal) = self.until_ended(&mut child).await;
        checking.abort();
        // What the program left behind goes with its container.
        self.signal(Signal::KILL);
        self.state.lock().unwrap().group = None;
        let _ = tokio::join!(out, err);
        let count = printed.lines.lock().unwrap().len();
        printed.count.send_replace((count, true));
        self.world.processes.fetch_sub(1, Ordering::SeqCst);
        let code = code.map_or(128 + i64::from(signal.unwrap_or(0)), i64::from);
        ended(code, if code == 0 { "Completed" } else { "Error" }, "", self.world.stamp())
    }

    /// Waits for the end of a program, or ends it as it is told to.
    async fn until_ended(&mut self, child: &mut Child) -> (Option<i32>, Option<i32>) {
        use std::os::unix::process::ExitStatusExt;
        let mut asked = false;
        loop {
            let by = *self.told.borrow_and_update();
            if by.is_some() && !asked {
                asked = true;
                self.signal(Signal::TERM);
            }
            let late = async {
                match by {
                    Some(by) => tokio::time::sleep_until(by).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = child.wait() => {
                    let status = status.expect("a child can be waited for");
                    return (status.code(), status.signal());
                }
                () = late => self.signal(Signal::KILL),
                changed = self.told.changed() => {
                    if changed.is_err() {
                        self.signal(Signal::KILL);
                    }
                }
            }
        }
    }

    fn signal(&self, which: Signal) {
        signal(&self.state, which);
    }

    fn reading<R: AsyncRead + Unpin + Send + 'static>(
        &self,
        from: Option<R>,
        printed: &Printed,
    ) -> impl Future<Output = ()> + use<R> {
        let (world, printed) = (Arc::clone(&self.world), printed.clone());
        let task = tokio::spawn(async move {
            let Some(from) = from else { return };
            let mut lines = BufReader::new(from).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                printed.push(world.now(), String::from_utf8_lossy(&line).into_owned());
            }
        });
        async move {
            let _ = task.await;
        }
    }

    /// Writes the pod's status, unless its node is lost.
    fn tell(&self, change: impl FnOnce(&mut Value)) {
        if !self.state.lock().unwrap().lost {
            self.world.alter(&self.key.0, &self.key.1, &self.key.2, |pod| change(&mut pod["status"]));
        }
    }
}

/// Makes a program's checks while it runs, ten times as often as is asked.
async fn check(world: Arc<World>, key: Key, container: Value, group: Option<Pid>) {
    let tell = |change: &dyn Fn(&mut Value)| {
        world.alter(&key.0, &key.1, &key.2, |pod| change(&mut pod["status"]));
    };
    let mut started = container["startupProbe"].is_null();
    let (mut failures, mut was_ready) = (0, container["readinessProbe"].is_null() && started);
    loop {
        let kind = if started { "livenessProbe" } else { "startupProbe" };
        let probe = &container[kind];
        let period =
            probe["periodSeconds"].as_u64().or(container["readinessProbe"]["periodSeconds"].as_u64()).unwrap_or(10);
        tokio::time::sleep(Duration::from_millis(period * 100)).await;
        if !probe.is_null() {
            failures = if passes(probe, &container).await { 0 } else { failures + 1 };
            if !started && failures == 0 {
                started = true;
                tell(&|status| status["containerStatuses"][0]["started"] = json!(true));
            }
            if failures >= probe["failureThreshold"].as_i64().unwrap_or(3) {
                if let Some(group) = group {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                return;
            }
        }
        let probe = &container["readinessProbe"];
        let is_ready = started && (probe.is_null() || passes(probe, &container).await);
        if is_ready != was_ready {
            was_ready = is_ready;
            tell(&|status| {
                status["containerStatuses"][0]["ready"] = json!(is_ready);
                ready(status, is_ready);
            });
        }
    }
}

async fn passes(probe: &Value, container: &Value) -> bool {
    if let Some(port) = probe["tcpSocket"]["port"].as_u64() {
        let port = u16::try_from(port).expect("a port");
        return tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    }
    let words = probe["exec"]["command"].as_array().expect("the double checks by TCP and by commands alone");
    let words: Vec<String> = words.iter().map(|word| word.as_str().unwrap_or_default().to_owned()).collect();
    let ended = beside(container, &words).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    ended.is_ok_and(|status| status.success())
}

fn waiting(status: &mut Value, reason: &str, message: Option<&str>) {
    if !status["containerStatuses"].is_array() {
        status["containerStatuses"] = json!([{"name": "main", "restartCount": 0, "ready": false}]);
    }
    status["containerStatuses"][0]["state"] = json!({"waiting": {"reason": reason, "message": message}});
    status["containerStatuses"][0]["ready"] = json!(false);
}

fn ready(status: &mut Value, ready: bool) {
    let conditions = status["conditions"].as_array_mut().expect("it was scheduled");
    conditions.retain(|condition| condition["type"] != "Ready");
    conditions.push(json!({"type": "Ready", "status": if ready { "True" } else { "False" }}));
}

/// A command beside a program, which finds what the program does.
pub(super) fn beside(container: &Value, words: &[String]) -> Command {
    let mut beside = container.clone();
    beside["command"] = words.iter().map(|word| word.replace('$', "$$")).collect();
    beside["args"] = Value::Null;
    command(&beside)
}

fn command(container: &Value) -> Command {
    let words = |key: &str| {
        let list = container[key].as_array().cloned().unwrap_or_default();
        list.iter().map(|word| expanded(word.as_str().unwrap_or_default())).collect::<Vec<_>>()
    };
    let words = [words("command"), words("args")].concat();
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command.args(words.get(1..).unwrap_or_default());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for variable in container["env"].as_array().into_iter().flatten() {
        let value = expanded(variable["value"].as_str().unwrap_or_default());
        command.env(variable["name"].as_str().unwrap_or_default(), value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

/// As a kubelet expands: `$$` is one `$`; no references are used here.
fn expanded(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars().peekable());
    while let Some(c) = chars.next() {
        if c == '$' {
            assert_ne!(chars.peek(), Some(&'('), "{text:?} would be taken for a reference");
            if chars.peek() == Some(&'$') {
                chars.next();
            }
        }
        out.push(c);
    }
    out
}
