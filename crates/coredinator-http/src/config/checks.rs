//! What of a file others know better.

use std::{fmt, sync::Arc};

use coredinator_coord::Strategies;
use coredinator_core::{FieldError, HealthCheck, Runtime, ServiceSpec, field::nearest, validate_spec};

/// Checks what a service asks of its runtime; pointers are relative to the spec.
type RuntimeCheck<'a> = dyn Fn(&ServiceSpec) -> Vec<FieldError> + 'a;
/// Checks what a health check asks of its probe; pointers are relative to the `health_check` section.
type ProbeCheck<'a> = dyn Fn(&HealthCheck) -> Vec<FieldError> + 'a;

/// What only the runtimes, probes and strategies at hand can judge.
pub struct Checks<'a> {
    runtime: Box<RuntimeCheck<'a>>,
    probe: Box<ProbeCheck<'a>>,
    pub(super) strategies: Strategies,
}

impl fmt::Debug for Checks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

impl Default for Checks<'_> {
    /// Any runtime and any probe will do, and the strategies that come with coredinator.
    fn default() -> Self {
        Self { runtime: Box::new(|_| Vec::new()), probe: Box::new(|_| Vec::new()), strategies: Strategies::builtin() }
    }
}

impl<'a> Checks<'a> {
    /// Services are checked by these runtimes; another runtime is an error.
    #[must_use]
    pub fn with_runtimes(self, runtimes: &'a [Arc<dyn Runtime>]) -> Self {
        self.with_runtime_check(move |spec| {
            let Some(wanted) = &spec.runtime else { return Vec::new() };
            if let Some(runtime) = runtimes.iter().find(|runtime| runtime.name() == *wanted) {
                return validate_spec(runtime.as_ref(), spec);
            }
            let known: Vec<String> = runtimes.iter().map(|runtime| runtime.name().to_string()).collect();
            vec![unknown_runtime(wanted.as_str(), &known)]
        })
    }

    /// Services are checked by `check`, whose pointers are relative to the spec.
    #[must_use]
    pub fn with_runtime_check(mut self, check: impl Fn(&ServiceSpec) -> Vec<FieldError> + 'a) -> Self {
        self.runtime = Box::new(check);
        self
    }

    /// Health checks are checked by `check`, whose pointers are relative to their section.
    #[must_use]
    pub fn with_probe_check(mut self, check: impl Fn(&HealthCheck) -> Vec<FieldError> + 'a) -> Self {
        self.probe = Box::new(check);
        self
    }

    /// Conflicts of agents are resolved by one of these strategies; another is an error.
    #[must_use]
    pub fn with_strategies(mut self, strategies: Strategies) -> Self {
        self.strategies = strategies;
        self
    }

    pub(super) fn of(&self, pointer: &str, spec: &ServiceSpec) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = (self.runtime)(spec);
        for (key, check) in [("health_check", &spec.health_check), ("readiness_check", &spec.readiness_check)] {
            let found = check.iter().flat_map(|check| (self.probe)(check));
            errors.extend(found.map(|error| error.under(&format!("/{key}"))));
        }
        errors.into_iter().map(|error| error.under(pointer)).collect()
    }
}

/// A runtime that nobody registered.
fn unknown_runtime(wanted: &str, known: &[String]) -> FieldError {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let error = FieldError::new("/runtime", format!("unknown runtime {wanted:?}"));
    match nearest(wanted, &known) {
        Some(near) => error.with_hint(format!("did you mean {near:?}?")),
        None => error.with_hint(format!("known runtimes: {}", known.join(", "))),
    }
}
