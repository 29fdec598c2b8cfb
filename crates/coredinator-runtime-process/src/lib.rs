//! Runs the instances of coredinator as local processes: the runtime `process`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use coredinator_core::Runtime;
//! use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
//!
//! # fn example() -> Result<(), coredinator_core::RuntimeError> {
//! let options = ProcessRuntimeOptions::new("/var/lib/coredinator/logs", "the data directory's id");
//! let runtime: Arc<dyn Runtime> = Arc::new(ProcessRuntime::new(options)?);
//! # Ok(())
//! # }
//! ```
//!
//! # What an instance gets
//! - A session and process group of its own; standard input from `/dev/null`; no other descriptor; no signal blocked or
//!   ignored. There is no process between it and coredinator, and it does not notice when coredinator dies.
//! - Coredinator's environment without `COREDINATOR_…` and `PORT`; over it the spec's `environment`, over that what the
//!   request adds, over that `COREDINATOR_{SERVICE,INSTANCE_ID,REPLICA,HOST,OWNER}` and, if it has a port, `PORT`.
//! - `{port}`, `{host}` and `{replica}` replaced in its command and in the values of the spec's `environment`.
//! - The program is looked for along its own `PATH`, or, if its name holds a `/`, from its working directory.
//! - Files for its output, appended to (see below). Where they cannot be opened it runs all the same, and a warning says so.
//!
//! A command inside an instance runs with the variables and in the directory of its leader, as the kernel tells them, in a
//! process group of its own.
//!
//! # How it is known
//! While coredinator lives, by a pidfd: the kernel tells the end, and no signal can reach another process. For good, by pid,
//! start time and boot id together, which are the stored handle. In between (it runs, and its handle was never stored) by
//! the variables above, which all its descendants inherit: the oldest leader of a session that carries the id is the
//! instance. A process that says by its variables that it is somebody else's is never touched.
//!
//! # How it ends
//! Its signal goes to the whole group, and SIGCONT after it. When the leader ends, whoever outlives it (in its session, or
//! in any other by the inherited id) has what is left of a stop's grace, and is then killed; the end is told when nobody is
//! left. A leader that is coredinator's child stays a zombie until then, so that its number cannot be another's. Not found
//! is what has left the session AND thrown away its environment: only a cgroup would hold that.
//!
//! The exit code of an adopted instance, whose parent is init, comes from the kernel: from its zombie's `stat`, or from the
//! pidfd (Linux 6.15); else it is unknown. That the kernel killed for want of memory is concluded, see `oom_killed`: a
//! SIGKILL that coredinator did not send within the second in which the machine's count of such kills rose.
//!
//! # Output
//! `<log_dir>/<service>/<replica>.{stdout,stderr}.log`, looked after once a second: what has grown to `logs.max_size` is cut
//! off its front into `.log.1`, and that into `.log.2`, up to `logs.max_files`. Beside each stands `.marks`: when it had which
//! length, by which lines get their time, to about a second. Where the file system can cut a file's front off (ext4, XFS)
//! nothing is lost in rotation; see `StreamFile::rotate` for the others.
//!
//! # Needs
//! Linux 5.4 (`waitid` on a pidfd); groups are signalled by descriptor from 6.9 on. One descriptor for each running instance:
//! programs call [`raise_descriptor_limit`] at their start.
//! The process must not ignore SIGCHLD or reap children that it does not know.

mod census;
mod command;
mod descriptors;
mod exec;
mod handle;
mod instance;
mod logs;
mod oom;
mod options;
mod pidfd;
mod ports;
mod procfs;
mod runtime;
mod shared;
mod spawn;

pub use descriptors::raise_descriptor_limit;
pub use options::ProcessRuntimeOptions;
pub use runtime::ProcessRuntime;
