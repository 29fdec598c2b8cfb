//! What `/proc` tells of processes.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    time::Duration,
};

use rustix::process::Pid;

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One letter: `R`, `S`, `D`, `T`, `Z`, `X`, …
    pub(crate) state: char,
    /// The process that has to reap it.
    pub(crate) parent: i32,
    /// The session; 0 for that of a kernel thread, or one that came from outside the container.
    pub(crate) session: i32,
    /// Whether it is a thread of the kernel, which never has a program.
    kernel: bool,
    /// When it started, in clock ticks since boot: with the pid and the boot id, the identity of a process.
    pub(crate) start_time: u64,
    /// Where its program begins in its memory; 0 until that is loaded with all that it is given, and in kernel threads and
    /// zombies; 1 in processes of other users.
    program: u64,
    /// How it ended, as `waitpid` words it; meaningful in a zombie, and 0 where the kernel does not show it.
    pub(crate) exit_code: i32,
}

impl Stat {
    /// Whether it still executes; a zombie only waits to be reaped.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it has a program, or is about to: kernel threads and zombies have none.
    fn has_program(&self) -> bool {
        !self.kernel && self.is_alive()
    }

    /// Whether it is between giving up one program and having loaded the next.
    fn is_loading(&self) -> bool {
        self.program == 0 && self.has_program()
    }

    /// Parses one line. The second field, the program's name in parentheses, may hold anything, spaces and parentheses too:
    /// what counts is the last `)`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let rest = &line[line.rfind(')')? + 1..];
        // The first of these is field 3 of proc(5).
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            state: field(3)?.chars().next()?,
            parent: field(4)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            kernel: field(9)?.parse::<u32>().ok()? & PF_KTHREAD != 0,
            start_time: field(22)?.parse().ok()?,
            program: field(26).and_then(|text| text.parse().ok()).unwrap_or(0),
            exit_code: field(52).and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }
}

/// The kernel's mark of its own threads among the flags of a process.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Tells a process that is gone, or another user's (`None`), from one that cannot be looked at for want of descriptors or
/// memory: whoever takes that for gone starts it twice.
pub(crate) fn if_there<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Reads a process's `stat`; `None` if there is no such process.
///
/// # Errors
/// As [`if_there`] says.
pub(crate) fn stat(pid: Pid) -> io::Result<Option<Stat>> {
    let bytes = if_there(fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())))?;
    Ok(bytes.and_then(|bytes| Stat::parse(&String::from_utf8_lossy(&bytes))))
}

/// The variables with which a process was started and which coredinator sets: `None` if it is gone or another user's.
///
/// # Errors
/// As [`if_there`] says.
pub(crate) fn tags(pid: Pid) -> io::Result<Option<Tags>> {
    Ok(environ(pid)?.map(|environ| Tags::parse(&environ)))
}

/// The variables with which a process was started, each ended by a zero: `None` if it is gone or another user's.
///
/// While a process loads a program it has no environment at all for a moment (whoever started it goes on before that is
/// over), which would make an instance look like nobody's: then this waits, on a thread that may block. Only if the same
/// program was there before and after is it true that there is nothing.
///
/// # Errors
/// As [`if_there`] says.
pub(crate) fn environ(pid: Pid) -> io::Result<Option<Vec<u8>>> {
    let mut before = None;
    for _ in 0..LOADING_LOOKS {
        let Some(environ) = if_there(read_environ(pid))? else { return Ok(None) };
        if !environ.is_empty() {
            return Ok(Some(environ));
        }
        let Some(stat) = stat(pid)? else { return Ok(None) };
        if stat.is_loading() {
            before = None;
            std::thread::park_timeout(Duration::from_millis(1));
        } else if !stat.has_program() || before == Some(stat.program) {
            break;
        } else {
            before = Some(stat.program);
        }
    }
    Ok(Some(Vec::new()))
}

/// Reads what there is in one call, if it is not very much. From a process that goes on to load another program, a second call
/// would get nothing, as if the first had got all.
fn read_environ(pid: Pid) -> io::Result<Vec<u8>> {
    read_in_large(fs::File::open(format!("/proc/{}/environ", pid.as_raw_nonzero()))?)
}

