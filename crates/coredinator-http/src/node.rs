//! Who this coredinator is among the replicas on one store: a name, and what tells it from another of that name.

use std::{io, path::PathBuf};

use coredinator_core::NodeName;
use coredinator_registry::{DataDir, DataDirError, leadership::NodeIdentity};
use serde::{Deserialize, Serialize};

/// What is kept of it in the data directory, so that a restart is the same node, whatever the machine is called by then.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    id: String,
    #[serde(default)]
    name: Option<NodeName>,
}

/// Who this is: `chosen`, if somebody chose a name; else what it was called before; else as the machine calls itself.
pub(crate) fn identity(data_dir: &DataDir, chosen: Option<&NodeName>) -> Result<NodeIdentity, DataDirError> {
    let path = path(data_dir);
    let kept = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(DataDirError::Inaccessible { path, source }),
    };
    let kept = match kept {
        Some(kept) => kept,
        // Not there, or cut off by a full disk: it is coined anew, and what was held under the old one runs out.
        None => {
            let kept = Kept { id: format!("{:016x}", fastrand::u64(..)), name: None };
            write(data_dir, &kept)?;
            kept
        }
    };
    let name = chosen.cloned().or(kept.name).unwrap_or_else(machine);
    Ok(NodeIdentity { name, id: kept.id, chosen: chosen.is_some() })
}

/// Keeps the name under which it joined.
pub(crate) fn remember(data_dir: &DataDir, identity: &NodeIdentity, joined: &NodeName) {
    if let Err(error) = write(data_dir, &Kept { id: identity.id.clone(), name: Some(joined.clone()) }) {
        tracing::warn!(%error, "the name of this node is not kept");
    }
}

fn path(data_dir: &DataDir) -> PathBuf {
    data_dir.path().join("node.json")
}

fn write(data_dir: &DataDir, kept: &Kept) -> Result<(), DataDirError> {
    let path = path(data_dir);
    let temporary = path.with_extension("tmp");
    let written = serde_json::to_vec(kept)
        .map_err(io::Error::from)
        .and_then(|bytes| std::fs::write(&temporary, bytes))
        .and_then(|()| std::fs::rename(&temporary, &path));
    written.map_err(|source| DataDirError::Inaccessible { path, source })
}

/// What the machine calls itself.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn machine() -> NodeName {
    named(&host_name())
}

fn named(text: &str) -> NodeName {
    let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let label: String = text.chars().map(fit).take(63).collect();
    NodeName::new(label.trim_matches('-'))
        .unwrap_or_else(|_| NodeName::new("node").unwrap_or_else(|_| unreachable!("a DNS label")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_machines_call_themselves_becomes_a_name() {
        for (text, expected) in [("plant-a", "plant-a"), ("Plant.Local", "plant-local"), ("", "node"), ("-ä-", "node")]
        {
            assert_eq!(named(text).as_str(), expected, "{text}");
        }
        assert_eq!(named(&"x".repeat(200)).as_str().len(), 63);
    }

    #[test]
    fn a_restart_is_the_same_node_and_garbage_is_coined_anew() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let first = identity(&data_dir, None).unwrap();
        assert_eq!(identity(&data_dir, None).unwrap(), first);
        let joined = NodeName::new("other").unwrap();
        remember(&data_dir, &first, &joined);
        let second = identity(&data_dir, None).unwrap();
        assert_eq!((second.name, &second.id, second.chosen), (joined, &first.id, false));
        let chosen = NodeName::new("chosen").unwrap();
        let third = identity(&data_dir, Some(&chosen)).unwrap();
        assert_eq!((third.name, &third.id, third.chosen), (chosen, &first.id, true));
        std::fs::write(path(&data_dir), "{\"id\":").unwrap();
        assert_ne!(identity(&data_dir, None).unwrap().id, first.id);
    }
}
