//! Runs the instances of coredinator as local processes.

mod census;
mod command;
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

pub use options::ProcessRuntimeOptions;
pub use runtime::ProcessRuntime;
