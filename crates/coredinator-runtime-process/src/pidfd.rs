//! A process held by a descriptor: it cannot become another one, whatever happens to its number.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
};

use crate::procfs;

/// How a process ended, in the kernel's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Ended {
    /// From the word that `waitpid` answers.
    fn from_wait_status(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self { code: Some(libc::WEXITSTATUS(status)), signal: None }
        } else {
            Self { code: None, signal: Some(libc::WTERMSIG(status)) }
        }
    }
}

/// A descriptor of a process.
#[derive(Debug)]
pub(crate) struct PidFd {
    fd: OwnedFd,
    pid: Pid,
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PidFd {
    /// Takes hold of whoever has this number now; the caller then checks that it is whom it meant.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self { fd: rustix::process::pidfd_open(pid, PidfdFlags::empty())?, pid })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it still executes; asked of the descriptor, which takes no other.
    pub(crate) fn is_alive(&self) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted or not: whoever is not told to have ended lives.
        poll(&mut polled, Some(&at_once)).is_err() || polled[0].revents().is_empty()
    }

    /// Signals this process.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(self, signal)?)
    }

    /// Signals the whole process group that this process leads.
    ///
    /// From Linux 6.9 on the kernel finds the group by the descriptor, so that it cannot be another's even when the leader
    /// is long gone. Before, the group is named by number, and only while the leader (alive or a zombie) still holds it.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        #[expect(unsafe_code, reason = "neither std nor rustix can signal a group by descriptor")]
        // SAFETY: the descriptor is open for as long as `self` lives, the null pointer stands for no siginfo, and the call
        // reads no other memory.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal.as_raw(),
                std::ptr::null::<libc::siginfo_t>(),
                libc::PIDFD_SIGNAL_PROCESS_GROUP,
            )
        };
        if answer == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        self.signal(signal)?;
        Ok(rustix::process::kill_process_group(self.pid, signal)?)
    }

    /// How this child ended, leaving it a zombie, so that its number stays taken; `None` while it runs.
    ///
    /// # Errors
    /// `ECHILD` for a process that is not our child, or not any more.
    pub(crate) fn peek_child(&self) -> io::Result<Option<Ended>> {
        self.wait_child(WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
    }

    /// Lets go of a child that has ended.
    pub(crate) fn reap_child(&self) -> io::Result<Option<Ended>> {
        self.wait_child(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn wait_child(&self, options: WaitIdOptions) -> io::Result<Option<Ended>> {
        let status = rustix::process::waitid(WaitId::PidFd(self.as_fd()), options)?;
        Ok(status.map(|status| Ended { code: status.exit_status(), signal: status.terminating_signal() }))
    }

    /// How a process that is not our child ended; `None` while that is unknown: it runs, or its parent has not reaped it
    /// and the kernel does not show a zombie's code, or the kernel (before 6.15) does not keep it.
    pub(crate) fn exit_of_stranger(&self, start_time: u64) -> Option<Ended> {
        if let Some(stat) = procfs::stat(self.pid).ok().flatten().filter(|stat| stat.start_time == start_time)
            && !stat.is_alive()
            && stat.exit_code != 0
        {
            return Some(Ended::from_wait_status(stat.exit_code));
        }
        self.kept_exit()
    }

    /// What the kernel keeps of a process that has been reaped, as long as a descriptor of it is open (Linux 6.15).
    fn kept_exit(&self) -> Option<Ended> {
        #[expect(unsafe_code, reason = "an ioctl that neither std nor rustix knows")]
        // SAFETY: `pidfd_info` is plain integers, for which all zeroes is a value; the ioctl's number carries its size, and
        // the kernel writes no more than that to the pointer, which is valid for the whole call.
        let info = unsafe {
            let mut info: libc::pidfd_info = mem::zeroed();
            info.mask = u64::from(libc::PIDFD_INFO_EXIT);
            (libc::ioctl(self.fd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) == 0).then_some(info)
        }?;
        (info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then(|| Ended::from_wait_status(info.exit_code))
    }

    /// Whether the kernel keeps the exit code of a process that somebody else has reaped.
    pub(crate) fn keeps_exits() -> bool {
        procfs::kernel_version() >= (6, 15)
    }
}
