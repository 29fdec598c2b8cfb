//! Starting a program as the leader of a session of its own.
//!
//! `posix_spawn` rather than `fork`: it shares the parent's memory until the program is loaded, so that a start costs the
//! same however large coredinator has grown, and reports a failing `exec` as its own error.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_short},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use rustix::process::Pid;

use crate::descriptors;

/// The same in glibc (2.26) and musl; the libc crate does not name it.
const POSIX_SPAWN_SETSID: c_int = 0x80;

/// A program ready to be started.
#[derive(Debug)]
pub(crate) struct Program {
    /// The file to load: an absolute path.
    pub(crate) path: CString,
    /// Its arguments, its own name first.
    pub(crate) arguments: Vec<CString>,
    /// `KEY=value`, all of it: nothing is inherited.
    pub(crate) environment: Vec<CString>,
    /// Where it starts; `None`: where this process is.
    pub(crate) working_dir: Option<CString>,
}

impl Program {
    /// Starts it with standard input from nothing and the given outputs, no other descriptor, no signal blocked, every signal
    /// at its default, as leader of a new session. The caller reaps it.
    pub(crate) fn spawn(&self, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> io::Result<Pid> {
        let mut actions = FileActions::new()?;
        actions.open_null(0)?;
        actions.duplicate(stdout, 1)?;
        actions.duplicate(stderr, 2)?;
        if !descriptors::end_with_the_program() {
            actions.close_rest()?;
        }
        if let Some(directory) = &self.working_dir {
            actions.change_directory(directory)?;
        }
        let attributes = Attributes::new()?;
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        let mut pid = 0;
        #[expect(unsafe_code, reason = "std cannot start a session leader without fork")]
        // SAFETY: path, arguments and environment are NUL-terminated strings in null-terminated arrays, which outlive the
        // call as `self`, `arguments` and `environment` do; actions and attributes are initialised.
        let code = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.path.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        check(code)?;
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn answered pid 0"))?;
        descriptors::give_back(pid);
        Ok(pid)
    }
}

fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    strings.iter().map(|string| string.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

fn check(code: c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// What the child does with its descriptors before it loads the program.
struct FileActions(libc::posix_spawn_file_actions_t);

#[expect(unsafe_code, reason = "thin calls into libc on an initialised structure")]
impl FileActions {
    fn new() -> io::Result<Self> {
        // SAFETY: init only writes to the structure, and a failure leaves nothing to destroy.
        unsafe {
            let mut actions = mem::MaybeUninit::uninit();
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            Ok(Self(actions.assume_init()))
        }
    }

    fn open_null(&mut self, fd: c_int) -> io::Result<()> {
        let path = c"/dev/null";
        // SAFETY: initialised by `new`; the path is a static C string.
        check(unsafe { libc::posix_spawn_file_actions_addopen(&raw mut self.0, fd, path.as_ptr(), libc::O_RDONLY, 0) })
    }

    fn duplicate(&mut self, from: BorrowedFd<'_>, to: c_int) -> io::Result<()> {
        // SAFETY: initialised by `new`; the numbers are only noted.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from.as_raw_fd(), to) })
    }

    fn change_directory(&mut self, directory: &CStr) -> io::Result<()> {
        // SAFETY: initialised by `new`; libc copies the path.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, directory.as_ptr()) })
    }

    /// For kernels that cannot mark descriptors instead. The lock of the data directory goes with the rest, a moment before
    /// the program is loaded.
    #[cfg_attr(not(target_env = "gnu"), expect(clippy::unused_self, reason = "only glibc has the call"))]
    fn close_rest(&mut self) -> io::Result<()> {
        #[cfg(target_env = "gnu")]
        // SAFETY: initialised by `new`; the number is only noted.
        return check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, 3) });
        #[cfg(not(target_env = "gnu"))]
        Ok(())
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the structure owns memory of libc's")]
        // SAFETY: initialised by `new`, destroyed once.
        unsafe {
            libc::posix_spawn_file_actions_destroy(&raw mut self.0);
        }
    }
}

/// Session and signals of the child.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let flags = POSIX_SPAWN_SETSID | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let flags = c_short::try_from(flags).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "thin calls into libc on structures that they initialise")]
        // SAFETY: each structure is initialised by its first call and only then used; once `init` has succeeded, `Self` owns
        // the attributes and destroys them on every way out.
        unsafe {
            let mut attributes = mem::MaybeUninit::uninit();
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = Self(attributes.assume_init());
            let mut signals: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &raw const signals))?;
            libc::sigfillset(&raw mut signals);
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &raw const signals))?;
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags))?;
            Ok(attributes)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the structure owns memory of libc's")]
        // SAFETY: initialised by `new`, destroyed once.
        unsafe {
            libc::posix_spawnattr_destroy(&raw mut self.0);
        }
    }
}
