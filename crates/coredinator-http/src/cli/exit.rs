//! How the program ends: its exit codes, and failures as people are told of them.

use std::{error::Error, io::Write};

/// The exit codes, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// It was done.
    Ok = 0,
    /// It was not done, or what was asked about is not well.
    Failed = 1,
    /// What was asked is not valid: an unknown flag, a wrong file, a body that the server refuses.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// It is not allowed.
    Denied = 4,
    /// Something else is there already, or has changed meanwhile.
    Conflict = 5,
    /// No server answers.
    Unreachable = 6,
    /// It took too long. It may still happen.
    Timeout = 124,
    /// Ctrl-C.
    Interrupted = 130,
}

impl ExitStatus {
    /// The table of `--help`.
    pub const HELP: &str = "\
Exit codes:
  0    done
  1    failed, or what was asked about is not well
  2    not valid: an unknown flag, a wrong file, a body that the server refuses
  3    there is no such thing
  4    not allowed
  5    conflict: something else is there already, or has changed meanwhile
  6    no server answers
  124  it took too long (it may still happen)
  130  interrupted by Ctrl-C";

    /// What an HTTP status that is no success means.
    #[must_use]
    pub fn from_http(status: u16) -> Self {
        match status {
            400 | 405..=407 | 411 | 413..=417 | 422 => Self::Usage,
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            409 | 412 | 428 => Self::Conflict,
            408 | 504 => Self::Timeout,
            _ => Self::Failed,
        }
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: ExitStatus,
    /// What is the matter, in a clause that starts in lower case; empty: nothing is said.
    pub message: String,
    /// One line each: what was wrong in particular, or what lies behind it.
    pub details: Vec<String>,
    /// What to do about it, one line each.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure of one line.
    pub fn new(exit: ExitStatus, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Vec::new(), hints: Vec::new() }
    }

    /// A failure about which nothing has to be said (any more).
    #[must_use]
    pub fn silent(exit: ExitStatus) -> Self {
        Self::new(exit, "")
    }

    /// A failure with the chain of errors behind it, `error` itself included.
    pub fn caused(exit: ExitStatus, message: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut details: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some libraries repeat their cause in their own words.
            if details.last().is_none_or(|last| !last.ends_with(&text)) {
                details.push(text);
            }
            next = error.source();
        }
        Self { details, ..Self::new(exit, message) }
    }

    /// The same failure with one more hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What is told on standard error: nothing, or lines that end with a line end.
    #[must_use]
    pub fn text(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let mut text = format!("error: {}\n", self.message);
        for detail in &self.details {
            text.push_str(&format!("  {}\n", detail.replace('\n', "\n  ")));
        }
        for hint in &self.hints {
            text.push_str(&format!("hint: {hint}\n"));
        }
        text
    }

    /// Tells it on standard error.
    pub fn tell(&self) {
        // Where standard error is gone there is nobody left to tell.
        let _ = std::io::stderr().write_all(super::paint::clean_lines(&self.text()).as_bytes());
    }
}

impl From<std::io::Error> for Failure {
    /// A failure to write to standard output; a reader that went away is none that anybody has to be told of.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::silent(ExitStatus::Ok),
            _ => Self::caused(ExitStatus::Failed, "cannot write to standard output", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_statuses() {
        for (status, exit) in [
            (400, 2),
            (422, 2),
            (413, 2),
            (401, 4),
            (403, 4),
            (404, 3),
            (410, 3),
            (409, 5),
            (412, 5),
            (408, 124),
            (504, 124),
            (500, 1),
            (503, 1),
            (429, 1),
        ] {
            assert_eq!(ExitStatus::from_http(status) as u8, exit, "{status}");
        }
    }

    #[test]
    fn help_names_every_code() {
        for code in [0, 1, 2, 3, 4, 5, 6, 124, 130] {
            assert!(ExitStatus::HELP.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{code}");
        }
    }

    #[test]
    fn what_people_read() {
        let io = std::io::Error::other("connection refused");
        let failure = Failure::caused(ExitStatus::Unreachable, "no answer", &io).hint("start it");
        assert_eq!(failure.text(), "error: no answer\n  connection refused\nhint: start it\n");
        assert_eq!(Failure::silent(ExitStatus::Ok).text(), "");
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(gone), Failure::silent(ExitStatus::Ok));
    }
}
