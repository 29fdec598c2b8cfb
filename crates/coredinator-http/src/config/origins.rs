//! Where each value of a configuration comes from.

use coredinator_core::FieldError;

use super::{
    Origin, Problem,
    document::Document,
    settings::{self, Merged},
    text::Text,
};

/// Where coredinator's section stands in the document.
pub(super) const SECTION: &str = "/coredinator";

#[derive(Debug)]
pub(super) struct Origins {
    pub(super) merged: Merged,
    pub(super) document: Option<Document>,
    pub(super) text: Option<Text>,
}

impl Origins {
    pub(super) fn of(&self, pointer: &str) -> Origin {
        let relative = pointer.strip_prefix(SECTION).and_then(|rest| rest.strip_prefix('/'));
        let first = relative.and_then(|relative| relative.split('/').next()).unwrap_or_default();
        if settings::KEYS.contains(&first) {
            return match self.merged.origin(relative.unwrap_or_default()) {
                Origin::File { .. } => self.in_file(pointer),
                other => other,
            };
        }
        if self.document.as_ref().is_some_and(|document| document.says(pointer)) {
            return self.in_file(pointer);
        }
        // What a service leaves open in its health check is as the global section says.
        match pointer.split("/health_check/").nth(1).filter(|_| first == "services") {
            Some(key) => self.of(&format!("{SECTION}/health_check/{key}")),
            None => Origin::Default,
        }
    }

    pub(super) fn in_file(&self, pointer: &str) -> Origin {
        Origin::File {
            file: self.text.as_ref().map(|text| text.name.clone()).unwrap_or_default(),
            position: self.document.as_ref().and_then(|document| document.position(pointer)),
        }
    }

    /// An error with the place where its cause stands: the value's own origin, or the file for what is missing in it.
    pub(super) fn problem(&self, error: FieldError) -> Problem {
        let origin = match self.of(&error.pointer) {
            Origin::Default if self.text.is_some() => self.in_file(&error.pointer),
            origin => origin,
        };
        let secret = error.pointer.ends_with("/database_url");
        let mut problem = Problem::new(origin, error.pointer, error.detail, error.hint);
        if let (Origin::File { position: Some(at), .. }, Some(text), false) = (&problem.origin, &self.text, secret) {
            problem.excerpt = text.line(*at);
        }
        problem
    }
}
