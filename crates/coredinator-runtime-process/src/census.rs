//! Who on this machine belongs to an instance: found by session and by the variables that every descendant inherits.

use std::{
    collections::HashSet,
    io,
    sync::{Mutex, PoisonError},
};

use coredinator_core::InstanceId;
use rustix::process::Pid;

use crate::{
    pidfd::PidFd,
    procfs::{self, Stat, Tags},
};

/// A living process that carries this coredinator's identity.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) fd: PidFd,
    pub(crate) stat: Stat,
    pub(crate) id: InstanceId,
    pub(crate) tags: Tags,
}

impl Found {
    /// Whether it still executes.
    pub(crate) fn is_alive(&self) -> bool {
        self.fd.is_alive()
    }

    /// Whether it leads a session, as the main process of every instance does.
    pub(crate) fn leads(&self) -> bool {
        self.stat.session == self.fd.pid().as_raw_pid()
    }
}

/// Looks through the machine's processes.
#[derive(Debug)]
pub(crate) struct Census {
    owners: Vec<String>,
    /// Sessions that were seen to be nobody's business, so that an exit does not read every environment of the machine.
    foreign: Mutex<HashSet<i32>>,
}

impl Census {
    /// Of processes that carry any of these owners.
    pub(crate) fn new(owners: Vec<String>) -> Self {
        Self { owners, foreign: Mutex::default() }
    }

    /// Whether that is an owner by which this coredinator's processes are known.
    pub(crate) fn is_owned(&self, owner: Option<&str>) -> bool {
        owner.is_some_and(|owner| self.owners.iter().any(|known| known == owner))
    }

    /// Everything alive that carries this coredinator's identity.
    pub(crate) fn all(&self) -> io::Result<Vec<Found>> {
        procfs::pids()?.into_iter().filter_map(|pid| self.identify(pid).transpose()).collect()
    }

    /// Whoever carries this coredinator's identity and `id`.
    pub(crate) fn of(&self, id: &InstanceId) -> io::Result<Vec<Found>> {
        let mut all = self.all()?;
        all.retain(|found| found.id == *id);
        Ok(all)
    }

    fn identify(&self, pid: Pid) -> io::Result<Option<Found>> {
        let owned = |tags: &Tags| self.is_owned(tags.get(Tags::OWNER));
        if !procfs::tags(pid)?.as_ref().is_some_and(owned) {
            return Ok(None);
        }
        // Held first, then read again: what is read now is read of the process that is held.
        let Some(fd) = procfs::if_there(PidFd::open(pid))? else { return Ok(None) };
        let Some(tags) = procfs::tags(pid)?.filter(owned) else { return Ok(None) };
        let Some(stat) = procfs::stat(pid)?.filter(Stat::is_alive) else { return Ok(None) };
        let id = tags.get(Tags::INSTANCE_ID).and_then(|id| InstanceId::new(id).ok());
        Ok(id.map(|id| Found { fd, stat, id, tags }))
    }

    /// What is left of an instance beside its leader: its session, if the leader's zombie still holds that number, and
    /// whoever carries its id, even in a session of its own. `busy` are the sessions of living instances.
    ///
    /// Takes a getsid(2) per process of the machine, and reads the environment only of those in sessions that it has not
    /// seen before. Zombies do not count; those that fell to this process (as PID 1 or subreaper) are reaped.
    pub(crate) fn remains(
        &self,
        id: &InstanceId,
        leader: Pid,
        held: bool,
        busy: &HashSet<i32>,
    ) -> io::Result<Vec<PidFd>> {
        let myself = rustix::process::getpid().as_raw_pid();
        // A copy, so that of many that end at once none waits for another's look.
        let known = || self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        let mut foreign = known().clone();
        let mut seen = HashSet::new();
        let mut remains = Vec::new();
        for pid in procfs::pids()? {
            let Some(session) = procfs::session(pid) else { continue };
            seen.insert(session);
            let within = session == leader.as_raw_pid();
            if pid == leader || !within && (foreign.contains(&session) || busy.contains(&session)) {
                continue;
            }
            let Some(fd) = procfs::if_there(PidFd::open(pid))? else { continue };
            let Some(stat) = procfs::stat(pid)?.filter(|stat| stat.session == session) else { continue };
            if !stat.is_alive() {
                if within && stat.parent == myself {
                    // Nobody else will. An error says that somebody did.
                    let _ = fd.reap_child();
                }
                continue;
            }
            let tags = procfs::tags(pid)?.unwrap_or_default();
            let owned = self.is_owned(tags.get(Tags::OWNER));
            if within && held || owned && tags.get(Tags::INSTANCE_ID) == Some(id.as_str()) {
                remains.push(fd);
            } else if !owned && !within {
                foreign.insert(session);
            }
        }
        foreign.retain(|session| seen.contains(session));
        *known() = foreign;
        Ok(remains)
    }
}
