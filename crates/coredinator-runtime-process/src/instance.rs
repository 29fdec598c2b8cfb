//! One running instance, and the task that waits for its end.

use std::{
    collections::HashSet,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{Exit, InstanceId, InstanceRef, ServiceName, Started, StopRequest, Timestamp};
use rustix::process::Signal;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::Instant,
};
use tracing::warn;

use crate::{
    handle::Handle,
    pidfd::{Ended, PidFd},
    shared::Shared,
};

/// How long what has been killed may take to vanish: only a process stuck in the kernel takes longer than moments.
pub(crate) const VANISH: Duration = Duration::from_secs(10);

/// How long the parent of an adopted instance may take to reap it before its exit code counts as unknown.
const REAP: Duration = Duration::from_millis(500);

/// A running instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) service: ServiceName,
    pub(crate) replica: u32,
    pub(crate) handle: Handle,
    pub(crate) started_at: Timestamp,
    fd: PidFd,
    end: watch::Sender<Option<Exit>>,
    asked: Mutex<Asked>,
}

/// What a stop has asked for so far.
#[derive(Debug, Default, Clone, Copy)]
struct Asked {
    killed: bool,
    /// Until when what outlives the leader is left alone: the grace is everybody's.
    until: Option<Instant>,
}

/// The leader's descriptor, as the reactor wants it.
#[derive(Debug)]
pub(crate) struct Watched(Arc<Instance>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

impl Instance {
    pub(crate) fn new(
        id: InstanceId,
        service: ServiceName,
        replica: u32,
        handle: Handle,
        started_at: Timestamp,
        fd: PidFd,
    ) -> Self {
        let end = watch::Sender::new(None);
        Self { id, service, replica, handle, started_at, fd, end, asked: Mutex::default() }
    }

    pub(crate) fn to_started(&self) -> Started {
        Started {
            instance: InstanceRef {
                id: self.id.clone(),
                service: self.service.clone(),
                replica: self.replica,
                handle: Some(self.handle.to_json()),
            },
            pid: u32::try_from(self.handle.pid).ok(),
            host: self.handle.host.clone(),
            port: self.handle.port,
            started_at: self.started_at,
            running: true,
        }
    }

    /// Whether its leader lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.fd.is_alive()
    }

    /// Registers with the reactor of the current tokio runtime.
    pub(crate) fn watched(self: &Arc<Self>) -> std::io::Result<AsyncFd<Watched>> {
        #[expect(unsafe_code, reason = "tokio leaves it to the caller that the descriptor stays open and the same")]
        // SAFETY: the instance owns the descriptor, never replaces it, and lives as long as the `Arc` in `Watched`.
        let watched = unsafe { AsyncFd::register_with_interest(Watched(Arc::clone(self)), Interest::READABLE) };
        Ok(watched?)
    }

    /// Its end, once nothing of it is left.
    pub(crate) async fn ended(&self) -> Exit {
        let mut end = self.end.subscribe();
        loop {
            if let Some(exit) = end.borrow_and_update().clone() {
                return exit;
            }
            // `self` holds the sender: this cannot fail.
            let _ = end.changed().await;
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the whole group to end, and kills what is there when the grace is over.
    ///
    /// Answers whether everything is gone.
    pub(crate) async fn stop(&self, how: StopRequest) -> bool {
        if how.signal != coredinator_core::Signal::Kill && !how.grace.is_zero() {
            let deadline = Instant::now() + how.grace;
            {
                let mut asked = self.asked();
                asked.until = Some(asked.until.map_or(deadline, |until| until.min(deadline)));
            }
            self.signal(number(how.signal));
            // What is stopped cannot heed a signal.
            self.signal(Signal::CONT);
            if tokio::time::timeout(how.grace, self.ended()).await.is_ok() {
                return true;
            }
        }
        *self.asked() = Asked { killed: true, until: Some(Instant::now()) };
        self.signal(Signal::KILL);
        tokio::time::timeout(VANISH, self.ended()).await.is_ok()
    }

    /// Sends its leader a signal.
    pub(crate) fn send(&self, signal: coredinator_core::Signal) {
        // It may end at any moment, which is told by its end.
        if let Err(error) = self.fd.signal(number(signal))
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            warn!(instance = %self.id, %error, "cannot signal the process");
        }
    }

    fn signal(&self, signal: Signal) {
        // It may end at any moment; that there is nobody left is what a stop wants.
        if let Err(error) = self.fd.signal_group(signal)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            warn!(instance = %self.id, %error, "cannot signal the process group");
        }
    }

    /// Waits for the leader's end, ends what it leaves behind, and only then tells.
    pub(crate) async fn keep(self: Arc<Self>, leader: AsyncFd<Watched>, shared: Arc<Shared>) {
        let (ended, held) = loop {
            // Fails only when the reactor shuts down, and this task with it.
            let Ok(mut ready) = leader.readable().await else { return };
            match self.fd.peek_child() {
                Ok(Some(ended)) => break (Some(ended), true),
                Ok(None) => ready.clear_ready(),
                Err(_) if self.fd.is_alive() => ready.clear_ready(),
                // Not a child of this process, or reaped behind its back.
                Err(_) => break (self.fd.exit_of_stranger(self.handle.start_time), false),
            }
        };
        drop(leader);
        let at = shared.clock.now();
        let oom_killed =
            ended.is_some_and(|ended| ended.signal == Some(libc::SIGKILL)) && !self.asked().killed && shared.oom.rose();
        self.end_remains(&shared, held).await;
        let ended = match ended {
            Some(ended) => ended,
            None => self.await_exit().await,
        };
        if held {
            // Its number may be another's from here on.
            let _ = self.fd.reap_child();
        }
        let exit = Exit { code: ended.code, signal: ended.signal, oom_killed, why: None, at };
        shared.forget_instance(&self, &exit);
        self.end.send_replace(Some(exit));
    }

    /// The exit code of an adopted instance comes when its parent, usually init, has reaped it.
    async fn await_exit(&self) -> Ended {
        let deadline = Instant::now() + REAP;
        loop {
            match self.fd.exit_of_stranger(self.handle.start_time) {
                Some(ended) => return ended,
                None if Instant::now() >= deadline => return Ended::default(),
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Kills whoever outlives the leader, after the grace of a stop under way, and waits until nobody is left.
    async fn end_remains(self: &Arc<Self>, shared: &Arc<Shared>, held: bool) {
        let mut pause = Duration::from_millis(1);
        let mut deadline = None;
        loop {
            let until = self.asked().until;
            let lenient = until.is_some_and(|until| Instant::now() < until);
            if !lenient {
                self.signal(Signal::KILL);
            }
            let remains = self.remains(shared, held).await;
            if remains.as_ref().is_ok_and(Vec::is_empty) {
                return;
            }
            if !lenient {
                let now = Instant::now();
                let late = now >= *deadline.get_or_insert(now + VANISH);
                match remains {
                    Ok(remains) if late => {
                        warn!(instance = %self.id, count = remains.len(), "processes of an instance survive SIGKILL");
                        return;
                    }
                    Err(error) if late => {
                        warn!(instance = %self.id, %error, "cannot look for what an instance left behind");
                        return;
                    }
                    Ok(remains) => remains.iter().for_each(|fd| drop(fd.signal(Signal::KILL))),
                    // It may be want of descriptors, which passes.
                    Err(_) => {}
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    async fn remains(self: &Arc<Self>, shared: &Arc<Shared>, held: bool) -> std::io::Result<Vec<PidFd>> {
        let (instance, shared) = (Arc::clone(self), Arc::clone(shared));
        let turn = shared.turn().await;
        let look = move || {
            let _turn = turn;
            let busy: HashSet<i32> = shared.sessions_but(instance.handle.pid);
            shared.census.remains(&instance.id, instance.fd.pid(), held, &busy)
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

fn number(signal: coredinator_core::Signal) -> Signal {
    use coredinator_core::Signal as Named;
    match signal {
        Named::Hup => Signal::HUP,
        Named::Int => Signal::INT,
        Named::Quit => Signal::QUIT,
        Named::Kill => Signal::KILL,
        Named::Usr1 => Signal::USR1,
        Named::Usr2 => Signal::USR2,
        Named::Term => Signal::TERM,
        Named::Winch => Signal::WINCH,
    }
}