fn read_in_large(mut file: impl Read) -> io::Result<Vec<u8>> {
    let (mut environ, mut chunk) = (Vec::new(), vec![0; ENVIRON_AT_ONCE]);
    loop {
        let read = match file.read(&mut chunk) {
            // Nothing was read: a signal that came to coredinator says nothing about the process.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        environ.extend_from_slice(&chunk[..read]);
        if read < ENVIRON_AT_ONCE {
            return Ok(environ);
        }
    }
}

/// More than nearly all environments take.
const ENVIRON_AT_ONCE: usize = 64 * 1024;

/// How many milliseconds loading a program may take before its process counts as one without environment.
const LOADING_LOOKS: u32 = 1000;

/// Variables that mark what coredinator started; all absent in a process that has overwritten its environment's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tags(HashMap<String, String>);

impl Tags {
    pub(crate) const OWNER: &str = "COREDINATOR_OWNER";
    pub(crate) const INSTANCE_ID: &str = "COREDINATOR_INSTANCE_ID";
    pub(crate) const SERVICE: &str = "COREDINATOR_SERVICE";
    pub(crate) const REPLICA: &str = "COREDINATOR_REPLICA";
    pub(crate) const HOST: &str = "COREDINATOR_HOST";
    pub(crate) const PORT: &str = "PORT";

    fn parse(environ: &[u8]) -> Self {
        let known = [Self::OWNER, Self::INSTANCE_ID, Self::SERVICE, Self::REPLICA, Self::HOST, Self::PORT];
        let variables = environ.split(|&byte| byte == 0).filter_map(|entry| {
            let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            known.contains(&key).then(|| (key.to_owned(), value.to_owned()))
        });
        // Of a variable that stands there twice, programs see the first.
        let mut first = HashMap::new();
        variables.for_each(|(key, value)| {
            first.entry(key).or_insert(value);
        });
        Self(first)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// All processes that can be seen.
pub(crate) fn pids() -> io::Result<Vec<Pid>> {
    let numbers = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(Pid::from_raw);
    Ok(numbers.collect())
}

/// The session of a process, by a system call that costs a hundredth of reading its `stat`. `None` for one that is gone and
/// for those that have none that we can see: kernel threads, and sessions of another namespace.
pub(crate) fn session(pid: Pid) -> Option<i32> {
    #[expect(unsafe_code, reason = "rustix's getsid takes the 0 of a kernel thread for impossible, and panics")]
    // SAFETY: a number in, a number out.
    let session = unsafe { libc::getsid(pid.as_raw_pid()) };
    (session > 0).then_some(session)
}

/// The identity of this boot of the kernel.
pub(crate) fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// The kernel's version, such as `(6, 18)`.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Seconds since boot, on the clock that start times are told by.
pub(crate) fn uptime_seconds() -> Option<f64> {
    fs::read_to_string("/proc/uptime").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// How often the kernel has killed a process for want of memory since boot, on the whole machine.
pub(crate) fn oom_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_process_reads_as_itself() {
        let pid = rustix::process::getpid();
        let stat = stat(pid).unwrap().unwrap();
        assert!(stat.is_alive());
        // In a container whose shell came from outside, the session has no number that could be seen from inside.
        assert_eq!(Some(stat.session).filter(|&number| number > 0), session(pid));
        assert!(pids().unwrap().contains(&pid));
        assert!(stat.start_time > 0 && uptime_seconds().unwrap() > 0.0 && !boot_id().unwrap().is_empty());
    }

    #[test]
    fn an_environment_is_read_although_signals_come() {
        struct Interrupted(bool);
        impl Read for Interrupted {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return b"A=1".as_slice().read(into);
                }
                Err(io::ErrorKind::Interrupted.into())
            }
        }
        assert_eq!(read_in_large(Interrupted(false)).unwrap(), b"A=1");
    }

    #[test]
    fn a_session_from_outside_is_no_reason_to_count_as_without_program() {
        let line = |state: char, session: i32, flags: u32, program: u64| {
            format!("7 (sh) {state} 1 6 {session} 0 -1 {flags} 0 0 0 0 0 0 0 0 0 0 0 0 9 0 0 0 {program} 0")
        };
        for (line, loading) in [
            (line('R', 0, 0x40_0000, 0), true),
            (line('R', 6, 0x40_0000, 0), true),
            (line('R', 0, 0x40_0000, 5), false),
            (line('S', 0, PF_KTHREAD, 0), false),
            (line('Z', 6, 0x40_0000, 0), false),
        ] {
            assert_eq!(Stat::parse(&line).map(|stat| stat.is_loading()), Some(loading), "{line}");
        }
    }

    #[test]
    fn the_first_of_a_doubled_variable_counts() {
        let tags = Tags::parse(b"COREDINATOR_OWNER=a\0X=y\0COREDINATOR_OWNER=b\0PORT=\0\xff=1\0rest");
        assert_eq!((tags.get(Tags::OWNER), tags.get(Tags::PORT), tags.get("X")), (Some("a"), Some(""), None));
    }

    #[test]
    fn a_process_is_known_while_it_loads_one_program_after_another() {
        let script = "n=$((N - 1)); [ $n = 0 ] || N=$n exec sh -c \"$0\" \"$0\"";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script, script])
            .env(Tags::OWNER, "loader")
            .env("N", "300")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        // Not waited for meanwhile, so that the number is nobody else's.
        while stat(pid).unwrap().unwrap().is_alive() {
            let tags = tags(pid).unwrap();
            if tags.as_ref().and_then(|tags| tags.get(Tags::OWNER)) != Some("loader") {
                // It has given back its memory, and is about to be gone.
                let gone = (0..50).any(|_| {
                    std::thread::park_timeout(Duration::from_millis(1));
                    !stat(pid).unwrap().unwrap().is_alive()
                });
                assert!(gone, "{tags:?}");
            }
        }
        assert!(child.wait().unwrap().success());
    }

    proptest! {
        #[test]
        fn names_cannot_confuse_stat(
            name in "[ -~]{0,15}", session in 0i32.., kernel: bool, start: u64, code: i32
        ) {
            let flags = if kernel { 0x0020_8040 } else { 0x0040_0100 };
            let line = format!(
                "7 ({name}) Z 1 6 {session} 0 -1 {flags} 0 0 0 0 0 0 0 0 0 0 0 0 {start} 0 0 0 5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 \
                 0 0 0 0 {code}\n"
            );
            let stat = Stat::parse(&line);
            let read = Stat {
                state: 'Z', parent: 1, session, kernel, start_time: start, program: 5, exit_code: code
            };
            prop_assert_eq!(stat, Some(read));
        }

        #[test]
        fn garbage_is_no_stat(text in "\\PC{0,200}") {
            prop_assert_eq!(Stat::parse(&text.replace(')', "")), None);
            let _ = Stat::parse(&text);
        }
    }
}
