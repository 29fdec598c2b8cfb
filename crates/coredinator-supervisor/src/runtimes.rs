//! The runtimes that there are, by name.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{FieldError, Runtime, RuntimeName, ServiceSpec, field, validate_spec};

/// A set of runtimes. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub struct Runtimes(Arc<BTreeMap<RuntimeName, Arc<dyn Runtime>>>);

impl Runtimes {
    /// The given runtimes; of two with the same name the later one counts.
    pub fn new(runtimes: impl IntoIterator<Item = Arc<dyn Runtime>>) -> Self {
        Self(Arc::new(runtimes.into_iter().map(|runtime| (runtime.name(), runtime)).collect()))
    }

    /// The runtime called `name`.
    #[must_use]
    pub fn get(&self, name: &RuntimeName) -> Option<Arc<dyn Runtime>> {
        self.0.get(name).cloned()
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.0.values()
    }

    /// Checks what a spec asks of its runtime, and that there is one; pointers are relative to the spec.
    #[must_use]
    pub fn validate(&self, spec: &ServiceSpec) -> Vec<FieldError> {
        let Some(name) = &spec.runtime else { return Vec::new() };
        if let Some(runtime) = self.0.get(name) {
            return validate_spec(runtime.as_ref(), spec);
        }
        let known: Vec<&str> = self.0.keys().map(RuntimeName::as_str).collect();
        let error = FieldError::new("/runtime", format!("unknown runtime {:?}", name.as_str()));
        vec![match field::nearest(name.as_str(), &known) {
            Some(near) => error.with_hint(format!("did you mean {near:?}?")),
            None => error.with_hint(format!("one of {}", known.join(", "))),
        }]
    }
}
