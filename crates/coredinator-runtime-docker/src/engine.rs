//! The engine: one connection, its errors in coredinator's words, and what is asked of it in more than one place.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerInspectResponse, ContainerSummary},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder,
    },
};
use coredinator_core::{InstanceId, RuntimeError, RuntimeName, ServiceName, SharedClock};
use tokio::sync::Mutex;

use crate::{
    DockerRuntime,
    config::DockerRuntimeOptions,
    endpoint::{Endpoint, Surroundings},
    labels,
    state::{Container, State},
};

/// The longest that the engine may take to begin an answer.
const PATIENCE_SECONDS: u64 = 120;

/// The way to the engine; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    given: Option<String>,
    settings: Option<PathBuf>,
    /// Those whose containers are ours; what is started is the first one's.
    owners: Arc<[String]>,
    clock: SharedClock,
    /// The host of an engine on another machine, as it was when the runtime was made.
    remote: Option<Arc<str>>,
    client: Arc<Mutex<Option<Docker>>>,
}

impl Engine {
    pub(crate) fn new(options: &DockerRuntimeOptions) -> Self {
        let mut new = Self {
            given: options.host.clone(),
            settings: options.settings.clone(),
            owners: [options.owner.clone()]
                .into_iter()
                .chain(options.former_owner.clone().filter(|former| *former != options.owner))
                .collect(),
            clock: Arc::clone(&options.clock),
            remote: None,
            client: Arc::default(),
        };
        let endpoint = new.surroundings().endpoint(new.given.as_deref()).ok();
        new.remote = endpoint.as_ref().and_then(Endpoint::remote_host).map(Arc::from);
        new
    }

