//! Runs the instances of coredinator as Kubernetes pods: the runtime `kubernetes`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use coredinator_core::Runtime;
//! use coredinator_runtime_k8s::{KubernetesRuntime, KubernetesRuntimeOptions};
//!
//! let options = KubernetesRuntimeOptions::new("the store's id").with_namespace("plant");
//! let runtime: Arc<dyn Runtime> = Arc::new(KubernetesRuntime::new(options));
//! ```
//!
//! # The cluster
//! Found by a kubeconfig (`KUBECONFIG`, `~/.kube/config`), else, inside of a pod, by its service account. It is first asked for
//! when it is needed, and may come and go: what an API server that is overloaded, restarting or cut off does not answer is
//! asked again with growing pauses, as `Retry-After` says where it does, and then told as
//! [`RuntimeError::Unavailable`](coredinator_core::RuntimeError::Unavailable). Watches wait meanwhile. Every call can be made
//! twice without doing anything twice: reads, server-side apply under the field manager `coredinator`, and deletions of one
//! object by its uid.
//!
//! # How a pod is known
//! By labels alone: `coredinator.{owner,service,instance,replica,spec,port}`. Its name is its instance's id, so that a start which
//! is tried again finds what an earlier try made. Where a stranger's pod has that name, or a stranger's Service that of the
//! service, the start fails with `NameTaken`. What does not carry this owner's label is neither changed nor deleted.
//!
//! Pods of ours are looked for in the runtime's own namespace, in those that its options name, in those that services which are
//! declared name ([`Runtime::declared`](coredinator_core::Runtime::declared)), and in each in which it has started one or a
//! record tells of one. Nothing is asked across all namespaces, so that rights can be given namespace by namespace: [`rbac`].
//!
//! # How it ends, and who starts it again
//! With `restart_by: coredinator`, as it is unless said otherwise, a pod's `restartPolicy` is `Never`: restarts are
//! coredinator's, by policy, back-off and budget, and each is a new pod, as with every other runtime. With `restart_by: kubelet`
//! the service's `restart_policy` becomes the pod's: `always` and `unless-stopped` are `Always`, `on-failure` is `OnFailure`,
//! `no` is `Never`. Then the kubelet starts a program again in place by its own back-off. What no kubelet restarts is replaced by
//! coredinator either way: a pod that was evicted, preempted or deleted, or whose node is lost.
//!
//! A node is held to be lost when a pod on it was to end (whoever deleted it: `kubectl`, or the cluster because its node is
//! silent), is not ready, and has not ended a minute after its grace
//! ([`lost_after`](KubernetesRuntimeOptions::lost_after)). Time is counted by this machine's clock from when the deletion was
//! seen, so clocks that differ change nothing. Until then it counts as running; from then on a replacement may run beside a program
//! on a node that nobody can reach, as with every controller of Kubernetes but the StatefulSet's.
//!
//! A stop deletes the pod with the grace asked for; the kubelet sends SIGTERM, or what `stop_signal` says where the cluster can
//! (Kubernetes 1.33 with `ContainerStopSignals`; where it cannot, such a service does not start and says so), and after the
//! grace SIGKILL. A kill is a deletion with a grace of a second: with none the API server would forget a pod whose program still
//! runs. Kubelets (up to 1.36 at least) go by the first grace that they hear of, so a later, more urgent stop does not hurry them:
//! five seconds after a grace the program is killed from inside its pod, where that has a shell.
//!
//! A kubelet tells a signal as 128 and its number, as programs may themselves: 137 and the numbers of faults are read as
//! signals, 143 and its like stay exit codes.
//!
//! # Output
//! The node keeps it while the pod is there; both streams come as one. A pod that has ended is kept for its output, until its
//! replica has ended once more or the service is forgotten. Of a pod that coredinator deletes, the newest 2 MiB are read
//! before it goes, and kept in memory: they do not outlive coredinator.
//!
//! # What stands beside the pods
//! A Service of the service's name, with an address of its own, which leads from `port` (0: the program's own) to every pod
//! that is ready: what finds a service by name needs no code for lists of addresses, and connections made are kept away
//! from pods that are not ready. `expose: headless` makes one whose name resolves to the pods' addresses instead, `expose: none` makes
//! none. coredinator itself reaches each instance at its pod's address. A service of several replicas has a
//! PodDisruptionBudget, which lets one go at a time; it follows the number of replicas a minute after they change
//! ([`settle`](KubernetesRuntimeOptions::settle)), and goes when one is left. Both are removed when the service is forgotten.
//!
//! # How little a pod may do
//! Unless its document says otherwise it does not run as root, cannot gain rights, has no capability, no token of the
//! cluster's, the container runtime's default seccomp profile, and a root file system that it cannot write to, but for an empty
//! `/tmp`. An image allows that if its user is a number other than 0, or the document says `user`, and if its program
//! writes only where something is mounted. One that is to run as root is refused by the kubelet, which coredinator tells in
//! plain words: `run_as_non_root: false` lets it, `read_only: false` lets it write.
//!
//! # What a program finds inside
//! The spec's `environment`, what the request adds, `COREDINATOR_{SERVICE,INSTANCE_ID,REPLICA}`, `COREDINATOR_HOST` (0.0.0.0: to
//! be reached at the pod's address it has to listen on that), and `PORT`: what it should listen on, which is
//! `container_port`, else `port`, else 8080. Texts arrive as they are written: `$(NAME)` is no reference. The file that
//! `COREDINATOR_CONFIG_FILE` names comes as a Secret of the pod's name, which goes with the pod; changed content reaches the pod when
//! its kubelet next looks, within a minute or two. The Secret is made before the pod, so a crash in between leaves one without: such
//! are looked for whenever pods are, by label, and removed.
//!
//! # `pod_template`
//! Whatever is not modelled is merged over the pod that is made, by the rules of a strategic merge patch: objects key by key,
//! lists whose elements have a key (containers, volumes, variables and so on) element by element, others as a whole, and
//! `null` takes away. The program's container is `main`. A template cannot change the pod's name, namespace, restart policy,
//! grace or coredinator's labels.
//!
//! # Tests
//! - `src/**/tests`: what is asked and what answers mean, as tables and properties, without a server.
//! - `tests/conformance.rs`, `tests/pods.rs`: the public suite for runtimes and what happens to pods from outside, on a double of a
//!   cluster over real HTTP, and, where `COREDINATOR_TEST_KUBECONFIG` names one, on a real cluster too, in namespaces that
//!   the tests make and remove. Without it they say in one line that they did not run there.
//! - `tests/troubles/`: pods that are evicted or killed inside, an API server that is cut off, watches that break off, others who write
//!   what is ours, files that a crash left: on both. What only a real kubelet and real admission do (memory that runs out, quotas, Pod
//!   Security, a namespace that goes, the rights of [`rbac`] and no others): on a real cluster alone.
//! - `tests/faults.rs`: an API server that goes, comes, is slow, overloaded, cut off, forgets the past, refuses, has another clock;
//!   nodes that are lost. On the double, which alone can be told to do so. It also sees to it that nothing is called that
//!   [`rbac::CALLS`] lacks.
//! - `tests/requests/`: each failure as a single answer, and the very requests that follow from it, without a server.
//!
//! The double is this crate's own (`tests/support/double`); its kubelet runs programs as local processes. Two that others made
//! were looked at. `kmock` 0.8 serves objects over HTTP, but has no resource versions to go on from, no server-side apply, no
//! label selectors, no graceful deletion and nothing that plays a kubelet: the suite would have nothing to run on.
//! `kube-fake-client` 0.3 answers inside of the process, without HTTP, and stands on another major version of `kube`.

mod companions;
mod config;
mod container;
mod engine;
mod events;
mod exec;
mod files;
mod labels;
mod logs;
mod options;
pub mod rbac;
mod retry;
mod runtime;
mod shared;
mod shown;
mod state;
mod template;

pub use config::{Access, KubernetesRuntimeOptions};
pub use options::{Expose, KubernetesOptions, Mount, MountKind, ProbeBy, Pull, Resources, RestartBy};
pub use runtime::KubernetesRuntime;
