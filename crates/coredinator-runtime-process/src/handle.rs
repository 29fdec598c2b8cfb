//! What identifies a process for good, as it is stored.

use std::io;

use coredinator_core::LogRetention;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::{pidfd::PidFd, procfs};

/// A process for good: its number AND when it started AND in which boot of the kernel. The rest is repeated so that an
/// adopted instance is answered and looked after as it was when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handle {
    pub(crate) pid: i32,
    /// Clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
    #[serde(default)]
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) log_max_size: Option<u64>,
    #[serde(default)]
    pub(crate) log_max_files: Option<u32>,
}

impl Handle {
    /// Reads a stored handle; `None` for what is none of ours.
    pub(crate) fn parse(value: &serde_json::Value) -> Option<Self> {
        Self::deserialize(value).ok().filter(|handle| handle.pid > 1)
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// How much of its output is kept.
    pub(crate) fn retention(&self) -> LogRetention {
        let default = LogRetention::default();
        LogRetention {
            max_size: self.log_max_size.unwrap_or(default.max_size).max(4096),
            max_files: self.log_max_files.unwrap_or(default.max_files).max(1),
        }
    }

    /// Takes hold of the process if it is still the same one and leads its session.
    ///
    /// The descriptor comes first, the check second: whoever passes the check cannot be replaced afterwards.
    ///
    /// # Errors
    /// It cannot be told whether it is, for want of descriptors or memory.
    pub(crate) fn open(&self, boot_id: &str) -> io::Result<Option<PidFd>> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.boot_id == boot_id) else { return Ok(None) };
        let Some(fd) = procfs::if_there(PidFd::open(pid))? else { return Ok(None) };
        let same =
            |stat: procfs::Stat| stat.start_time == self.start_time && stat.session == self.pid && stat.is_alive();
        Ok(procfs::stat(pid)?.is_some_and(same).then_some(fd))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn garbage_is_no_handle() {
        for garbage in [
            json!(null),
            json!([]),
            json!("x"),
            json!({"pid": -1, "start_time": 1, "boot_id": ""}),
            json!({"pid": 1, "start_time": 1, "boot_id": ""}),
            json!({"pid": 4_000_000_000_u32, "start_time": 1, "boot_id": ""}),
            json!({"pid": 10, "start_time": -4, "boot_id": ""}),
            json!({"pid": 10}),
        ] {
            assert_eq!(Handle::parse(&garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_handle_reads_back() {
        let handle = Handle {
            pid: 7,
            start_time: 9,
            boot_id: "b".into(),
            host: "h".into(),
            port: 1,
            log_max_size: Some(1),
            log_max_files: None,
        };
        assert_eq!(Handle::parse(&handle.to_json()), Some(handle));
    }
}
