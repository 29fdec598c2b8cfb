//! Who is alive, by the kernel's account.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rustix::process::{Pid, Signal, kill_process};

/// A living process that carries a plant's mark and an instance's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) service: String,
    pub(crate) replica: u32,
    pub(crate) pid: u32,
    pub(crate) id: String,
    /// Whether it is the main process of an instance: it leads its session, and no process of an instance is its parent.
    pub(crate) leads: bool,
    start_time: u64,
    parent: u32,
}

impl Process {
    /// Whether it still executes.
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time)
    }
}

struct Stat {
    parent: u32,
    session: u32,
    start_time: u64,
}

/// What the kernel tells of a process; `None` if there is none, or only a zombie.
fn stat(pid: u32) -> Option<Stat> {
    let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_ascii_whitespace().collect();
    if matches!(fields[0], "Z" | "X" | "x") {
        return None;
    }
    Some(Stat {
        parent: fields[1].parse().ok()?,
        session: fields[3].parse().ok()?,
        start_time: fields[19].parse().ok()?,
    })
}

/// Whether there is such a process, and not only its zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some()
}

/// Whether every thread of a process has stopped, which it does some time after it was told to.
pub(crate) fn is_frozen(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let stat = |entry: std::io::Result<fs::DirEntry>| fs::read_to_string(entry.ok()?.path().join("stat")).ok();
    threads.filter_map(stat).all(|line| line[line.rfind(')').map_or(0, |at| at + 1)..].trim_start().starts_with('T'))
}

fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let entries = bytes.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='));
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// All that carry `key=value` in their environment, with what an instance is told about itself.
pub(crate) fn marked(key: &str, value: &str) -> Vec<Process> {
    let read = |pid| {
        let environment = environment(pid);
        (environment.get(key)? == value).then_some(())?;
        let Stat { parent, session, start_time } = stat(pid)?;
        Some(Process {
            service: environment.get("COREDINATOR_SERVICE")?.clone(),
            replica: environment.get("COREDINATOR_REPLICA")?.parse().ok()?,
            id: environment.get("COREDINATOR_INSTANCE_ID")?.clone(),
            pid,
            leads: session == pid,
            start_time,
            parent,
        })
    };
    let mut found: Vec<Process> = pids().into_iter().filter_map(read).collect();
    found.sort();
    let instances: BTreeSet<u32> = found.iter().map(|process| process.pid).collect();
    found.iter_mut().for_each(|process| process.leads &= !instances.contains(&process.parent));
    found
}

/// The replicas that run more than once at the same moment. A look at `/proc` takes time, in which one may end and its
/// successor begin; so those seen twice are looked at again, all of them after all were seen.
pub(crate) fn doubled(seen: &[Process]) -> Vec<Vec<Process>> {
    let mut leaders: BTreeMap<(&str, u32), Vec<&Process>> = BTreeMap::new();
    for process in seen.iter().filter(|process| process.leads) {
        leaders.entry((&process.service, process.replica)).or_default().push(process);
    }
    let twice = leaders.into_values().filter(|of_one| of_one.len() > 1);
    let alive = twice.map(|of_one| of_one.into_iter().filter(|p| p.is_alive()).cloned().collect::<Vec<_>>());
    alive.filter(|of_one| of_one.len() > 1).collect()
}

/// The pids of the leaders of one service.
pub(crate) fn leaders_of(seen: &[Process], service: &str) -> BTreeSet<u32> {
    seen.iter().filter(|process| process.leads && process.service == service).map(|process| process.pid).collect()
}

/// Signals one process; that it is gone already is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills whatever carries the mark, coredinator too, until nobody is left.
pub(crate) fn kill_all(key: &str, value: &str) {
    for _ in 0..100 {
        let carries = |pid: &u32| environment(*pid).get(key).is_some_and(|found| found == value);
        let left: Vec<u32> = pids().into_iter().filter(|pid| carries(pid) && stat(*pid).is_some()).collect();
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        // Killed is not yet gone, and what it forked a moment ago is found by the next look.
        std::thread::yield_now();
    }
}

/// A variable of the main process of an instance, by its id; `None`: there is no such process, or no such variable.
pub(crate) fn variable(id: &str, name: &str) -> Option<String> {
    let mark = format!("COREDINATOR_INSTANCE_ID={id}");
    let entries = fs::read_dir("/proc").ok()?;
    let environments = entries.filter_map(|entry| fs::read(entry.ok()?.path().join("environ")).ok());
    environments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).find_map(|text| {
        let variables: Vec<&str> = text.split('\0').collect();
        let wanted = variables.iter().find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
        wanted.filter(|_| variables.contains(&mark.as_str())).map(str::to_owned)
    })
}
