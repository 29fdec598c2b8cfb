//! Several writes as one transaction: who waits, what they ask, and the verdict on each in turn. Shared by the back ends
//! that write to a disk.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use coredinator_core::{Batch, Change, Key, Lease, LeaseOperation, Revision, StoreError, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::judge::{self, View};

/// How many requests, and bytes of values, one transaction gathers at most: so that none waits long for the others.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 8 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a writer is asked to do.
pub(super) enum Command {
    Write {
        batch: Batch,
        reply: Reply<Revision>,
    },
    Lease {
        name: String,
        holder: String,
        operation: LeaseOperation,
        reply: Reply<Lease>,
    },
    /// Forgets one step; answers how far it is, and the newest revision.
    Compact {
        up_to: Revision,
        reply: Reply<(Revision, Revision)>,
    },
    /// Answers how long a round trip took.
    Check {
        reply: Reply<Duration>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// A member of a group, and who waits for its answer.
pub(super) enum Waiting {
    Write(Batch, Reply<Revision>),
    Lease { name: String, holder: String, operation: LeaseOperation, reply: Reply<Lease> },
}

impl Waiting {
    pub(super) fn request(&self) -> Request<'_> {
        match self {
            Self::Write(batch, _) => Request::Write(batch),
            Self::Lease { name, holder, operation, .. } => Request::Lease { name, holder, operation: *operation },
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Write(batch, _) => {
                batch.operations.iter().filter_map(|operation| operation.value.as_ref()).map(Vec::len).sum()
            }
            Self::Lease { .. } => 0,
        }
    }

    fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Write(_, reply), Answer::Write(answer)) => drop(reply.send(answer)),
            (Self::Lease { reply, .. }, Answer::Lease(answer)) => drop(reply.send(answer)),
            // Answers are made in the order of the requests, so this does not happen; dropping the reply tells the caller.
            _ => {}
        }
    }

    pub(super) fn refuse(self, error: StoreError) {
        match self {
            Self::Write(_, reply) => drop(reply.send(Err(error))),
            Self::Lease { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Whether nobody waits for the answer any more.
    #[cfg(feature = "postgres")]
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Write(_, reply) => reply.is_closed(),
            Self::Lease { reply, .. } => reply.is_closed(),
        }
    }
}

/// Gathers whatever else waits with the first, within bounds; the second is the command that did not belong with them.
pub(super) fn gather(first: Waiting, inbox: &mut mpsc::Receiver<Command>) -> (Vec<Waiting>, Option<Command>) {
    let mut bytes = first.size();
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        let waiting = match inbox.try_recv() {
            Ok(Command::Write { batch, reply }) => Waiting::Write(batch, reply),
            Ok(Command::Lease { name, holder, operation, reply }) => Waiting::Lease { name, holder, operation, reply },
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        };
        bytes += waiting.size();
        group.push(waiting);
    }
    (group, None)
}

/// Gives each its own answer.
pub(super) fn answer_all(group: Vec<Waiting>, answers: Vec<Answer>) {
    for (waiting, answer) in group.into_iter().zip(answers) {
        waiting.answer(answer);
    }
}

/// One member of a group.
pub(super) enum Request<'a> {
    Write(&'a Batch),
    Lease { name: &'a str, holder: &'a str, operation: LeaseOperation },
}

/// What one member of a group is answered.
pub(super) enum Answer {
    Write(Result<Revision, StoreError>),
    Lease(Result<Lease, StoreError>),
}

/// The keys and the leases that the verdicts on a group depend on.
pub(super) fn concerned<'a>(requests: &[Request<'a>]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut keys, mut names) = (Vec::new(), Vec::new());
    for request in requests {
        match *request {
            Request::Write(batch) => {
                keys.extend(batch.operations.iter().map(|operation| operation.key.as_str()));
                names.extend(batch.fence.iter().map(|fence| fence.lease.as_str()));
            }
            Request::Lease { name, .. } => names.push(name),
        }
    }
    (keys, names)
}

/// What the verdicts depend on, kept up to date as the group goes on.
#[derive(Default)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) records: HashMap<Key, Revision>,
    pub(super) leases: HashMap<String, Lease>,
    /// What the group changed.
    pub(super) changes: Vec<Change>,
    /// The leases that the group changed, by name.
    pub(super) granted: BTreeMap<String, Lease>,
}

impl View for State {
    fn revision(&self) -> Revision {
        self.revision
    }
    fn at(&self, key: &Key) -> Option<Revision> {
        self.records.get(key).copied()
    }
    fn lease(&self, name: &str) -> Option<&Lease> {
        self.leases.get(name)
    }
}

impl State {
    /// The verdict on one member, after those before it.
    pub(super) fn judge(&mut self, request: &Request<'_>, now: Timestamp) -> Answer {
        match *request {
            Request::Write(batch) => Answer::Write(judge::batch(self, batch.clone()).map(|change| self.apply(change))),
            Request::Lease { name, holder, operation } => {
                Answer::Lease(judge::lease(self.leases.get(name), name, holder, operation, now).inspect(|lease| {
                    if operation != LeaseOperation::Inspect {
                        self.leases.insert(name.to_owned(), lease.clone());
                        self.granted.insert(name.to_owned(), lease.clone());
                    }
                }))
            }
        }
    }

    fn apply(&mut self, change: Option<Change>) -> Revision {
        if let Some(change) = change {
            self.revision = change.revision;
            for (key, value) in &change.entries {
                if value.is_some() {
                    self.records.insert(key.clone(), change.revision);
                } else {
                    self.records.remove(key);
                }
            }
            self.changes.push(change);
        }
        self.revision
    }
}
