//! The processes of one server: its postmaster, and what that started.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A running postmaster.
pub(crate) struct Server {
    postmaster: Child,
}

impl Server {
    pub(crate) fn start(
        programs: &Path,
        data: &Path,
        log: &Path,
        settings: &[String],
        user: Option<(u32, u32)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(programs.join("postgres"));
        command.arg("-D").arg(data);
        for setting in settings {
            command.args(["-c", setting]);
        }
        as_user(&mut command, user);
        let log = File::options().create(true).append(true).open(log)?;
        // A group of its own: Ctrl-C at the tests is not for it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Self { postmaster: command.spawn()? })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.postmaster.try_wait(), Ok(None))
    }

    /// Ends it and waits: by SIGINT a fast orderly shutdown, by SIGQUIT one that has to recover, by SIGKILL a crash. What the
    /// postmaster started has ended, too, when this returns.
    pub(crate) fn end(&mut self, signal: Signal) {
        let all = self.all();
        self.signal(&all[..1], signal);
        let _ = self.postmaster.wait();
        // They end when they notice that the postmaster has; one that is stopped does not notice.
        self.signal(&all[1..], Signal::CONT);
        for pid in &all[1..] {
            while fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres") {
                std::thread::yield_now();
            }
        }
    }

    /// Stops every process of it, as a machine that hangs does.
    pub(crate) fn pause(&self) {
        // Those that are started meanwhile are found by the second look.
        for _ in 0..2 {
            self.signal(&self.all(), Signal::STOP);
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        let mut all = self.all();
        // The postmaster last, so that it finds its children running.
        all.reverse();
        self.signal(&all, Signal::CONT);
    }

    /// The postmaster, and its children.
    fn all(&self) -> Vec<u32> {
        let postmaster = self.postmaster.id();
        let parent = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        std::iter::once(postmaster).chain(pids.filter(|pid| parent(*pid) == Some(postmaster))).collect()
    }

    #[expect(clippy::unused_self, reason = "signals go to this server's processes alone")]
    fn signal(&self, pids: &[u32], signal: Signal) {
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// PostgreSQL does not run as root.
pub(crate) fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
}
