//! What the API server says of a pod, as coredinator understands it.

use coredinator_core::{Exit, InstanceRef, Observation, Reason, SharedClock, Started, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;

use crate::{container::CONTAINER, labels::Tags};

/// A pod of ours.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) tags: Tags,
    pub(crate) namespace: String,
    /// The API server's own id: a pod of the same name that is made later has another.
    pub(crate) uid: String,
    pub(crate) state: State,
    /// It has been asked to end; so many seconds it may take.
    pub(crate) ending: Option<i64>,
    /// Whether something beside the program (what a template adds) still runs in it.
    pub(crate) leftovers: bool,
    /// What its kubelet's own checks say; `None`: it makes none.
    pub(crate) probed: Option<Probed>,
    /// Whether its node says that it is ready.
    pub(crate) ready: bool,
    /// How often its kubelet has started the program again.
    pub(crate) restarts: u32,
    /// How the program's last life in this pod ended, where the kubelet started it again.
    pub(crate) last_exit: Option<Exit>,
    /// Where it is reached; empty: nowhere yet.
    pub(crate) host: String,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
}

/// Where a pod is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// It is there, and its program does not run (yet, or again).
    Waiting(Reason),
    /// Its program runs.
    Running,
    /// It has ended for good, with what is known of that.
    Ended(Exit),
}

impl Found {
    /// Reads a pod; `None` if it is not `owner`'s.
    pub(crate) fn read(pod: &Pod, owner: &str, clock: &SharedClock) -> Option<Self> {
        let metadata = &pod.metadata;
        let tags = Tags::read(metadata.labels.as_ref()?, owner)?;
        let nothing = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&nothing);
        let container = of_program(status);
        let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
        let running = container.and_then(|it| it.state.as_ref()?.running.as_ref()?.started_at.as_ref());
        let last = container.and_then(|it| it.last_state.as_ref()?.terminated.as_ref());
        let mut state = judge(status, container, policy, clock);
        if let (State::Ended(exit), Some(_)) = (&mut state, &metadata.deletion_timestamp) {
            exit.why.get_or_insert_with(deleted);
        }
        Some(Self {
            namespace: metadata.namespace.clone()?,
            uid: metadata.uid.clone()?,
            state,
            ending: metadata.deletion_timestamp.as_ref().map(|_| metadata.deletion_grace_period_seconds.unwrap_or(0)),
            leftovers: others_run(status),
            probed: probed(pod, container),
            ready: condition(status, "Ready").is_some_and(|ready| ready.status == "True"),
            restarts: container.map_or(0, |it| u32::try_from(it.restart_count).unwrap_or(0)),
            last_exit: last.map(|last| exit(last, clock)),
            host: status.pod_ip.clone().unwrap_or_default(),
            created_at: metadata.creation_timestamp.as_ref().and_then(time),
            started_at: running.and_then(time),
            tags,
        })
    }

    /// As a runtime answers it. `counted` is how many of the kubelet's restarts have been told already.
    pub(crate) fn to_started(&self, counted: u32) -> Started {
        Started {
            instance: InstanceRef {
                id: self.tags.id.clone(),
                service: self.tags.service.clone(),
                replica: self.tags.replica,
                handle: Some(Handle { namespace: self.namespace.clone(), uid: self.uid.clone(), counted }.write()),
            },
            pid: None,
            host: self.host.clone(),
            port: if self.host.is_empty() { 0 } else { self.tags.port },
            started_at: self.started_at.or(self.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
            running: !matches!(self.state, State::Waiting(_)),
        }
    }

    /// Whether nothing of it runs any more, nor will.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_)) && !self.leftovers
    }

    /// Why its program will not run unless somebody changes something: a start had better say that it failed.
    pub(crate) fn will_not_run(&self) -> Option<&Reason> {
        match &self.state {
            State::Waiting(reason) if self.restarts == 0 && is_hopeless(reason) => Some(reason),
            State::Ended(exit) if self.restarts == 0 => never_started(exit),
            _ => None,
        }
    }

    /// The same, held to be lost with its node.
    pub(crate) fn lost(mut self, clock: &SharedClock) -> Self {
        let message = "its node is lost: it was to end, and its kubelet has not said that it did";
        let why = Some(Reason::new("NodeLost", message));
        self.state = State::Ended(Exit { code: None, signal: None, oom_killed: false, why, at: clock.now() });
        self.leftovers = false;
        self
    }
}

/// What a kubelet's checks say of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probed {
    /// It has not been checked for long enough to tell.
    Starting,
    /// It is alive, and ready for what is sent to it.
    Ready,
    /// It is not ready.
    Unready,
}

fn probed(pod: &Pod, container: Option<&ContainerStatus>) -> Option<Probed> {
    let of = pod.spec.as_ref()?.containers.iter().find(|it| it.name == CONTAINER)?;
    let any = of.startup_probe.is_some() || of.liveness_probe.is_some() || of.readiness_probe.is_some();
    any.then(|| match container {
        Some(it) if it.ready => Probed::Ready,
        Some(it) if it.started == Some(true) => Probed::Unready,
        _ => Probed::Starting,
    })
}

