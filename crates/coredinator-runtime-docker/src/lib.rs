//! Runs the instances of coredinator as Docker containers: the runtime `docker`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use coredinator_core::Runtime;
//! use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
//!
//! let options = DockerRuntimeOptions::new("the data directory's id");
//! let runtime: Arc<dyn Runtime> = Arc::new(DockerRuntime::new(options));
//! ```
//!
//! # The engine
//! Found by `DOCKER_HOST` (`unix://`, `tcp://`; with the feature `tls` also by `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`),
//! else at the default socket; the version of its interface is negotiated. It is first asked for when it is needed, and may
//! come and go: calls answer [`RuntimeError::Unavailable`](coredinator_core::RuntimeError::Unavailable) meanwhile, watches
//! wait, and when it is back all that is watched is looked at again.
//!
//! # How a container is known
//! By labels alone: `coredinator.{owner,service,instance,replica,spec,host,port}`. Its name follows from owner and instance,
//! so that a start which is tried again finds what an earlier try made. Where a stranger's container has that name, the start
//! fails with `NameTaken`. A container that does not carry this owner's label is neither signalled nor removed.
//!
//! # How it ends
//! Docker's own restart policy is always `no`. Ends come from the event stream, which goes on where it broke by the engine's
//! own clock. A stop signals process 1, which unless `init: false` is the engine's init and hands the signal to the program; after
//! the grace, SIGKILL ends all of the container. The engine tells a signal as 128 and its number, as programs may
//! themselves: 137 and the numbers of faults are read as signals, 143 and its like stay exit codes.
//!
//! # Output
//! The engine's `json-file` driver keeps it, within `logs` of the spec. A container that has ended is kept for its output, until its
//! replica has ended once more or the service is forgotten; it is removed with its anonymous volumes.
//!
//! # What a program finds inside
//! The spec's `environment`, what the request adds, `COREDINATOR_{SERVICE,INSTANCE_ID,REPLICA,HOST}`, and `PORT`: what it
//! should listen on, which is `container_port`, else `port`, else 8080. It is published at `port` (0: the engine
//! allocates, and the instance says which), to this machine alone where `host` is `localhost` or a loopback address.
//!
//! # Tests
//! Against a real engine, which the tests start in a temporary folder of their own: `tests/`. They need the
//! permission to run `dockerd`; without it each says so and passes.

mod coming;
mod config;
mod container;
mod credentials;
mod endpoint;
mod engine;
mod events;
mod exec;
mod files;
mod labels;
mod logs;
mod options;
mod ports;
mod pull;
mod runtime;
mod shared;
mod shown;
mod state;

pub use config::DockerRuntimeOptions;
pub use options::{Device, DockerOptions, Gpus, Mount, MountKind, NetworkMode, Pull, Resources, Ulimit};
pub use runtime::DockerRuntime;
