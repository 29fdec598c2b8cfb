//! The text of a file, and where in it something is.

use std::path::{Path, PathBuf};

use coredinator_core::FieldError;

use super::{
    LoadError, Origin, Problem,
    document::{Document, Fault, MAX_BYTES, Position},
};

/// Where the file's text comes from.
#[derive(Debug, Clone, Default)]
pub enum Input {
    /// There is no file.
    #[default]
    None,
    /// A file.
    Path(PathBuf),
    /// A text that is there already, such as what came by standard input.
    Text {
        /// What it is called in messages.
        name: String,
        /// The text.
        text: Vec<u8>,
        /// The folder to which its paths are relative.
        folder: PathBuf,
    },
}

/// The text of a file.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) name: String,
    text: String,
    folder: PathBuf,
}

impl Text {
    pub(super) fn read(input: &Input) -> Result<Option<Self>, LoadError> {
        let (name, bytes, folder) = match input {
            Input::None => return Ok(None),
            Input::Text { name, text, folder } => (name.clone(), text.clone(), folder.clone()),
            Input::Path(path) => {
                let bytes = read_bounded(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
                (path.display().to_string(), bytes, path.parent().map(Path::to_owned).unwrap_or_default())
            }
        };
        let current = || LoadError::Read {
            path: folder.clone(),
            source: std::io::Error::other("the current directory is not known"),
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let folder = std::path::absolute(folder).map_err(|_| current())?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Self { name, text, folder })),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
                let column = 1 + String::from_utf8_lossy(good).chars().rev().take_while(|&c| c != '\n').count();
                let origin = Origin::File { file: name, position: Some(Position { line, column }) };
                let hint = Some("save the file as UTF-8".to_owned());
                Err(LoadError::Invalid(vec![Problem::new(origin, "", "this byte is not UTF-8", hint)]))
            }
        }
    }

    pub(super) fn parse(&self, environment: &[(String, String)]) -> Result<Document, LoadError> {
        let lookup = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Document::parse(&self.text, &lookup)
            .map_err(|faults| LoadError::Invalid(faults.into_iter().map(|fault| self.fault(fault)).collect()))
    }

    fn fault(&self, fault: Fault) -> Problem {
        let origin = Origin::File { file: self.name.clone(), position: Some(fault.position) };
        let mut problem = Problem::new(origin, "", fault.detail, fault.hint);
        problem.excerpt = self.line(fault.position);
        problem
    }

    /// The folder to which its paths are relative; absolute.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// An error about a value of `document`, which this text is, with its place.
    pub(super) fn problem(&self, document: &Document, error: FieldError) -> Problem {
        let position = document.position(&error.pointer);
        let origin = Origin::File { file: self.name.clone(), position };
        let mut problem = Problem::new(origin, error.pointer, error.detail, error.hint);
        problem.excerpt = position.and_then(|at| self.line(at));
        problem
    }

    /// A line, if it is short enough for the mark under it to be of use.
    pub(super) fn line(&self, at: Position) -> Option<String> {
        let line = self.text.lines().nth(at.line.checked_sub(1)?)?;
        let shown: String = line.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect();
        (at.column <= 160).then_some(shown)
    }
}

/// Reads no more than what is refused for its size anyway.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
