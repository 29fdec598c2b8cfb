//! The validator asked about documents that a change makes others. What is to be asked, and what follows from the answers, is
//! decided purely; [`Registry::judge`] asks.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use coredinator_core::{
    ConfigCandidate, ConfigValidator, ConfigValidatorError, ConfigVerdict, FieldError, ServiceName, ServiceRecord,
    ServiceSpec,
};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::finding::{Finding, told_once};
use crate::registry::{Registry, RegistryError};

/// How many documents are asked about at the same time.
const AT_ONCE: usize = 16;
/// How often it is asked anew because documents have changed while it was asked.
const ROUNDS: u32 = 5;
/// The longest text of a validator's that is handed on, in characters.
const LONGEST: usize = 400;

/// What becomes of a change whose documents cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnreachable {
    /// It is refused.
    #[default]
    Refuse,
    /// It is made, with a warning.
    Accept,
}

/// Who judges documents, and what becomes of a change when nobody does.
#[derive(Clone)]
pub struct ConfigValidation {
    /// Who is asked.
    pub validator: Arc<dyn ConfigValidator>,
    /// How long it may take over all documents of one change.
    pub timeout: Duration,
    /// What becomes of a change that it has not judged by then, or says that it cannot judge.
    pub on_unreachable: OnUnreachable,
}

/// What was said so far while one change is decided.
#[derive(Debug, Default)]
pub(in crate::registry) struct Judged {
    rounds: u32,
    said: HashMap<(ServiceName, Option<u32>), Said>,
}

#[derive(Debug)]
struct Said {
    document: Map<String, Value>,
    result: Result<ConfigVerdict, ConfigValidatorError>,
}

/// Documents of `spec` on `base` that are others than those of `now`.
fn candidates(spec: &ServiceSpec, now: Option<&ServiceRecord>, base: &Map<String, Value>) -> Vec<ConfigCandidate> {
    let before = |replica: Option<u32>| match replica {
        None => now?.config.clone(),
        Some(replica) => now?.config_of(replica),
    };
    let changed =
        spec.config.effective(base).into_iter().filter(|one| before(one.replica).as_ref() != Some(&one.document));
    let candidate = |one: coredinator_core::config::Effective| ConfigCandidate {
        service: spec.name.clone(),
        replica: one.replica,
        document: one.document,
    };
    changed.map(candidate).collect()
}

/// What the validator says of all documents of a change.
#[derive(Debug, Default)]
pub(in crate::registry) struct Verdict {
    /// By service and replica.
    of: Vec<(ServiceName, Option<u32>, ConfigVerdict)>,
    /// Why some could not be judged.
    unjudged: Option<ConfigValidatorError>,
}

impl Verdict {
    /// The errors and warnings about the documents of one service.
    pub(in crate::registry) fn about(
        &self,
        spec: &ServiceSpec,
        base: &Map<String, Value>,
    ) -> (Vec<Finding>, Vec<Finding>) {
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        for (_, replica, verdict) in self.of.iter().filter(|(service, ..)| *service == spec.name) {
            let placed = |error: &FieldError| Finding::of(&spec.config, base, *replica, error.clone());
            errors.extend(verdict.errors.iter().map(placed));
            warnings.extend(verdict.warnings.iter().map(placed));
        }
        (told_once(errors), told_once(warnings))
    }

    /// What follows from documents that nobody judged: a warning, or that nothing is done.
    ///
    /// # Errors
    /// [`RegistryError::Unjudged`].
    pub(in crate::registry) fn unjudged(&self, on: OnUnreachable) -> Result<Option<FieldError>, RegistryError> {
        match (&self.unjudged, on) {
            (None, _) => Ok(None),
            (Some(error), OnUnreachable::Refuse) => Err(RegistryError::Unjudged { message: error.message.clone() }),
            (Some(error), OnUnreachable::Accept) => {
                let detail = format!("not every document was judged: {}", error.message);
                Ok(Some(FieldError::new("", detail).with_hint("on_unreachable: refuse makes no change without")))
            }
        }
    }
}

impl Judged {
    /// What was said of `candidates`, if all of them have been asked about; else those that have not.
    pub(in crate::registry) fn verdict(
        &self,
        candidates: Vec<ConfigCandidate>,
    ) -> Result<Verdict, Vec<ConfigCandidate>> {
        let said = |one: &ConfigCandidate| {
            self.said.get(&(one.service.clone(), one.replica)).filter(|said| said.document == one.document)
        };
        let (known, unknown): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|one| said(one).is_some());
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let mut verdict = Verdict::default();
        for one in known {
            match said(&one).map(|said| &said.result) {
                Some(Ok(of)) => verdict.of.push((one.service, one.replica, of.clone())),
                Some(Err(error)) => drop(verdict.unjudged.get_or_insert_with(|| error.clone())),
                None => {}
            }
        }
        Ok(verdict)
    }
}