    /// What the environment says now.
    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings::here(self.settings.as_deref())
    }

    /// Who starts containers.
    pub(crate) fn owner(&self) -> &str {
        self.owners.first().map_or("", String::as_str)
    }

    /// The labels by which the engine tells of what is ours: the owner, or that there is one where there are several.
    pub(crate) fn label_of_ours(&self) -> String {
        match &*self.owners {
            [owner] => format!("{}={owner}", labels::OWNER),
            _ => labels::OWNER.to_owned(),
        }
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The client, once the engine has said which version of its interface it speaks.
    pub(crate) async fn client(&self) -> Result<Docker, RuntimeError> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        // Looked for each time: an engine may be installed while its services wait for it.
        let endpoint = self.surroundings().endpoint(self.given.as_deref()).map_err(|error| away(&error))?;
        let connected = connect(&endpoint).map_err(|error| unavailable(&error))?;
        let negotiated = connected.negotiate_version().await.map_err(|error| unavailable(&error))?;
        Ok(client.insert(negotiated).clone())
    }

    /// Forgets what was agreed with the engine: another one, of another version, may answer next.
    pub(crate) async fn lost(&self) {
        *self.client.lock().await = None;
    }

    /// Where what is reached at `host` of the engine's machine is reached from here.
    pub(crate) fn reached<'h>(&'h self, host: &'h str) -> &'h str {
        self.remote.as_deref().filter(|_| is_here(host)).unwrap_or(host)
    }

    /// Whether the engine's machine is this one.
    pub(crate) fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    /// The container of an instance as the engine tells it; `None` if there is none of ours.
    pub(crate) async fn details(&self, id: &InstanceId) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let Some(found) = self.find(id).await? else { return Ok(None) };
        match self.client().await?.inspect_container(&found.id, None::<InspectContainerOptions>).await {
            Ok(inspected) => Ok(Some(inspected)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("cannot inspect a container", error)),
        }
    }

    /// The services of which there is any container of ours, in order.
    pub(crate) async fn services(&self) -> Result<Vec<ServiceName>, RuntimeError> {
        let listed = self.containers(&[]).await?;
        let name = |one: ContainerSummary| ServiceName::new(one.labels?.get(labels::SERVICE)?).ok();
        let mut services: Vec<ServiceName> = listed.into_iter().filter_map(name).collect();
        services.sort();
        services.dedup();
        Ok(services)
    }

    /// All containers of ours with these labels beside the owner's, in any state.
    pub(crate) async fn containers(&self, with: &[(&str, &str)]) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let with = with.iter().map(|(key, value)| format!("{key}={value}"));
        let labels: Vec<String> = [self.label_of_ours()].into_iter().chain(with).collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&HashMap::from([("label", labels)]));
        let listed = self.client().await?.list_containers(Some(options.build())).await;
        let mut listed = listed.map_err(|error| failed("cannot list containers", error))?;
        listed.retain(|one| one.labels.as_ref().is_some_and(|found| labels::is_ours(found, &self.owners)));
        Ok(listed)
    }

    /// The container of ours by the engine's id; `None` if it is not there, or somebody else's.
    pub(crate) async fn inspect(&self, container: &str) -> Result<Option<Container>, RuntimeError> {
        match self.client().await?.inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(inspected) => Ok(Container::read(&inspected, &self.owners, &self.clock)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("cannot inspect a container", error)),
        }
    }

    /// The container of an instance, by its labels; one that lives, should there be others.
    pub(crate) async fn find(&self, id: &InstanceId) -> Result<Option<Container>, RuntimeError> {
        let mut found = None;
        for listed in self.containers(&[(labels::INSTANCE, id.as_str())]).await? {
            match self.inspect(&listed.id.unwrap_or_default()).await? {
                Some(living @ Container { state: State::Running { .. }, .. }) => return Ok(Some(living)),
                other => found = found.or(other),
            }
        }
        Ok(found)
    }

    /// Whether the program of a container that was made is in it. The engine's init would begin, and only then miss it.
    ///
    /// # Errors
    /// [`RuntimeError::NotStarted`] `CommandNotFound`. One without a `/` is left to the init, which looks along `PATH`.
    pub(crate) async fn has_program(&self, container: &str) -> Result<(), RuntimeError> {
        let client = self.client().await?;
        let made = client.inspect_container(container, None::<InspectContainerOptions>).await;
        let made = made.map_err(|error| refused(&error))?;
        let Some(program) = made.path.filter(|path| path.contains('/')) else { return Ok(()) };
        let folder = made.config.and_then(|config| config.working_dir).filter(|folder| !folder.is_empty());
        let path = Path::new(folder.as_deref().unwrap_or("/")).join(&program);
        let asked = ContainerArchiveInfoOptionsBuilder::new().path(&path.to_string_lossy()).build();
        match client.get_container_archive_info(container, Some(asked)).await {
            Err(error) if status(&error) == Some(404) => {
                Err(RuntimeError::not_started("CommandNotFound", format!("{program}: no such file in the container")))
            }
            // Whatever else it says, the start will say better.
            _ => Ok(()),
        }
    }

    /// What there is of a service, oldest first.
    pub(crate) async fn lives(
        &self,
        service: &ServiceName,
        replica: Option<u32>,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let number = replica.map(|number| number.to_string());
        let mut with = vec![(labels::SERVICE, service.as_str())];
        with.extend(number.as_deref().map(|number| (labels::REPLICA, number)));
        let mut lives = self.containers(&with).await?;
        // The engine lists the newest first; its stamps are whole seconds.
        lives.reverse();
        lives.sort_by_key(|life| life.created);
        Ok(lives)
    }

    /// Removes a container that does not run, and its anonymous volumes. One that is gone is no error.
    pub(crate) async fn remove(&self, container: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new().v(true).build();
        match self.client().await?.remove_container(container, Some(options)).await {
            // 409: its removal is in progress.
            Err(error) if !matches!(status(&error), Some(404 | 409)) => Err(failed("cannot remove a container", error)),
            _ => Ok(()),
        }
    }

    /// Removes all that has ended of a replica but its newest life, whose output may be wanted.
    pub(crate) async fn tidy(&self, service: &ServiceName, replica: u32, running: &str) -> Result<(), RuntimeError> {
        let lives = self.lives(service, Some(replica)).await?;
        let before: Vec<String> = lives.into_iter().filter_map(|life| life.id).filter(|id| id != running).collect();
        for old in before.iter().rev().skip(1) {
            if matches!(self.inspect(old).await?, Some(Container { state: State::Ended(_), .. })) {
                self.remove(old).await?;
            }
        }
        Ok(())
    }
}

