//! Where a command's words go: data to standard output, the rest to standard error.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde_json::Value;

use super::{Failure, paint};
use crate::config::yaml;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON, as the API has it.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names, one a line.
    Name,
}

/// Writes for one command.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// How data is written.
    pub format: Format,
    /// Whether standard output shows colours.
    colours: bool,
    /// Whether standard error shows colours.
    stderr_colours: bool,
    quiet: bool,
}

impl Output {
    /// For this process: colours where there is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn new(format: Format, no_colour: bool, quiet: bool) -> Self {
        let wanted = !no_colour && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            colours: wanted && !dumb && std::io::stdout().is_terminal(),
            stderr_colours: wanted && !dumb && std::io::stderr().is_terminal(),
            quiet,
        }
    }

    /// Writes a marked text to standard output, at once.
    ///
    /// # Errors
    /// A failure to write; where the reader has gone away, a silent one.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(paint::finish(text, self.colours).as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Writes data: as JSON or YAML, as `name` says, or as the table that `render` makes (`true`: a wide one).
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn data(&self, value: &Value, names: &[&str], render: impl FnOnce(bool) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.text(&render(false)),
            Format::Wide => self.text(&render(true)),
            Format::Json => self.text(&format!("{value:#}\n")),
            Format::Yaml => self.text(&yaml::write(value)),
            Format::Name => {
                self.text(&names.iter().map(|name| format!("{}\n", paint::clean(name))).collect::<String>())
            }
        }
    }

    /// Writes one element of a stream: a line of JSON, a YAML document, or the line that `render` makes.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn item(&self, value: &Value, render: impl FnOnce(bool) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.text(&format!("{value}\n")),
            Format::Yaml => self.text(&format!("---\n{}", yaml::write(value))),
            Format::Table | Format::Name => self.text(&render(false)),
            Format::Wide => self.text(&render(true)),
        }
    }

    /// Tells of progress on standard error, unless it is to be quiet. Marked text, one line.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Tells something on standard error. Marked text, one line or more.
    pub fn warn(&self, text: &str) {
        let text = format!("{}\n", paint::finish(text, self.stderr_colours));
        // Where standard error is gone there is nobody left to tell.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
