//! Strategies by name.

use std::{collections::BTreeMap, fmt, sync::Arc};

use coredinator_core::{
    FieldError,
    coordination::CoordinationStrategy,
    field::{join, kind, nearest},
};
use serde_json::{Map, Value};

use super::{Centralized, Consensus, GameTheoretic, Http, PriorityBased, ResourceBased};

/// Makes a strategy from its options, found at a pointer of a document.
type Maker = Arc<dyn Fn(&str, Value) -> Result<Arc<dyn CoordinationStrategy>, Vec<FieldError>> + Send + Sync>;

/// The strategies that can be configured, by name.
#[derive(Clone)]
pub struct Strategies {
    makers: BTreeMap<String, Maker>,
}

impl fmt::Debug for Strategies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Strategies {
    /// Those that come with coredinator.
    #[must_use]
    pub fn builtin() -> Self {
        Self { makers: BTreeMap::new() }
            .with_maker(Consensus::NAME, |pointer, options| Ok(Arc::new(Consensus::parse(pointer, options)?)))
            .with_maker(Centralized::NAME, |pointer, options| Ok(Arc::new(Centralized::parse(pointer, options)?)))
            .with_maker(GameTheoretic::NAME, |pointer, options| Ok(Arc::new(GameTheoretic::parse(pointer, options)?)))
            .with_maker(Http::NAME, |pointer, options| Ok(Arc::new(Http::parse(pointer, options)?)))
            .with_maker(PriorityBased::NAME, |pointer, options| Ok(Arc::new(PriorityBased::parse(pointer, options)?)))
            .with_maker(ResourceBased::NAME, |pointer, options| Ok(Arc::new(ResourceBased::parse(pointer, options)?)))
    }

    /// With a strategy that has no options, by its own name; one of that name is replaced.
    #[must_use]
    pub fn with(self, strategy: impl CoordinationStrategy) -> Self {
        let strategy: Arc<dyn CoordinationStrategy> = Arc::new(strategy);
        let name = strategy.name().to_owned();
        self.with_maker(&name, move |pointer, options| match options {
            Value::Object(options) if options.is_empty() => Ok(Arc::clone(&strategy)),
            _ => Err(vec![FieldError::new(pointer, format!("{} has no options", strategy.name()))]),
        })
    }

    /// With a strategy that is made from its options: an object (empty where none are given), found at a pointer.
    #[must_use]
    pub fn with_maker(
        mut self,
        name: &str,
        make: impl Fn(&str, Value) -> Result<Arc<dyn CoordinationStrategy>, Vec<FieldError>> + Send + Sync + 'static,
    ) -> Self {
        self.makers.insert(name.to_owned(), Arc::new(make));
        self
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.makers.keys().map(String::as_str)
    }

    /// Makes what a document asks for at `pointer`: a name, or an object with the name as its one key and the options as its
    /// value.
    ///
    /// # Errors
    /// No such strategy (with the nearest name), or options that it does not take.
    pub fn make(&self, pointer: &str, choice: &Value) -> Result<Arc<dyn CoordinationStrategy>, Vec<FieldError>> {
        let (name, at, options) = match choice {
            // As if it were the key of an object without options.
            Value::String(name) => (name, join(pointer, name), Value::Object(Map::new())),
            Value::Object(one) if one.len() == 1 => {
                let Some((name, options)) = one.iter().next() else { return Err(Vec::new()) };
                let options = if options.is_null() { Value::Object(Map::new()) } else { options.clone() };
                (name, join(pointer, name), options)
            }
            other => {
                let detail = format!(
                    "expected a strategy's name, or an object with it as the one key, but found {}",
                    kind(other)
                );
                return Err(vec![FieldError::new(pointer, detail)]);
            }
        };
        match self.makers.get(name) {
            Some(make) => make(&at, options),
            None => {
                let known: Vec<&str> = self.names().collect();
                let hint = match nearest(name, &known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("there are {}", known.join(", ")),
                };
                Err(vec![FieldError::new(pointer, format!("unknown strategy {name:?}")).with_hint(hint)])
            }
        }
    }
}
