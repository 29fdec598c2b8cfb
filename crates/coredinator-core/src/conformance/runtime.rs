//! The suite for [`Runtime`]: every sentence of its documentation that can be tried from outside, as a named case.
//!
//! ```no_run
//! use coredinator_core::conformance::runtime::{self, Subject, Workload};
//! # use coredinator_core::Runtime;
//! # struct MyRuntime;
//! # impl MyRuntime { async fn open(_: &std::path::Path) -> Box<dyn Runtime> { unimplemented!() } }
//! # fn temporary_directory() -> std::path::PathBuf { unimplemented!() }
//!
//! fn workload(workload: Workload) -> serde_json::Value {
//!     let script = match workload {
//!         Workload::Runs => "sleep 1000".to_owned(),
//!         Workload::Exits { code } => format!("exit {code}"),
//!         Workload::IgnoresStop => "trap '' TERM; echo ready; sleep 1000".to_owned(),
//!         Workload::Prints { lines } => format!("seq {lines}; sleep 1000"),
//!         Workload::CannotStart => return serde_json::json!({"runtime": "mine", "command": ["/nowhere"]}),
//!     };
//!     serde_json::json!({"runtime": "mine", "command": ["sh", "-c", script]})
//! }
//!
//! # async fn example() {
//! runtime::run(|| async {
//!     let dir = temporary_directory();
//!     let path = dir.join("data");
//!     Subject::new(MyRuntime::open(&path).await, workload)
//!         .reopened_by(move || {
//!             let path = path.clone();
//!             async move { MyRuntime::open(&path).await }
//!         })
//!         .guarded(dir)
//! })
//! .await;
//! # }
//! ```
//!
//! It needs a tokio runtime with real time (not paused) and all drivers, best a multi-threaded one. Cases stop what they
//! start, and a case that fails leaves nothing running either. A case alone: [`run_case`], or [`Case::run`] of one of
//! [`CASES`].

mod adoption;
mod ends;
mod inside;
mod output;
mod starts;

use std::{any::Any, collections::BTreeMap, fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use serde_json::Value;

use crate::{
    Exit, InstanceId, Observation, ObservationStream, Runtime, RuntimeCapabilities, RuntimeError, ServiceSpec,
    SpecDefaults, StartRequest, Started, StopRequest,
};

/// The longest that a case may take: an upper bound against one that hangs, generous for a loaded machine.
const CASE_LIMIT: Duration = Duration::from_secs(180);

/// The longest that one awaited thing may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something for an instance to do; the implementor says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Runs until it is ended, and heeds SIGTERM by ending.
    Runs,
    /// Ends by itself, soon, with this exit code.
    Exits {
        /// The code.
        code: u8,
    },
    /// Runs until it is killed; prints the line `ready` when it has begun to ignore SIGTERM.
    IgnoresStop,
    /// Prints the numbers from 1 to `lines`, a line each, to standard output, then runs until it is ended. Asked for only
    /// where the runtime keeps logs.
    Prints {
        /// How many lines.
        lines: u32,
    },
    /// Cannot be started: what it is made of does not exist.
    CannotStart,
}