/// The status that the engine answered, if it answered.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What the engine said.
pub(crate) fn said(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        other => other.to_string(),
    }
}

fn unavailable(error: &Error) -> RuntimeError {
    let mut message = said(error);
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    away(&message)
}

fn away(message: &str) -> RuntimeError {
    let runtime = RuntimeName::new(DockerRuntime::NAME).unwrap_or_else(|_| unreachable!("a DNS label"));
    RuntimeError::Unavailable { runtime, message: format!("the Docker engine cannot be reached: {message}") }
}

/// Whether a host name stands for the machine itself.
pub(crate) fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn connect(endpoint: &Endpoint) -> Result<Docker, Error> {
    match endpoint {
        Endpoint::Socket(path) => {
            Docker::connect_with_unix(&path.to_string_lossy(), PATIENCE_SECONDS, API_DEFAULT_VERSION)
        }
        Endpoint::Plain(address) => Docker::connect_with_http(address, PATIENCE_SECONDS, API_DEFAULT_VERSION),
        #[cfg(feature = "tls")]
        Endpoint::Tls(address, certificates) => {
            // Another part of the program may have chosen already; then that counts.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let crate::endpoint::Certificates { authority, certificate, key } = certificates;
            Docker::connect_with_ssl(address, key, certificate, authority, PATIENCE_SECONDS, API_DEFAULT_VERSION)
        }
        #[cfg(not(feature = "tls"))]
        Endpoint::Tls(address, _) => Err(Error::UnsupportedURISchemeError {
            uri: format!("{address} over TLS, which this build leaves out (feature tls)"),
        }),
    }
}

/// An error of a call: refused by the engine, or the engine was not reached.
pub(crate) fn failed(doing: &str, error: Error) -> RuntimeError {
    if status(&error).is_none() {
        return unavailable(&error);
    }
    RuntimeError::internal(doing, error)
}

/// An error of a call without which an instance does not start.
pub(crate) fn refused(error: &Error) -> RuntimeError {
    if status(error).is_none() {
        return unavailable(error);
    }
    let message = said(error);
    RuntimeError::not_started(code(&message), message)
}

/// A word for what the engine said; it has none of its own.
pub(crate) fn code(message: &str) -> &'static str {
    let lower = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["no such image"]) {
        "ImageNotFound"
    } else if says(&["port is already allocated", "address already in use"]) {
        "PortInUse"
    } else if says(&["executable file not found", "no such file or directory", "no command specified"]) {
        "CommandNotFound"
    } else if says(&["permission denied"]) {
        "NotExecutable"
    } else if says(&["network", "endpoint"]) {
        "NetworkFailed"
    } else {
        "ContainerRefused"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_says_has_a_word() {
        for (message, word) in [
            ("No such image: nothing:1", "ImageNotFound"),
            ("driver failed: Bind for 127.0.0.1:80 failed: port is already allocated", "PortInUse"),
            ("exec: \"x\": executable file not found in $PATH: unknown", "CommandNotFound"),
            ("network plant not found", "NetworkFailed"),
            ("something new", "ContainerRefused"),
        ] {
            assert_eq!(code(message), word, "{message}");
        }
    }

    #[test]
    fn an_answer_is_a_reason_and_silence_is_absence() {
        let answer = || Error::DockerResponseServerError { status_code: 500, message: "no".to_owned() };
        assert!(matches!(refused(&answer()), RuntimeError::NotStarted { .. }));
        assert!(matches!(failed("x", answer()), RuntimeError::Internal { .. }));
        for silence in [Error::RequestTimeoutError, Error::from(std::io::Error::other("gone"))] {
            assert!(matches!(refused(&silence), RuntimeError::Unavailable { .. }));
            assert!(matches!(failed("x", silence), RuntimeError::Unavailable { .. }));
        }
    }
}
