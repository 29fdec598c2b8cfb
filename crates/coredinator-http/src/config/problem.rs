//! What is wrong with a configuration, told so that it can be mended.

use std::{fmt, io, path::PathBuf};

use super::document::Position;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file said it.
    File {
        /// The file, as it was named.
        file: String,
        /// Where in it, if it has one place.
        position: Option<Position>,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// A command-line flag, by its name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, position: Some(position) } => write!(f, "{file}:{position}"),
            Self::File { file, position: None } => f.write_str(file),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong (an error) or doubtful (a warning).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was said.
    pub origin: Origin,
    /// JSON pointer of the value; empty where it is about the text as a whole.
    pub pointer: String,
    /// What is wrong, in a clause that starts in lower case.
    pub detail: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The line of the file, if it can be shown.
    pub excerpt: Option<String>,
}

impl Problem {
    /// The longest detail that is told, in characters: a value may be repeated in it.
    const MAX_DETAIL: usize = 400;

    /// A problem without an excerpt.
    pub fn new(origin: Origin, pointer: impl Into<String>, detail: impl Into<String>, hint: Option<String>) -> Self {
        let detail: String = detail.into();
        let detail = match detail.char_indices().nth(Self::MAX_DETAIL) {
            Some((cut, _)) => format!("{}…", &detail[..cut]),
            None => detail,
        };
        Self { origin, pointer: pointer.into(), detail, hint, excerpt: None }
    }

    /// The pointer as people write it: `coredinator.services.corerl.port`.
    #[must_use]
    pub fn path(&self) -> String {
        let tokens = self.pointer.split('/').skip(1);
        tokens.map(|token| token.replace("~1", "/").replace("~0", "~")).collect::<Vec<_>>().join(".")
    }
}

impl Problem {
    /// Where in its file it is, if it is in one and has a place there.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match &self.origin {
            Origin::File { position, .. } => *position,
            Origin::Default | Origin::Environment(_) | Origin::Flag(_) => None,
        }
    }
}

impl fmt::Display for Problem {
    /// One line, then the excerpt and the hint on lines of their own, indented; no line end at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.path())?;
        }
        f.write_str(&self.detail)?;
        if let (Some(line), Origin::File { position: Some(at), .. }) = (&self.excerpt, &self.origin) {
            let margin = at.line.to_string();
            let blank = " ".repeat(margin.len());
            write!(f, "\n  {margin} | {line}\n  {blank} | {}^", " ".repeat(at.column.saturating_sub(1)))?;
        }
        self.hint.iter().try_for_each(|hint| write!(f, "\n  hint: {hint}"))
    }
}

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was read is not a configuration; never empty.
    #[error("{}", summary(.0))]
    Invalid(Vec<Problem>),
}

impl LoadError {
    /// Whether the same call may succeed later, unchanged: never, somebody has to mend something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// What is wrong, one by one; empty where the file could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

fn summary(problems: &[Problem]) -> String {
    match problems {
        [one] => format!("the configuration has an error: {one}"),
        many => format!("the configuration has {} errors", many.len()),
    }
}