/// What the supervisor keeps of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) namespace: String,
    pub(crate) uid: String,
    /// How many restarts by the kubelet have been counted.
    pub(crate) counted: u32,
}

impl Handle {
    fn write(&self) -> serde_json::Value {
        json!({"namespace": self.namespace, "uid": self.uid, "restarts": self.counted})
    }

    /// `None`: there is none, or it is not to be understood.
    pub(crate) fn read(instance: &InstanceRef) -> Option<Self> {
        let handle = instance.handle.as_ref()?;
        Some(Self {
            namespace: handle.get("namespace")?.as_str()?.to_owned(),
            uid: handle.get("uid")?.as_str()?.to_owned(),
            counted: handle.get("restarts")?.as_u64()?.try_into().ok()?,
        })
    }
}

/// What to tell of an instance whose pod was found like this, after `told`; `None`: nothing new. `counted` is how many of the
/// kubelet's restarts have been told already.
pub(crate) fn next(told: Option<&Observation>, found: &Found, counted: u32) -> Option<Observation> {
    let now = match &found.state {
        State::Ended(exit) => return Some(Observation::Exited(exit.clone())),
        State::Waiting(reason) => Observation::Waiting(reason.clone()),
        State::Running if found.host.is_empty() => {
            Observation::Waiting(Reason::new("NoAddress", "it runs, and has no address yet"))
        }
        State::Running => {
            let started = found.to_started(found.restarts);
            match found.restarts.checked_sub(counted) {
                Some(times) if times > 0 => {
                    return Some(Observation::Restarted { started, times, last: found.last_exit.clone() });
                }
                _ => Observation::Running(started),
            }
        }
    };
    (told != Some(&now)).then_some(now)
}

/// Why a pod ended that somebody had deleted.
pub(crate) fn deleted() -> Reason {
    Reason::new("PodDeleted", "its pod was deleted")
}

fn of_program(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.as_ref()?.iter().find(|it| it.name == CONTAINER)
}

fn others_run(status: &PodStatus) -> bool {
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let runs = |it: &ContainerStatus| it.state.as_ref().is_some_and(|state| state.running.is_some());
    !over && status.container_statuses.iter().flatten().any(|it| it.name != CONTAINER && runs(it))
}

fn condition<'s>(status: &'s PodStatus, kind: &str) -> Option<&'s PodCondition> {
    status.conditions.as_ref()?.iter().find(|it| it.type_ == kind)
}

fn judge(status: &PodStatus, container: Option<&ContainerStatus>, policy: &str, clock: &SharedClock) -> State {
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let state = container.and_then(|it| it.state.as_ref());
    let terminated = state.and_then(|state| state.terminated.as_ref());
    let ended = || {
        let unknown = || Exit { code: None, signal: None, oom_killed: false, why: None, at: clock.now() };
        let exit = terminated.map_or_else(unknown, |terminated| exit(terminated, clock));
        State::Ended(Exit { why: why(status, terminated), ..exit })
    };
    match (phase, state) {
        ("Succeeded" | "Failed", _) => ended(),
        (_, Some(ContainerState { terminated: Some(ended_as), .. })) => {
            let again = match policy {
                "Always" => true,
                "OnFailure" => ended_as.exit_code != 0,
                _ => false,
            };
            if again { State::Waiting(restarting(ended_as)) } else { ended() }
        }
        (_, Some(ContainerState { running: Some(_), .. })) => State::Running,
        (_, Some(ContainerState { waiting: Some(waiting), .. })) => {
            let last = container.and_then(|it| it.last_state.as_ref()?.terminated.as_ref());
            State::Waiting(waiting_for(waiting.reason.as_deref(), waiting.message.as_deref(), last))
        }
        _ => State::Waiting(unscheduled(status)),
    }
}

fn restarting(terminated: &ContainerStateTerminated) -> Reason {
    Reason::new("Restarting", format!("{}; its kubelet starts it again", ended_words(terminated)))
}

fn ended_words(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref(), terminated.exit_code) {
        (Some("OOMKilled"), _) => "killed by the kernel: out of memory".to_owned(),
        (_, code) => format!("exited with code {code}"),
    }
}

/// A reason in the cluster's word and plain words.
fn waiting_for(reason: Option<&str>, message: Option<&str>, last: Option<&ContainerStateTerminated>) -> Reason {
    let reason = reason.unwrap_or("ContainerCreating");
    let plain = match reason {
        "ContainerCreating" | "PodInitializing" => "its node prepares it".to_owned(),
        "CrashLoopBackOff" => match last {
            Some(last) => {
                format!("{}, again and again; its kubelet waits before it starts it once more", ended_words(last))
            }
            None => "it ends again and again; its kubelet waits before it starts it once more".to_owned(),
        },
        "ErrImagePull" => "its image cannot be fetched".to_owned(),
        "ImagePullBackOff" => "its image cannot be fetched; the node waits before it tries again".to_owned(),
        "ErrImageNeverPull" => "its image is not on the node, and `pull: never` says not to fetch it".to_owned(),
        "InvalidImageName" => "its image's name is none".to_owned(),
        "CreateContainerConfigError" if message.is_some_and(|message| message.contains("runAsNonRoot")) => {
            "its image runs as root (or as a user of whom only the name is known), which is not allowed: \
             say `user: 1000`, or `run_as_non_root: false`"
                .to_owned()
        }
        "CreateContainerConfigError" => "what it refers to is not there".to_owned(),
        other => format!("its node says {other}"),
    };
    let code = code_of(reason, message.unwrap_or_default());
    let message = message.filter(|message| reason != "CrashLoopBackOff" && !message.is_empty());
    let message = message.map(|message| format!(": {}", one_line(message)));
    Reason::new(code, plain + &message.unwrap_or_default())
}

