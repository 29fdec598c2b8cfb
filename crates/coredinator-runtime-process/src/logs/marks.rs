//! When a log had which size: what gives lines their time.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use coredinator_core::Timestamp;

/// At `millis` the log was `offset` bytes long: what stands before was written by then, what follows later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: u64,
    pub(super) millis: i64,
}

impl Mark {
    pub(super) fn new(offset: u64, at: Timestamp) -> Self {
        Self { offset, millis: at.as_millisecond() }
    }
}

/// The file of marks that belongs to a file of output.
pub(super) fn path_for(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".marks");
    name.into()
}

/// Adds a mark to those of `log`.
pub(super) fn append(log: &Path, mark: Mark) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path_for(log))?;
    file.write_all(format!("{} {}\n", mark.millis, mark.offset).as_bytes())
}

/// Reads the marks of `log`; lines that are none (a crash tore one) are passed over, and so are steps back.
pub(super) fn load(log: &Path) -> Vec<Mark> {
    let text = fs::read_to_string(path_for(log)).unwrap_or_default();
    let mut marks: Vec<Mark> = Vec::new();
    for line in text.lines() {
        let mark = line
            .split_once(' ')
            .and_then(|(millis, offset)| Some(Mark { millis: millis.parse().ok()?, offset: offset.parse().ok()? }));
        marks.extend(mark.filter(|mark| marks.last().is_none_or(|last| last.offset <= mark.offset)));
    }
    marks
}

/// Follows a rotation: the marks of the first `cut` bytes of `log` go to `rotated`, the others stay and count from there.
pub(super) fn split(log: &Path, rotated: Option<&Path>, cut: u64) -> io::Result<()> {
    let (before, after): (Vec<Mark>, Vec<Mark>) = load(log).into_iter().partition(|mark| mark.offset <= cut);
    let after = after.into_iter().map(|mark| Mark { offset: mark.offset - cut, ..mark });
    if let Some(rotated) = rotated {
        fs::write(path_for(rotated), render(before.into_iter()))?;
    }
    fs::write(path_for(log), render(after))
}

fn render(marks: impl Iterator<Item = Mark>) -> String {
    marks.map(|mark| format!("{} {}\n", mark.millis, mark.offset)).collect()
}