/// Something for a command inside an instance to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Prints the numbers from 1 to `lines`, a line each, to standard output, and ends with this exit code.
    Prints {
        /// How many lines.
        lines: u32,
        /// The code.
        code: u8,
    },
    /// Prints the value of a variable, and a line end.
    Tells(&'static str),
    /// Prints a word, which may hold placeholders, and a line end.
    Says(&'static str),
    /// Runs until it is killed.
    Hangs,
    /// Cannot be run: there is no such program.
    CannotRun,
}

impl Errand {
    /// The command for it where there is a POSIX shell with `seq` and `sleep`.
    #[must_use]
    pub fn by_shell(self) -> Vec<String> {
        let script = match self {
            Self::Prints { lines, code } => format!("seq {lines}; exit {code}"),
            Self::Tells(name) => format!("echo \"${name}\""),
            Self::Says(word) => format!("echo '{word}'"),
            Self::Hangs => "sleep 1000".to_owned(),
            Self::CannotRun => return vec!["/is/not/there".to_owned()],
        };
        ["sh", "-c", &script].map(str::to_owned).to_vec()
    }
}

type Reopen = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Runtime>> + Send + Sync>;

/// A fresh runtime for one case that looks after nothing yet, what it should run, and what cleans up after it.
pub struct Subject {
    // Fields are dropped in this order: the runtime before what it stands on.
    runtime: Arc<dyn Runtime>,
    workload: fn(Workload) -> Value,
    errand: fn(Errand) -> Vec<String>,
    reopen: Option<Reopen>,
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Subject {
    /// A fresh runtime. `workload` answers the document of a service (without a name) that does what is asked.
    pub fn new(runtime: impl IntoRuntime, workload: fn(Workload) -> Value) -> Self {
        Self { runtime: runtime.into_runtime(), workload, errand: Errand::by_shell, reopen: None, guard: None }
    }

    /// What a command inside an instance is to be, where it is not [`Errand::by_shell`].
    #[must_use]
    pub fn running(mut self, errand: fn(Errand) -> Vec<String>) -> Self {
        self.errand = errand;
        self
    }

    /// How a new runtime with the same identity is made, as after a crash; one that adopts must have it.
    #[must_use]
    pub fn reopened_by<F, Fut>(mut self, reopen: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoRuntime,
    {
        self.reopen = Some(Box::new(move || {
            let opening = reopen();
            async move { opening.await.into_runtime() }.boxed()
        }));
        self
    }

    /// Something whose drop cleans up (a temporary directory, a namespace), when the case is over.
    #[must_use]
    pub fn guarded(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Drops the runtime and makes another, as a restart of coredinator does.
    async fn reopen(&mut self) {
        let reopen = self.reopen.as_ref().expect("a runtime that adopts is given with `Subject::reopened_by`");
        self.runtime = reopen().await;
    }

    fn request(&self, service: &str, replica: u32, workload: Workload) -> StartRequest {
        let document = (self.workload)(workload);
        let spec = ServiceSpec::parse("", Some(service), document, &SpecDefaults::default());
        let spec = Arc::new(spec.unwrap_or_else(|errors| panic!("{workload:?} is no valid service: {errors:?}")));
        assert_eq!(self.runtime.validate(&spec), [], "{workload:?} is valid for the runtime");
        let id = InstanceId::coin(&spec.name, replica, fastrand::u64(..));
        StartRequest { id, replica, spec, preferred_port: None, environment: BTreeMap::new() }
    }

    async fn start(&self, service: &str, replica: u32, workload: Workload) -> Started {
        let request = self.request(service, replica, workload);
        let id = request.id.clone();
        let started = within("a start", self.runtime.start(request)).await;
        let started = started.unwrap_or_else(|error| panic!("{workload:?} starts, but: {error}"));
        assert_eq!(started.instance.id, id, "what was started carries the id that was given");
        assert_eq!((started.instance.service.as_str(), started.instance.replica), (service, replica));
        started
    }

    async fn stop(&self, started: &Started, how: StopRequest) {
        let stopped = within("a stop", self.runtime.stop(&started.instance, how)).await;
        stopped.unwrap_or_else(|error| panic!("{} stops, but: {error}", started.instance.id));
    }

    fn watch(&self, started: &Started) -> ObservationStream {
        self.runtime.watch(&started.instance)
    }

    /// The ids of all that the runtime finds, given what it is told to know.
    async fn listed(&self, known: &[&Started]) -> Vec<InstanceId> {
        let known: Vec<_> = known.iter().map(|started| started.instance.clone()).collect();
        let list = within("a list", self.runtime.list(&known)).await.expect("listing succeeds");
        ids(&list.iter().collect::<Vec<_>>())
    }

    /// Kills whatever of this case still runs.
    async fn clean_up(&self) -> Result<(), RuntimeError> {
        for started in self.runtime.list(&[]).await? {
            self.runtime.stop(&started.instance, StopRequest::KILL).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("capabilities", &self.runtime.capabilities()).finish_non_exhaustive()
    }
}

/// What can be taken for a runtime: a runtime, or one that is boxed or shared already.
pub trait IntoRuntime {
    /// As the suite holds it.
    fn into_runtime(self) -> Arc<dyn Runtime>;
}

impl<R: Runtime> IntoRuntime for R {
    fn into_runtime(self) -> Arc<dyn Runtime> {
        Arc::new(self)
    }
}

impl IntoRuntime for Box<dyn Runtime> {
    fn into_runtime(self) -> Arc<dyn Runtime> {
        self.into()
    }
}

impl IntoRuntime for Arc<dyn Runtime> {
    fn into_runtime(self) -> Self {
        self
    }
}

/// One case of the suite.
pub struct Case {
    /// Its name: what it shows, in words joined by `_`.
    pub name: &'static str,
    needs: fn(RuntimeCapabilities) -> bool,
    body: for<'s> fn(&'s mut Subject) -> BoxFuture<'s, ()>,
}

impl Case {
    /// Whether a runtime with these capabilities is asked to pass it.
    #[must_use]
    pub fn applies_to(&self, capabilities: RuntimeCapabilities) -> bool {
        (self.needs)(capabilities)
    }

    /// Runs it, whether it applies or not, and kills what it leaves running.
    ///
    /// # Panics
    /// If the runtime fails it, or does not finish within three minutes; the name has been printed to stderr then.
    pub async fn run(&self, mut subject: Subject) {
        let running = tokio::time::timeout(CASE_LIMIT, (self.body)(&mut subject));
        let outcome = AssertUnwindSafe(running).catch_unwind().await;
        let cleaned = tokio::time::timeout(PATIENCE, subject.clean_up()).await;
        match outcome {
            Ok(Ok(())) => {
                let cleaned = cleaned.expect("cleaning up ends");
                cleaned.unwrap_or_else(|error| panic!("cannot clean up after {}: {error}", self.name));
            }
            Ok(Err(_)) => panic!("runtime conformance: case {} did not finish within {CASE_LIMIT:?}", self.name),
            Err(panic) => {
                eprintln!("runtime conformance: case {} failed", self.name);
                std::panic::resume_unwind(panic)
            }
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

macro_rules! cases {
    ($($module:ident: $need:expr => [$($case:ident),+ $(,)?]),+ $(,)?) => {
        /// All cases, in the order in which [`run`] runs them.
        pub const CASES: &[Case] = &[$($(Case {
            name: stringify!($case),
            needs: $need,
            body: |subject| $module::$case(subject).boxed(),
        }),+),+];
    };
}

cases! {
    starts: |_| true => [
        what_was_started_runs_until_it_is_stopped,
        an_id_that_runs_is_not_started_twice,
        a_failed_start_tells_why_and_leaves_nothing,
        many_start_side_by_side,
        a_fresh_runtime_lists_nothing,
    ],
    ends: |_| true => [
        an_exit_code_is_told,
        a_stop_that_is_heeded_ends_within_the_grace,
        what_ignores_the_signal_is_killed_after_the_grace,
        a_kill_waits_for_no_grace,
        a_second_stop_hurries_the_first,
        stopping_what_is_gone_succeeds,
        an_end_is_told_to_all_who_watch,
        an_end_is_told_to_those_who_ask_late,
        watching_what_never_was_tells_an_end,
        dropping_a_watch_touches_nothing,
    ],
    ends: |capabilities| capabilities.signals => [
        a_signal_reaches_what_runs_and_nothing_else,
    ],
    adoption: |_| true => [
        what_has_ended_is_not_listed,
        known_instances_are_listed,
        garbage_in_a_handle_finds_nothing,
    ],
    adoption: |capabilities| capabilities.adopts => [
        a_reopened_runtime_finds_what_it_knows,
        a_reopened_runtime_finds_what_nobody_told_it_of,
        an_adopted_instance_is_not_started_twice,
        an_adopted_instance_is_watched_and_stopped,
        an_adopted_instance_stops_without_being_listed_first,
        what_ended_meanwhile_is_told_so,
    ],
    inside: |_| true => [
        what_a_runtime_does_not_do_it_says,
    ],
    inside: |capabilities| capabilities.exec => [
        a_command_runs_inside,
        what_a_command_writes_is_bounded,
        a_command_that_is_not_there_is_told,
        a_command_given_up_holds_up_nothing,
        a_command_runs_inside_what_was_adopted,
        in_what_is_gone_no_command_runs,
    ],
    inside: |capabilities| capabilities.native_health => [
        health_of_its_own_is_told_while_there_is_something,
    ],
    inside: |capabilities| capabilities.inspects => [
        what_was_asked_is_shown_without_secrets,
    ],
    output: |capabilities| capabilities.logs => [
        what_is_kept_of_a_service_can_be_forgotten,
        printed_lines_are_read_back_in_order,
        a_tail_is_the_newest_lines,
        following_goes_on_over_a_restart,
        replicas_are_read_apart_and_together,
        a_forgotten_service_has_no_output,
    ],
}

/// Runs all cases that the runtime's capabilities call for, each on a fresh subject.
///
/// # Panics
/// At the first case that fails.
pub async fn run<F, Fut>(factory: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    for case in CASES {
        let subject = factory().await;
        if case.applies_to(subject.runtime.capabilities()) {
            case.run(subject).await;
        }
    }
}

/// Runs the one case of this name.
///
/// # Panics
/// If there is none, or it fails.
pub async fn run_case(name: &str, subject: Subject) {
    let case = CASES.iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case {name:?}")).run(subject).await;
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} takes longer than {PATIENCE:?}"))
}

/// The ids of these, in order.
fn ids(of: &[&Started]) -> Vec<InstanceId> {
    let mut ids: Vec<_> = of.iter().map(|started| started.instance.id.clone()).collect();
    ids.sort();
    ids
}

/// Waits until an instance runs.
async fn runs(watch: &mut ObservationStream) {
    loop {
        match within("an observation", watch.next()).await {
            Some(Observation::Running(started)) => {
                assert!(started.running, "what is observed to run says that it does");
                return;
            }
            Some(Observation::Waiting(_)) => {}
            other => panic!("expected it to run, but saw {other:?}"),
        }
    }
}

/// Waits for an instance's end, and that nothing is told after it.
async fn ends(mut watch: ObservationStream) -> Exit {
    loop {
        match within("an observation", watch.next()).await {
            Some(Observation::Exited(exit)) => {
                assert_eq!(within("the end of a watch", watch.next()).await, None, "an exit is the last observation");
                return exit;
            }
            Some(_) => {}
            None => panic!("a watch ends with an exit"),
        }
    }
}
