//! How many descriptors this process may have open, and how many its instances may.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The limit that this process was started with, once it has been raised.
static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process's soft limit of open descriptors to its hard limit, and answers what it may open now; `None` for no
/// limit. Every running instance takes a descriptor, every connection of the API and of a check another, and the usual soft
/// limit of 1024 is for programs that still use select(2): instances are started with the limit that there was before.
///
/// For programs, at their start. Calling it again changes nothing.
///
/// # Errors
/// The system's; the limit is then as it was.
pub fn raise_descriptor_limit() -> std::io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(limit.current);
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let _ = INHERITED.set(limit);
    Ok(limit.maximum)
}

/// Marks every descriptor but the standard three to be closed when a child loads its program, what this process itself
/// inherited included; `false` where the kernel (before 5.11) cannot.
///
/// When it loads it, and not before: a child that was forked and has not loaded its program yet carries no mark by which
/// anybody could know it. Should coredinator be killed at that moment, its successor waits for as long as the child holds the lock
/// of the data directory, and only then looks for what runs.
pub(crate) fn end_with_the_program() -> bool {
    #[expect(unsafe_code, reason = "neither std nor rustix has the call")]
    // SAFETY: numbers in, a number out; no descriptor is closed in this process.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    answer == 0
}

/// Gives a child that has just been started the limit that this process was started with.
///
/// `posix_spawn` can set no limits, and the limit of this process cannot be lowered for the moment of a start, in which
/// other threads may open something. So the child has the higher one while its loader begins to work.
pub(crate) fn give_back(child: Pid) {
    if let Some(limit) = INHERITED.get()
        && let Err(error) = prlimit(Some(child), Resource::Nofile, *limit)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = child.as_raw_pid(), %error, "cannot set a process's limit of open descriptors");
    }
}