fn unscheduled(status: &PodStatus) -> Reason {
    match condition(status, "PodScheduled") {
        Some(it) if it.status == "False" => {
            let message = it.message.as_deref().map_or_else(|| "nothing more is said".to_owned(), one_line);
            let code = it.reason.as_deref().unwrap_or("Unschedulable");
            Reason::new(code, format!("no node takes it: {message}"))
        }
        Some(it) if it.status == "True" => Reason::new("ContainerCreating", "its node prepares it"),
        _ => Reason::new("Pending", "waits for a node"),
    }
}

/// Whether waiting goes on until somebody changes something.
fn is_hopeless(reason: &Reason) -> bool {
    matches!(reason.code.as_str(), "ErrImageNeverPull" | "InvalidImageName" | "CommandNotFound" | "NotExecutable")
}

/// What ended it, where it was not the program itself: the cluster's word and plain words.
fn why(status: &PodStatus, terminated: Option<&ContainerStateTerminated>) -> Option<Reason> {
    let message = status.message.as_deref().map(|message| format!(": {}", one_line(message))).unwrap_or_default();
    if let Some(reason) = status.reason.as_deref() {
        let plain = match reason {
            "Evicted" => "evicted by its node",
            "NodeLost" => "its node is lost",
            "Preempting" | "Preempted" => "taken off its node in favour of what has a higher priority",
            "NodeShutdown" | "Terminated" | "Shutdown" => "its node shuts down",
            "DeadlineExceeded" => "it ran for longer than its template allows",
            "UnexpectedAdmissionError" | "OutOfcpu" | "OutOfmemory" | "OutOfpods" => {
                "its node had no room for it after all"
            }
            _ => "ended by its node",
        };
        return Some(Reason::new(reason, format!("{plain}{message}")));
    }
    if let Some(it) = condition(status, "DisruptionTarget").filter(|it| it.status == "True") {
        let message = it.message.as_deref().map(|message| format!(": {}", one_line(message))).unwrap_or_default();
        let code = it.reason.as_deref().unwrap_or("Disrupted");
        return Some(Reason::new(code, format!("taken off its node{message}")));
    }
    let terminated = terminated?;
    match terminated.reason.as_deref()? {
        "Completed" | "Error" | "OOMKilled" => None,
        reason => {
            let message =
                terminated.message.as_deref().map_or_else(|| "its node could not start it".to_owned(), one_line);
            Some(Reason::new(code_of(reason, &message), message))
        }
    }
}

/// A word for a start that the node could not make; the words of all runtimes where one fits.
pub(crate) fn code_of<'r>(reason: &'r str, message: &str) -> &'r str {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if !matches!(reason, "StartError" | "ContainerCannotRun" | "CreateContainerError" | "RunContainerError") {
        reason
    } else if says(&["executable file not found", "no such file or directory"]) {
        "CommandNotFound"
    } else if says(&["permission denied"]) {
        "NotExecutable"
    } else {
        reason
    }
}

/// Why a pod's program could not even be started; `None`: it could.
fn never_started(exit: &Exit) -> Option<&Reason> {
    let codes = ["CommandNotFound", "NotExecutable", "StartError", "ContainerCannotRun", "RunContainerError"];
    exit.why.as_ref().filter(|why| codes.contains(&why.code.as_str()))
}

fn exit(terminated: &ContainerStateTerminated, clock: &SharedClock) -> Exit {
    let (code, signal) = ended(terminated.exit_code, terminated.signal);
    let at = terminated.finished_at.as_ref().and_then(time).unwrap_or_else(|| clock.now());
    Exit { code, signal, oom_killed: terminated.reason.as_deref() == Some("OOMKilled"), why: None, at }
}

/// A kubelet tells a signal as 128 and its number, as shells do, and programs too that end by their own will after
/// one: those of SIGTERM and its like are left as they stand. What no program answers by is a signal.
fn ended(code: i32, signal: Option<i32>) -> (Option<i32>, Option<i32>) {
    match (code, signal) {
        (_, Some(signal)) if signal != 0 => (None, Some(signal)),
        // SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV.
        (code @ (132..=137 | 139), _) => (None, Some(code - 128)),
        (code, _) => (Some(code), None),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

/// The cluster's time; what lies before 1970 stands for never.
fn time(time: &Time) -> Option<Timestamp> {
    Timestamp::from_nanosecond(time.0.as_nanosecond()).ok().filter(|&time| time > Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
