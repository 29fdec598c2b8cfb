//! All that a store holds, as one file that any back end can be filled from.
//!
//! A line of JSON each: a head, records, changes, leases, and a foot with the SHA-256 of everything before it. So a file that
//! was cut, or changed by a bit, is found out before anything is written.

use std::io::{self, BufRead, Write};

use coredinator_core::{Change, Epoch, Key, Lease, Record, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of the format.
const FORMAT: u32 = 1;

/// The longest line that is read, in bytes: a batch of the largest values, each byte written as two digits.
const LONGEST_LINE: u64 = 160 << 20;

/// All that a store holds, as it stood at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest from which a watch can start.
    pub compacted: Revision,
    /// The records, in the order of their keys.
    pub records: Vec<Record>,
    /// The changes after `compacted`, in the order of their revisions.
    pub changes: Vec<Change>,
    /// The leases, so that epochs never fall.
    pub leases: Vec<Lease>,
}

/// Why a file is no backup that can be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It cannot be read or written.
    #[error("it cannot be read or written")]
    Io(#[from] io::Error),
    /// It is not what `write_to` wrote.
    #[error("line {line}: {message}")]
    Damaged {
        /// Where.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A newer coredinator wrote it.
    #[error("it is of format {0}, but this coredinator knows formats up to {FORMAT}")]
    Newer(u32),
}

#[derive(Serialize, Deserialize)]
struct Head {
    coredinator_backup: u32,
    revision: Revision,
    compacted: Revision,
    records: usize,
    changes: usize,
    leases: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Record { key: Key, revision: Revision, value: Value },
    Change { revision: Revision, entries: Vec<(Key, Option<Value>)> },
    Lease { name: String, holder: Option<String>, epoch: Epoch, expires_at: Timestamp },
    Sha256(String),
}

/// Bytes as text where they are some, so that people can read a backup.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Value {
    Text(String),
    Hex(String),
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex(bytes)),
        }
    }
}

impl Value {
    fn into_bytes(self) -> Result<Vec<u8>, String> {
        let digits = match self {
            Self::Text(text) => return Ok(text.into_bytes()),
            Self::Hex(digits) => digits,
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(|| "hex has digits 0 to f".to_owned());
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| match *pair {
                [high, low] => Ok((digit(high)? * 16 + digit(low)?) as u8),
                _ => Err("hex has two digits a byte".to_owned()),
            })
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Snapshot {
    /// Writes it out, and answers the checksum.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_to(&self, writer: impl Write) -> io::Result<String> {
        let mut out = Hashing { writer, hash: Sha256::new() };
        let head = Head {
            coredinator_backup: FORMAT,
            revision: self.revision,
            compacted: self.compacted,
            records: self.records.len(),
            changes: self.changes.len(),
            leases: self.leases.len(),
        };
        out.line(&head)?;
        for Record { key, value, revision } in &self.records {
            out.line(&Line::Record { key: key.clone(), revision: *revision, value: value.as_slice().into() })?;
        }
        for Change { revision, entries } in &self.changes {
            let entries = entries.iter().map(|(key, value)| (key.clone(), value.as_deref().map(Value::from)));
            out.line(&Line::Change { revision: *revision, entries: entries.collect() })?;
        }
        for Lease { name, holder, epoch, expires_at } in self.leases.clone() {
            out.line(&Line::Lease { name, holder, epoch, expires_at })?;
        }
        let checksum = hex(&out.hash.clone().finalize());
        out.line(&Line::Sha256(checksum.clone()))?;
        out.writer.flush()?;
        Ok(checksum)
    }

    /// Reads what [`write_to`](Self::write_to) wrote, and checks it to the last byte.
    ///
    /// # Errors
    /// [`SnapshotError`], with the line.
    pub fn read_from(mut reader: impl BufRead) -> Result<Self, SnapshotError> {
        let mut hash = Sha256::new();
        let mut number = 0;
        let mut next = |hash: &mut Sha256| -> Result<(usize, Vec<u8>, String), SnapshotError> {
            number += 1;
            let before = hex(&hash.clone().finalize());
            let mut line = Vec::new();
            io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Err(damaged(number, "the file ends within a line, or before its end: it was cut"));
            }
            hash.update(&line);
            Ok((number, line, before))
        };
        let (line, bytes, _) = next(&mut hash)?;
        let head: Head = serde_json::from_slice(&bytes).map_err(|error| match version(&bytes) {
            Some(version) if version > FORMAT => SnapshotError::Newer(version),
            _ => damaged(line, &format!("this is no backup of coredinator: {error}")),
        })?;
        if head.coredinator_backup != FORMAT {
            return Err(SnapshotError::Newer(head.coredinator_backup));
        }
        let mut read = Self { revision: head.revision, compacted: head.compacted, ..Self::default() };
        loop {
            let (line, bytes, checksum) = next(&mut hash)?;
            let wrong = |message: String| damaged(line, &message);
            match serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))? {
                Line::Record { key, revision, value } => {
                    read.records.push(Record { key, revision, value: value.into_bytes().map_err(wrong)? });
                }
                Line::Change { revision, entries } => {
                    let bytes = |value: Option<Value>| value.map(Value::into_bytes).transpose();
                    let entries = entries.into_iter().map(|(key, value)| Ok((key, bytes(value)?)));
                    let entries = entries.collect::<Result<_, String>>().map_err(wrong)?;
                    read.changes.push(Change { revision, entries });
                }
                Line::Lease { name, holder, epoch, expires_at } => {
                    read.leases.push(Lease { name, holder, epoch, expires_at });
                }
                Line::Sha256(told) if told == checksum => break,
                Line::Sha256(_) => return Err(wrong("the checksum does not match: the file was changed".to_owned())),
            }
        }
        if (read.records.len(), read.changes.len(), read.leases.len()) != (head.records, head.changes, head.leases) {
            return Err(damaged(1, "it holds more or less than it says"));
        }
        Ok(read)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revision == Revision::ZERO && self.records.is_empty()
    }

    /// The leases that are held at this time: signs of a coredinator that is running.
    pub fn held(&self, now: Timestamp) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| lease.holder.is_some() && lease.expires_at > now)
    }
}

