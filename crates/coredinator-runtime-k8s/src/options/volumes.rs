//! What a pod sees of things outside of its image.

use coredinator_core::{
    FieldError,
    field::{FieldReader, join},
    size,
};
use serde_json::Value;

use super::{Errors, fail};
use crate::labels;

/// Something of outside that a pod sees inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Where it appears; absolute.
    pub target: String,
    /// Whether the program may only read it; what a ConfigMap or Secret holds can only be read in any case.
    pub read_only: bool,
    /// The part of it that appears; `None`: all.
    pub sub_path: Option<String>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// The keys of a ConfigMap, as files.
    ConfigMap(String),
    /// The keys of a Secret, as files.
    Secret(String),
    /// A volume that the claim of this name stands for.
    Claim(String),
    /// An empty folder, which goes with the pod; of memory, perhaps, and of so many bytes at most.
    Empty {
        /// Whether it is memory, and counts as the pod's.
        memory: bool,
        /// `None`: as much as there is.
        size: Option<i64>,
    },
}

/// `claim:target[:ro|:rw]`, `target` alone, or the long form.
pub(super) fn parse(pointer: &str, value: &Value) -> Result<Mount, Errors> {
    let Some(text) = value.as_str() else { return parse_long(pointer, value.clone()) };
    let (source, target, mode) = match *text.split(':').collect::<Vec<_>>() {
        [target] => (None, target, "rw"),
        [source, target] => (Some(source), target, "rw"),
        [source, target, mode] => (Some(source), target, mode),
        _ => return fail(pointer, "expected claim:target or claim:target:ro"),
    };
    let read_only = match mode {
        "ro" => true,
        "rw" => false,
        other => return fail(pointer, format!("expected ro or rw, but found {other:?}")),
    };
    let kind = match source {
        None => MountKind::Empty { memory: false, size: None },
        Some(claim) if labels::is_subdomain(claim) => MountKind::Claim(claim.to_owned()),
        Some(path) => {
            let detail = format!("the source must be the name of a PersistentVolumeClaim, but is {path:?}");
            let error = FieldError::new(pointer, detail);
            return Err(vec![if path.starts_with(['/', '.', '~']) {
                error.with_hint("a node's own files are mounted by pod_template alone (hostPath)")
            } else {
                error
            }]);
        }
    };
    checked(pointer, Mount { kind, target: target.to_owned(), read_only, sub_path: None })
}

fn parse_long(pointer: &str, value: Value) -> Result<Mount, Errors> {
    let mut reader = FieldReader::new(pointer, value);
    let (wanted, source): (Option<String>, Option<String>) = (reader.optional("type"), reader.optional("source"));
    let target: Option<String> = reader.optional("target");
    let read_only = reader.or("read_only", false);
    let sub_path: Option<String> = reader.optional("sub_path");
    let size = reader.parsed("size", |at, value| size::bytes(&value).or_else(|detail| fail(at, detail)));
    let nothing = MountKind::Empty { memory: false, size: None };
    let named = source.as_ref().is_some_and(|source| labels::is_subdomain(source));
    let kind = match (wanted.as_deref(), source) {
        (Some("config_map"), Some(name)) if named => MountKind::ConfigMap(name),
        (Some("secret"), Some(name)) if named => MountKind::Secret(name),
        (Some("volume" | "claim"), Some(name)) if named => MountKind::Claim(name),
        (Some("volume" | "empty_dir"), None) => MountKind::Empty { memory: false, size },
        (Some("tmpfs"), None) => MountKind::Empty { memory: true, size },
        (Some("tmpfs" | "empty_dir"), Some(_)) => {
            reader.error("source", "an empty folder has no source");
            nothing
        }
        (Some("config_map" | "secret" | "volume" | "claim"), _) => {
            reader.error("source", "must name the object that is mounted");
            nothing
        }
        _ => {
            reader.error("type", "expected config_map, secret, claim, volume, empty_dir or tmpfs");
            nothing
        }
    };
    if size.is_some() && !matches!(kind, MountKind::Empty { .. }) {
        reader.error("size", "only an empty folder is given a size");
    }
    if sub_path.as_deref().is_some_and(|path| path.starts_with('/') || path.split('/').any(|part| part == "..")) {
        reader.error("sub_path", "must stay within what is mounted");
    }
    let mount = reader.finish(|| Mount { kind, target: target.unwrap_or_default(), read_only, sub_path })?;
    checked(pointer, mount)
}

fn checked(pointer: &str, mount: Mount) -> Result<Mount, Errors> {
    if mount.target.starts_with('/') && mount.target.len() > 1 && !mount.target.contains(':') {
        return Ok(mount);
    }
    let at = if pointer.is_empty() { join(pointer, "target") } else { pointer.to_owned() };
    fail(&at, format!("the target must be an absolute path below / without a colon, but is {:?}", mount.target))
}