/// A verdict as it may be told: places that are in the document, texts of bounded length.
fn tidy(verdict: ConfigVerdict, document: &Map<String, Value>) -> ConfigVerdict {
    let document = Value::Object(document.clone());
    let tidy = |error: FieldError| {
        let (pointer, strayed) = inside(&document, &error.pointer);
        let mut detail = clean(&error.detail);
        if detail.is_empty() {
            detail = "is refused without a word why".to_owned();
        }
        if strayed {
            detail = format!("{detail} (told of {:?}, which is not in the document)", clean(&error.pointer));
        }
        let hint = error.hint.map(|hint| clean(&hint)).filter(|hint| !hint.is_empty());
        FieldError { pointer, detail, hint }
    };
    ConfigVerdict {
        errors: verdict.errors.into_iter().map(tidy).collect(),
        warnings: verdict.warnings.into_iter().map(tidy).collect(),
    }
}

/// The place that a pointer means: it may name a key that is missing from what is there, but nothing beyond. Whether it did.
fn inside(document: &Value, pointer: &str) -> (String, bool) {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return (String::new(), true);
    }
    let there = |pointer: &str| document.pointer(pointer).is_some_and(|value| value.is_object() || value.is_array());
    let parent = pointer.rfind('/').map_or("", |end| &pointer[..end]);
    if document.pointer(pointer).is_some() || there(parent) {
        return (pointer.to_owned(), false);
    }
    let mut near = parent;
    while document.pointer(near).is_none() {
        near = near.rfind('/').map_or("", |end| &near[..end]);
    }
    (near.to_owned(), true)
}

fn clean(text: &str) -> String {
    text.trim().chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Registry {
    /// The same handle, of which configuration documents are judged by `validation` before they come into force.
    #[must_use]
    pub fn with_validation(mut self, validation: Option<ConfigValidation>) -> Self {
        self.validation = validation.map(Arc::new);
        self
    }

    /// The documents of `spec` on `base` about which the validator, where there is one, is asked.
    pub(in crate::registry) fn candidates(
        &self,
        spec: &ServiceSpec,
        now: Option<&ServiceRecord>,
        base: &Map<String, Value>,
    ) -> Vec<ConfigCandidate> {
        if self.validation.is_none() { Vec::new() } else { candidates(spec, now, base) }
    }

    /// What becomes of a change that nobody judged.
    pub(in crate::registry) fn on_unreachable(&self) -> OnUnreachable {
        self.validation.as_ref().map_or_else(OnUnreachable::default, |validation| validation.on_unreachable)
    }

    /// Asks about `candidates`, within the time that there is.
    ///
    /// # Errors
    /// [`RegistryError::Unjudged`] when documents go on changing while they are judged.
    pub(in crate::registry) async fn judge(
        &self,
        judged: &mut Judged,
        candidates: Vec<ConfigCandidate>,
    ) -> Result<(), RegistryError> {
        let Some(validation) = &self.validation else { return Ok(()) };
        judged.rounds += 1;
        if judged.rounds > ROUNDS {
            let message = "documents change faster than they are judged".to_owned();
            return Err(RegistryError::Unjudged { message });
        }
        let deadline = Instant::now() + validation.timeout;
        let ask = |candidate: ConfigCandidate| async move {
            let asked = AssertUnwindSafe(validation.validator.validate(&candidate)).catch_unwind();
            let result = match timeout_at(deadline, asked).await {
                Ok(Ok(result)) => result.map(|verdict| tidy(verdict, &candidate.document)),
                Ok(Err(_)) => Err(ConfigValidatorError::new("the validator panicked")),
                Err(_) => {
                    let message = format!("the validator has not answered within {:?}", validation.timeout);
                    Err(ConfigValidatorError::new(message))
                }
            };
            let result = result.map_err(|error| ConfigValidatorError::new(clean(&error.message)));
            ((candidate.service, candidate.replica), Said { document: candidate.document, result })
        };
        let said: Vec<_> = stream::iter(candidates).map(ask).buffer_unordered(AT_ONCE).collect().await;
        judged.said.extend(said);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_that_a_validator_tells() {
        let document = json!({"a": {"b": [1, {"c": 2}]}, "t": "text"});
        for (told, place, strayed) in [
            ("", "", false),
            ("/a", "/a", false),
            ("/missing", "/missing", false),
            ("/a/missing", "/a/missing", false),
            ("/a/b/1/c", "/a/b/1/c", false),
            ("/a/b/7", "/a/b/7", false),
            ("/a/b/7/x", "/a/b", true),
            ("/services/other/config", "", true),
            ("/t/x", "/t", true),
            ("a.b", "", true),
            ("//", "", true),
        ] {
            assert_eq!(inside(&document, told), (place.to_owned(), strayed), "{told:?}");
        }
        assert_eq!(clean(" a\n\u{7}b "), "a  b");
        assert_eq!(clean(&"x".repeat(1000)).len(), LONGEST);
    }
}
