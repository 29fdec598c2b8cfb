//! One stream of one replica: the file it is written to, and those it was rotated to.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use coredinator_core::{LogRetention, Timestamp};
use rustix::fs::FallocateFlags;

use super::marks::{self, Mark};

/// A stream's files, seen as one run of bytes. Positions count from the beginning of the oldest file at the time of the first
/// look, and stay valid when files are rotated.
#[derive(Debug)]
pub(super) struct StreamFile {
    path: PathBuf,
    /// Held while files are moved and while they are read, so that a reader never sees half a rotation.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The position of the current file's first byte, once it is known.
    base: Option<u64>,
    /// The current file's length when it was last marked.
    marked: Option<u64>,
}

/// A file and the position of its first byte.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    start: u64,
    length: u64,
}

impl StreamFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the `n`th rotated file, 1 the newest.
    fn rotated(&self, n: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        name.into()
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All files, oldest first.
    fn segments(&self, state: &mut State) -> Vec<Segment> {
        let length = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
        let rotated: Vec<(PathBuf, u64)> = (1..)
            .map_while(|n| {
                let path = self.rotated(n);
                length(&path).map(|length| (path, length))
            })
            .collect();
        let total = rotated.iter().map(|(_, length)| length).sum();
        let base = *state.base.get_or_insert(total);
        let mut segments = Vec::with_capacity(rotated.len() + 1);
        segments.extend(length(&self.path).map(|length| Segment { path: self.path.clone(), start: base, length }));
        let mut start = base;
        for (path, length) in rotated {
            start = start.saturating_sub(length);
            segments.push(Segment { path, start, length });
        }
        segments.reverse();
        segments
    }

    /// The positions of the oldest byte that is kept and of the end.
    pub(super) fn range(&self) -> (u64, u64) {
        self.with_state(|state| {
            let segments = self.segments(state);
            let start = segments.first().map_or(0, |segment| segment.start);
            (start, segments.last().map_or(start, |segment| segment.start + segment.length))
        })
    }

    /// Reads what stands at `position`, up to `buffer`'s length; answers where that really begins (further on if it is no
    /// longer kept, earlier if the file was replaced by a shorter one) and how much it is.
    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<(u64, usize)> {
        self.with_state(|state| {
            let segments = self.segments(state);
            let Some(last) = segments.last() else { return Ok((position, 0)) };
            let mut position = position;
            if position > last.start + last.length {
                position = last.start;
            }
            let Some(segment) = segments.iter().find(|s| position < s.start + s.length) else {
                return Ok((position, 0));
            };
            position = position.max(segment.start);
            let read = File::open(&segment.path)?.read_at(buffer, position - segment.start)?;
            Ok((position, read))
        })
    }

    /// All marks, by position.
    pub(super) fn marks(&self) -> Vec<Mark> {
        self.with_state(|state| {
            let segments = self.segments(state);
            let of = |s: &Segment| {
                let start = s.start;
                marks::load(&s.path).into_iter().map(move |mark| Mark { offset: mark.offset + start, ..mark })
            };
            segments.iter().flat_map(of).collect()
        })
    }

    /// Marks growth and rotates what has grown too large.
    pub(super) fn sweep(&self, retention: LogRetention, now: Timestamp) -> io::Result<()> {
        self.with_state(|state| {
            let length = match fs::metadata(&self.path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            if state.marked != Some(length) {
                marks::append(&self.path, Mark::new(length, now))?;
                state.marked = Some(length);
            }
            if length >= retention.max_size { self.rotate(state, retention.max_files) } else { Ok(()) }
        })
    }

    /// Moves the current file's content to a file of its own without touching the file itself, which the instance holds open.
    ///
    /// The kernel cuts the copied bytes off the file's front while the instance goes on writing (`FALLOC_FL_COLLAPSE_RANGE`:
    /// ext4, XFS): not a byte is lost, and the cut falls on a block's border. On other file systems the file is copied to its
    /// end and emptied: what is written in the microseconds between is lost. A crash in the middle may leave the copied bytes
    /// in both files, never in neither.
    fn rotate(&self, state: &mut State, max_files: u32) -> io::Result<()> {
        // To know the base now; it cannot be told once files have moved.
        let base = self.segments(state).last().map_or(0, |segment| segment.start);
        let mut current = File::options().read(true).write(true).open(&self.path)?;
        let metadata = current.metadata()?;
        let block = metadata.blksize().max(1);
        let cut = metadata.len().saturating_sub(1) / block * block;
        if cut == 0 {
            return Ok(());
        }
        let keeps = (max_files > 1).then(|| self.rotated(1));
        let copied = self.rotated(0);
        let mut copy = keeps.is_some().then(|| File::create(&copied)).transpose()?;
        if let Some(copy) = &mut copy {
            io::copy(&mut (&mut current).take(cut), copy).inspect_err(|_| drop(fs::remove_file(&copied)))?;
            self.shift(max_files)?;
            fs::rename(&copied, self.rotated(1))?;
        }
        let cut = match rustix::fs::fallocate(&current, FallocateFlags::COLLAPSE_RANGE, 0, cut) {
            Ok(()) => cut,
            Err(_) => empty(&mut current, copy.as_mut(), cut)?,
        };
        state.base = Some(base + cut);
        state.marked = state.marked.map(|marked| marked.saturating_sub(cut));
        marks::split(&self.path, keeps.as_deref(), cut)
    }

    /// Makes room for a new first rotated file.
    fn shift(&self, max_files: u32) -> io::Result<()> {
        let there = (1..).take_while(|&n| self.rotated(n).exists()).last().unwrap_or(0);
        for n in (1..=there).rev() {
            let (from, to) = (self.rotated(n), self.rotated(n + 1));
            if n + 1 >= max_files {
                fs::remove_file(&from)?;
                let _ = fs::remove_file(marks::path_for(&from));
            } else {
                fs::rename(&from, &to)?;
                // Marks are a convenience: a log without them is still a log.
                let _ = fs::rename(marks::path_for(&from), marks::path_for(&to));
            }
        }
        Ok(())
    }
}

/// Copies what follows `from`, too, until nothing is left to copy, and empties the file. Answers how much it held.
fn empty(current: &mut File, mut copy: Option<&mut File>, from: u64) -> io::Result<u64> {
    let mut position = from;
    loop {
        current.seek(SeekFrom::Start(position))?;
        let more = match &mut copy {
            Some(copy) => io::copy(current, *copy)?,
            None => 0,
        };
        position += more;
        if more == 0 {
            current.set_len(0)?;
            return Ok(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use coredinator_core::{Clock, SystemClock};

    use super::*;

    fn everything(file: &StreamFile) -> Vec<u8> {
        let (mut position, mut all, mut buffer) = (0, Vec::new(), [0; 1000]);
        loop {
            let (start, read) = file.read(position, &mut buffer).unwrap();
            if read == 0 {
                return all;
            }
            all.extend_from_slice(&buffer[..read]);
            position = start + read as u64;
        }
    }

    #[test]
    fn positions_survive_rotation_and_the_oldest_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = StreamFile::new(dir.path().join("0.stdout.log"));
        let retention = LogRetention { max_size: 8192, max_files: 3 };
        let mut writer = File::options().create(true).append(true).open(file.path()).unwrap();
        let mut written = Vec::new();
        let mut before = None;
        for round in 0..12_u8 {
            let block = vec![b'a' + round; 5000];
            writer.write_all(&block).unwrap();
            written.extend(block);
            if round == 2 {
                let mut byte = [0];
                before = Some((file.read(9000, &mut byte).unwrap(), byte));
            }
            file.sweep(retention, SystemClock.now()).unwrap();
            if round == 2 {
                let mut byte = [0];
                assert_eq!(Some((file.read(9000, &mut byte).unwrap(), byte)), before);
            }
        }
        let kept = everything(&file);
        assert!(written.ends_with(&kept) && kept.len() > 8192 && kept.len() < written.len(), "{}", kept.len());
        assert_eq!(file.range().1, written.len() as u64);
        assert!(file.rotated(2).exists() && !file.rotated(3).exists());
        assert!(file.marks().windows(2).all(|pair| pair[0].offset <= pair[1].offset));
        assert_eq!(file.marks().last().unwrap().offset, written.len() as u64);
    }

    #[test]
    fn emptying_copies_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copied) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&path, b"0123456789").unwrap();
        let mut current = File::options().read(true).write(true).open(&path).unwrap();
        let mut copy = File::create(&copied).unwrap();
        copy.write_all(b"0123").unwrap();
        assert_eq!(empty(&mut current, Some(&mut copy), 4).unwrap(), 10);
        assert_eq!((fs::read(&copied).unwrap(), fs::read(&path).unwrap()), (b"0123456789".to_vec(), Vec::new()));
    }
}
