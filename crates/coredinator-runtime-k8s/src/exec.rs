//! Commands inside of pods.
//!
//! A cluster runs them and cannot be asked to end them: closing the connection is all that can be done, and what follows is up
//! to the node's container runtime. So of those that are given up only so many may hang in a pod at a time, and no more are
//! begun then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{ExecOutcome, ExecRequest, InstanceRef, RuntimeError};
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Status, StatusCause},
};
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    container::{CONTAINER, expand},
    engine::Trouble,
    rbac::Call,
    shared::Shared,
    state::{Found, State, code_of},
};

/// How many commands that were given up may hang in one pod.
const HANGING: usize = 32;

/// How long killing from inside may take.
const KILLING: Duration = Duration::from_secs(10);

/// How many commands were given up, by the uid of their pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hanging(Arc<Mutex<HashMap<String, usize>>>);

impl Hanging {
    fn all(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, pod: &str) -> usize {
        self.all().get(pod).copied().unwrap_or(0)
    }

    /// What is counted of pods that are gone goes with them.
    pub(crate) fn forget(&self, pod: &str) {
        self.all().remove(pod);
    }
}

/// Counts a command as given up when it is dropped before its end.
struct GivenUp {
    hanging: Hanging,
    pod: Option<String>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(pod) = self.pod.take() {
            *self.hanging.all().entry(pod).or_default() += 1;
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn run(
    shared: &Shared,
    instance: &InstanceRef,
    request: ExecRequest,
) -> Result<ExecOutcome, RuntimeError> {
    let not_running = || RuntimeError::not_started("NotRunning", format!("{} does not run", instance.id));
    let found = shared.engine.find(instance).await.map_err(Trouble::unknown)?;
    let found = found.filter(|found| matches!(found.state, State::Running)).ok_or_else(not_running)?;
    let hanging = shared.hanging.of(&found.uid);
    if hanging >= HANGING {
        let message = format!("{hanging} earlier commands in it were given up, and may not have ended");
        return Err(RuntimeError::not_started("CommandsHang", message));
    }
    let words: Vec<String> =
        request.command.iter().map(|word| expand(word, found.tags.port, found.tags.replica)).collect();
    let api: Api<Pod> = shared.engine.api(&found.namespace).await.map_err(Trouble::unknown)?;
    let params = AttachParams::default().container(CONTAINER).stdin(false).stdout(true).stderr(true);
    let name = instance.id.as_str();
    let mut given_up = GivenUp { hanging: shared.hanging.clone(), pod: Some(found.uid.clone()) };
    let begun = shared.engine.ask(Call::EXEC, &found.namespace, name, api.exec(name, words, &params)).await;
    let process = match begun {
        Ok(process) => process,
        Err(trouble) => {
            given_up.pod = None;
            return Err(match trouble {
                Trouble::NotFound(_) => not_running(),
                trouble => trouble.not_started(),
            });
        }
    };
    let outcome = attend(process, request.max_output).await;
    given_up.pod = None;
    outcome
}

/// Kills each process that carries the id `$1`, but for the shell itself.
const KILL: &str = "for p in /proc/[0-9]*; do \
    [ $p != /proc/$$ ] && grep -qs \"COREDINATOR_INSTANCE_ID=$1\" $p/environ && kill -9 ${p#/proc/}; done; :";

/// Kills an instance's processes from inside of its pod, which has outlived its grace. A kubelet that waits for the end of an earlier
/// and longer grace hears of no shorter one (<https://github.com/kubernetes/kubernetes/issues/83916>). It takes a shell, and
/// does not reach a program that is process 1; then its first grace it is.
pub(crate) async fn kill(shared: &Shared, found: &Found) {
    let instance = found.to_started(found.restarts).instance;
    let words = ["sh", "-c", KILL, "sh", instance.id.as_str()].map(str::to_owned).to_vec();
    let killing = run(shared, &instance, ExecRequest { command: words, max_output: 1024 });
    match tokio::time::timeout(KILLING, killing).await {
        Ok(outcome) => tracing::debug!(id = %instance.id, ?outcome, "killed what outlived its grace from inside"),
        Err(_) => tracing::debug!(id = %instance.id, "what outlived its grace cannot be killed from inside in time"),
    }
}

async fn attend(mut process: AttachedProcess, max_output: usize) -> Result<ExecOutcome, RuntimeError> {
    let output = Arc::new(Mutex::new(Vec::new()));
    let (out, err, status) = (process.stdout(), process.stderr(), process.take_status());
    let keep = |piece: &[u8]| {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let room = max_output.saturating_sub(output.len());
        output.extend_from_slice(&piece[..piece.len().min(room)]);
    };
    let ended = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    let ((), (), status) = futures_util::join!(drain(out, keep), drain(err, keep), ended);
    let output = std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner));
    let cut = || RuntimeError::Internal { message: "the connection to a command was cut".to_owned(), source: None };
    match meaning(&status.ok_or_else(cut)?) {
        Ok(code) => Ok(ExecOutcome { code, output }),
        Err((code, message)) => Err(RuntimeError::not_started(code, message)),
    }
}

async fn drain(from: Option<impl AsyncRead + Unpin>, mut keep: impl FnMut(&[u8])) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; 8192];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        keep(&piece[..read]);
    }
}

/// The exit code that a status tells, or why there is none.
fn meaning(status: &Status) -> Result<Option<i32>, (&'static str, String)> {
    if status.status.as_deref() == Some("Success") {
        return Ok(Some(0));
    }
    let mut causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let of_code = |cause: &&StatusCause| cause.reason.as_deref() == Some("ExitCode");
    let code = causes.find(of_code).and_then(|cause| cause.message.as_deref()?.parse().ok());
    match code {
        // As of instances: what no program answers by was a signal.
        Some(code) => Ok(Some(code).filter(|code| *code != 137)),
        None => {
            let message = status.message.clone().unwrap_or_else(|| "its node could not run it".to_owned());
            Err((code_of("StartError", &message), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_status_tells_how_it_ended() {
        let told = |status: Value| meaning(&serde_json::from_value(status).unwrap());
        let exit = |code: &str| {
            json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated",
                "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
        };
        assert_eq!(told(json!({"status": "Success"})), Ok(Some(0)));
        assert_eq!(told(exit("3")), Ok(Some(3)));
        assert_eq!(told(exit("137")), Ok(None));
        let failed = |message: &str| json!({"status": "Failure", "reason": "InternalError", "message": message});
        let absent = "failed to exec in container: exec: \"/x\": stat /x: no such file or directory";
        assert_eq!(told(failed(absent)), Err(("CommandNotFound", absent.to_owned())));
        assert_eq!(told(failed("oops")), Err(("StartError", "oops".to_owned())));
        assert_eq!(told(exit("what")).unwrap_err().0, "StartError");
    }
}
