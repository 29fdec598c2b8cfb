//! Where the engine is: as Docker's own command line finds it, and Podman's socket where Docker has none.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Docker's own socket.
const SOCKET: &str = "/var/run/docker.sock";
/// Podman's, where it is everybody's.
const PODMAN: &str = "/run/podman/podman.sock";

/// The way to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A socket of this machine.
    Socket(PathBuf),
    /// `host:port`, in plain.
    Plain(String),
    /// `host:port`, with certificates.
    Tls(String, Certificates),
}

/// Where the certificates of a connection are; read when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Who vouches for the engine.
    pub(crate) authority: PathBuf,
    /// What is shown to the engine.
    pub(crate) certificate: PathBuf,
    /// The key to that.
    pub(crate) key: PathBuf,
}

impl Certificates {
    fn within(folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self { authority: file("ca.pem"), certificate: file("cert.pem"), key: file("key.pem") }
    }
}

impl Endpoint {
    /// The host of an engine that is on another machine; `None` where it is on this one, as far as its address tells.
    pub(crate) fn remote_host(&self) -> Option<&str> {
        let (Self::Plain(address) | Self::Tls(address, _)) = self else { return None };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || ip.is_unspecified());
        (!here).then_some(host)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Plain(address) => write!(f, "tcp://{address}"),
            Self::Tls(address, _) => write!(f, "tcp://{address} (TLS)"),
        }
    }
}

/// What the environment says of engines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    host: Option<String>,
    context: Option<String>,
    verify: bool,
    certificates: Option<PathBuf>,
    /// Docker's folder of the user: `DOCKER_CONFIG`, or `.docker` at home.
    pub(crate) folder: Option<PathBuf>,
    /// Where sockets may be found that are no setting's.
    sockets: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of this process, with settings from another folder if one is given.
    pub(crate) fn here(settings: Option<&Path>) -> Self {
        let read = Self::read(|name| std::env::var(name).ok());
        Self { folder: settings.map(Path::to_owned).or(read.folder), ..read }
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        // Empty is as good as not set, as with Docker's own tools.
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = get("HOME").map(|home| Path::new(&home).join(".docker"));
        let podman = get("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join("podman/podman.sock"));
        Self {
            host: get("DOCKER_HOST"),
            context: get("DOCKER_CONTEXT"),
            verify: get("DOCKER_TLS_VERIFY").is_some(),
            certificates: get("DOCKER_CERT_PATH").map(PathBuf::from),
            folder: get("DOCKER_CONFIG").map(PathBuf::from).or(home),
            sockets: [SOCKET.into()].into_iter().chain(podman).chain([PODMAN.into()]).collect(),
        }
    }

    /// The way to the engine: what was `given`, `DOCKER_HOST`, the context in use, the first socket that is there.
    ///
    /// # Errors
    /// What is wrong with a setting, in words.
    pub(crate) fn endpoint(&self, given: Option<&str>) -> Result<Endpoint, String> {
        if let Some(host) = given.or(self.host.as_deref()) {
            return self.at(host);
        }
        if let Some(context) = self.context_in_use()? {
            return self.of_context(&context);
        }
        let found = self.sockets.iter().find(|socket| socket.exists()).or(self.sockets.first());
        Ok(Endpoint::Socket(found.cloned().unwrap_or_else(|| SOCKET.into())))
    }

    fn at(&self, host: &str) -> Result<Endpoint, String> {
        let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
        match scheme {
            "unix" => Ok(Endpoint::Socket(rest.into())),
            "tcp" | "http" if !self.verify => Ok(Endpoint::Plain(with_port(rest, 2375))),
            "tcp" | "http" | "https" => {
                let folder = self.certificates.as_ref().or(self.folder.as_ref());
                let folder = folder.ok_or("TLS needs DOCKER_CERT_PATH, the folder of its certificates")?;
                Ok(Endpoint::Tls(with_port(rest, 2376), Certificates::within(folder)))
            }
            _ => Err(format!("{host:?} cannot be connected to: only unix:// and tcp:// can")),
        }
    }

    fn context_in_use(&self) -> Result<Option<String>, String> {
        let configured = || -> Result<Option<String>, String> {
            Ok(self.settings()?.and_then(|settings| settings.current_context).filter(|name| !name.is_empty()))
        };
        let name = self.context.clone().map_or_else(configured, |name| Ok(Some(name)))?;
        Ok(name.filter(|name| name != "default"))
    }

    /// Docker's settings of the user; `None` if there are none.
    pub(crate) fn settings(&self) -> Result<Option<Settings>, String> {
        let Some(path) = self.folder.as_ref().map(|folder| folder.join("config.json")) else { return Ok(None) };
        read_json(&path)
    }

    fn of_context(&self, name: &str) -> Result<Endpoint, String> {
        let missing = || format!("there is no Docker context {name:?}");
        let contexts = self.folder.as_ref().ok_or_else(missing)?.join("contexts");
        // The folders are named by digests, which are not worth a library: each says inside whose it is.
        let folders = fs::read_dir(contexts.join("meta")).map_err(|_| missing())?;
        for folder in folders.filter_map(Result::ok) {
            let Some(context) = read_json::<Context>(&folder.path().join("meta.json"))? else { continue };
            if context.name != name {
                continue;
            }
            let docker = context.endpoints.docker.ok_or_else(|| format!("Docker context {name:?} names no engine"))?;
            if docker.skip_tls_verify {
                return Err(format!("Docker context {name:?} does not verify its engine, which is not supported"));
            }
            let certificates = contexts.join("tls").join(folder.file_name()).join("docker");
            if docker.host.starts_with("tcp://") && certificates.join("key.pem").exists() {
                let address = with_port(docker.host.trim_start_matches("tcp://"), 2376);
                return Ok(Endpoint::Tls(address, Certificates::within(&certificates)));
            }
            return Self { verify: false, ..self.clone() }.at(&docker.host);
        }
        Err(missing())
    }
}

fn with_port(address: &str, port: u16) -> String {
    let address = address.trim_end_matches('/');
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
    if has_port { address.to_owned() } else { format!("{address}:{port}") }
}

/// A file of JSON; `None` if it is not there.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, String> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("cannot understand {}: {error}", path.display())),
    }
}

/// What counts here of Docker's `config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Settings {
    current_context: Option<String>,
    /// By registry.
    pub(crate) auths: std::collections::BTreeMap<String, Auth>,
    /// The helper that keeps a registry's credentials, by registry.
    pub(crate) cred_helpers: std::collections::BTreeMap<String, String>,
    /// The helper that keeps all others.
    pub(crate) creds_store: Option<String>,
}

/// Credentials as `config.json` writes them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub(crate) struct Auth {
    /// `user:password` in base 64.
    pub(crate) auth: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) identitytoken: Option<String>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(coredinator_core::REDACTED)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    name: String,
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextEndpoint {
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

#[cfg(test)]
mod tests;