fn version(head: &[u8]) -> Option<u32> {
    let head: serde_json::Value = serde_json::from_slice(head).ok()?;
    head.get("coredinator_backup")?.as_u64().and_then(|version| u32::try_from(version).ok())
}

fn damaged(line: usize, message: &str) -> SnapshotError {
    SnapshotError::Damaged { line, message: message.to_owned() }
}

struct Hashing<W> {
    writer: W,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.writer.write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot() -> Snapshot {
        let key = |text: &str| Key::new(text).unwrap();
        Snapshot {
            revision: Revision(7),
            compacted: Revision(5),
            records: vec![
                Record { key: key("a"), value: b"{\"x\":1}\n".to_vec(), revision: Revision(2) },
                Record { key: key("b"), value: vec![0, 255], revision: Revision(7) },
            ],
            changes: vec![
                Change { revision: Revision(6), entries: vec![(key("c"), None), (key("d"), Some(Vec::new()))] },
                Change { revision: Revision(7), entries: vec![(key("b"), Some(vec![0, 255]))] },
            ],
            leases: vec![Lease {
                name: "leader".to_owned(),
                holder: None,
                epoch: Epoch(3),
                expires_at: Timestamp::UNIX_EPOCH,
            }],
        }
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        snapshot().write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Snapshot::read_from(written().as_slice()).unwrap(), snapshot());
    }

    #[test]
    fn a_newer_format_is_told_apart() {
        let newer = b"{\"coredinator_backup\":9}\n".as_slice();
        assert!(matches!(Snapshot::read_from(newer), Err(SnapshotError::Newer(9))));
    }

    proptest! {
        #[test]
        fn whatever_is_cut_or_changed_is_found(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = written();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                prop_assume!(bytes[at] != to);
                bytes[at] = to;
            }
            prop_assert!(Snapshot::read_from(bytes.as_slice()).is_err());
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Snapshot::read_from(bytes.as_slice()).is_err());
        }
    }
}
