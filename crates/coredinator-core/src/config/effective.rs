//! Documents as they come of their layers, and the way back from a place in one to the layer that says what stands there.

use serde_json::{Map, Value};

use super::{SecretRef, ServiceConfig, merge};
use crate::field::join;

/// A document that some of a service's replicas are to have.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The replica that has a layer of its own; `None`: all that have none.
    pub replica: Option<u32>,
    /// The document. References to secrets are references.
    pub document: Map<String, Value>,
}

/// The layer of a document that says what stands at a place of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// `coredinator.config`.
    Base,
    /// The service's `config`.
    Service,
    /// Its `config_overrides` for this replica.
    Replica(u32),
}

impl ServiceConfig {
    /// Every document that comes of `base`: the one of the service, then those of replicas for which something is laid over
    /// it. Empty, where the service has none.
    #[must_use]
    pub fn effective(&self, base: &Map<String, Value>) -> Vec<Effective> {
        let Some(document) = self.on(base) else { return Vec::new() };
        let with = |(replica, over): (&u32, &Map<String, Value>)| {
            let mut document = document.clone();
            merge(&mut document, over);
            Effective { replica: Some(*replica), document }
        };
        let of_replicas: Vec<Effective> = self.overrides.iter().map(with).collect();
        [Effective { replica: None, document }].into_iter().chain(of_replicas).collect()
    }

    /// The topmost layer that says anything at `pointer` of the document of `replica`, or at the nearest of its ancestors at
    /// which any layer does.
    #[must_use]
    pub fn layer_at(&self, base: &Map<String, Value>, replica: Option<u32>, pointer: &str) -> Layer {
        let over = replica.and_then(|replica| Some((Layer::Replica(replica), self.overrides.get(&replica)?)));
        let layers = over.into_iter().chain(self.layer.iter().map(|layer| (Layer::Service, layer)));
        let layers: Vec<(Layer, &Map<String, Value>)> = layers.chain([(Layer::Base, base)]).collect();
        let mut pointer = pointer;
        while !pointer.is_empty() {
            if let Some((layer, _)) = layers.iter().find(|(_, layer)| says(layer, pointer)) {
                return *layer;
            }
            pointer = pointer.rfind('/').map_or("", |end| &pointer[..end]);
        }
        // Of the document as a whole the service speaks.
        Layer::Service
    }
}

/// Whether a layer holds a value at a pointer that is not empty.
fn says(layer: &Map<String, Value>, pointer: &str) -> bool {
    let rest = pointer.strip_prefix('/').unwrap_or(pointer);
    let (first, below) = rest.split_once('/').map_or((rest, None), |(first, below)| (first, Some(below)));
    let value = layer.get(&first.replace("~1", "/").replace("~0", "~"));
    match (value, below) {
        (Some(value), Some(below)) => value.pointer(&format!("/{below}")).is_some(),
        (value, _) => value.is_some(),
    }
}

/// The document with a text in place of each reference to a secret, and where they are: for whoever looks at its form. What
/// the secrets are stays unknown.
#[must_use]
pub fn without_secrets(document: &Map<String, Value>) -> (Value, Vec<String>) {
    fn walk(pointer: &str, value: &mut Value, places: &mut Vec<String>) {
        match value {
            Value::Object(map) if SecretRef::of(map).is_some() && !pointer.is_empty() => {
                places.push(pointer.to_owned());
                *value = crate::REDACTED.into();
            }
            Value::Object(map) => map.iter_mut().for_each(|(key, inner)| walk(&join(pointer, key), inner, places)),
            Value::Array(list) => {
                list.iter_mut().enumerate().for_each(|(i, inner)| walk(&format!("{pointer}/{i}"), inner, places));
            }
            _ => {}
        }
    }
    let (mut value, mut places) = (Value::Object(document.clone()), Vec::new());
    walk("", &mut value, &mut places);
    (value, places)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_way_back_to_the_layer_that_says_it() {
        let base = object(&json!({"plant": "north", "historian": {"url": "u", "port": 1}, "a/b": 1}));
        let config = ServiceConfig {
            layer: Some(object(&json!({"rate": 1, "historian": {"port": 2}, "list": [1, 2]}))),
            overrides: [(1, object(&json!({"rate": 2, "historian": {"retry": true}})))].into(),
            ..ServiceConfig::default()
        };
        let effective = config.effective(&base);
        assert_eq!(effective.iter().map(|one| one.replica).collect::<Vec<_>>(), [None, Some(1)]);
        assert_eq!(effective[1].document["historian"], json!({"url": "u", "port": 2, "retry": true}));
        for (replica, pointer, layer) in [
            (None, "/plant", Layer::Base),
            (None, "/a~1b", Layer::Base),
            (None, "/rate", Layer::Service),
            (Some(1), "/rate", Layer::Replica(1)),
            (Some(0), "/rate", Layer::Service),
            (Some(1), "/historian/port", Layer::Service),
            (Some(1), "/historian/url", Layer::Base),
            (Some(1), "/historian/retry", Layer::Replica(1)),
            (None, "/historian/retry", Layer::Service),
            (None, "/list/1", Layer::Service),
            (None, "/list/7", Layer::Service),
            (None, "/nowhere", Layer::Service),
            (None, "", Layer::Service),
        ] {
            assert_eq!(config.layer_at(&base, replica, pointer), layer, "{replica:?} {pointer}");
        }
        assert!(ServiceConfig::default().effective(&base).is_empty());
    }

    #[test]
    fn secrets_are_texts_to_whoever_looks_at_the_form() {
        let document =
            object(&json!({"a": [{"secret_env": "X"}], "b": {"secret_file": 7}, "c/d": {"secret_file": "/f"}}));
        let (seen, places) = without_secrets(&document);
        assert_eq!(seen, json!({"a": ["***"], "b": {"secret_file": 7}, "c/d": "***"}));
        assert_eq!(places, ["/a/0", "/c~1d"]);
    }
}
