//! What a schema may name: nothing but parts of itself.

use std::collections::HashMap;

use coredinator_core::{FieldError, field::join};
use serde_json::Value;

/// How many steps, from a schema to a part of it or along a reference, may follow each other.
const DEEPEST: usize = 128;

/// Keywords whose value is a schema.
pub(super) const ONE: [&str; 13] = [
    "not",
    "if",
    "then",
    "else",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "contentSchema",
    "extends",
];
/// Keywords whose value is a list of schemas.
pub(super) const LIST: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
/// Keywords whose value is a map of schemas.
pub(super) const MAP: [&str; 6] =
    ["properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"];
/// Keywords that name another schema.
pub(super) const REFERENCE: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// The parts of a schema that are schemas, with the keyword under which they stand and the key or index in it.
pub(super) fn parts(schema: &Value) -> impl Iterator<Item = (&'static str, Option<String>, &Value)> {
    let fields = schema.as_object();
    let get = move |keyword: &str| fields.and_then(|fields| fields.get(keyword));
    let one = ONE.into_iter().filter_map(move |keyword| Some((keyword, None, get(keyword)?)));
    let list = LIST.into_iter().filter_map(move |keyword| Some((keyword, get(keyword)?.as_array()?)));
    let list = list.flat_map(|(keyword, list)| list.iter().enumerate().map(move |(i, v)| (keyword, i.to_string(), v)));
    let map = MAP.into_iter().filter_map(move |keyword| Some((keyword, get(keyword)?.as_object()?)));
    let map = map.flat_map(|(keyword, map)| map.iter().map(move |(key, v)| (keyword, key.clone(), v)));
    one.chain(list.chain(map).map(|(keyword, key, value)| (keyword, Some(key), value)))
        .filter(|(_, _, value)| value.is_object() || value.is_boolean())
}

/// The part of `root` that a reference names: `#`, `#/a/pointer`, or `#anchor`.
pub(super) fn resolve<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let fragment = reference.strip_prefix('#')?;
    if fragment.is_empty() {
        return Some(root);
    }
    if fragment.starts_with('/') {
        let decoded = percent_decoded(fragment)?;
        return root.pointer(&decoded).filter(|part| part.is_object() || part.is_boolean());
    }
    let mut left = vec![root];
    while let Some(schema) = left.pop() {
        let named = |keyword: &str| schema.get(keyword).and_then(Value::as_str) == Some(fragment);
        if named("$anchor") || named("$dynamicAnchor") {
            return Some(schema);
        }
        left.extend(parts(schema).map(|(_, _, part)| part));
    }
    None
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// All references that lead out of the schema or nowhere, with their places, and whether it is too deep.
pub(super) fn check(schema: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut left = vec![(String::new(), schema)];
    while let Some((pointer, part)) = left.pop() {
        let text = |keyword: &str| part.get(keyword).and_then(Value::as_str);
        for keyword in REFERENCE {
            let Some(reference) = text(keyword) else { continue };
            let at = join(&pointer, keyword);
            if !reference.starts_with('#') {
                let error =
                    FieldError::new(at, format!("{} is outside of this schema: nothing is fetched", shown(reference)));
                errors.push(error.with_hint("copy it into $defs, and name it by #/$defs/…"));
            } else if resolve(schema, reference).is_none() {
                errors.push(FieldError::new(at, format!("there is no {} in this schema", shown(reference))));
            }
        }
        if !pointer.is_empty()
            && let Some(keyword) = ["$id", "id"].into_iter().find(|keyword| text(keyword).is_some())
        {
            let error =
                FieldError::new(join(&pointer, keyword), "a schema inside of a schema has no name of its own here");
            errors.push(error.with_hint("leave it out, and name this part by #/… or an $anchor"));
        }
        for (keyword, key, inner) in parts(part) {
            let at = join(&pointer, keyword);
            left.push((key.map_or_else(|| at.clone(), |key| join(&at, &key)), inner));
        }
    }
    if errors.is_empty() && height(schema, schema, 0, &mut HashMap::new()).is_none() {
        errors.push(FieldError::new("", format!("goes on for more than {DEEPEST} steps, references included")));
    }
    errors.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    errors
}

/// How many steps may follow each other below a part; `None`: too many. A part that is met again on the way to itself counts
/// as nothing.
fn height(root: &Value, part: &Value, depth: usize, known: &mut HashMap<*const Value, usize>) -> Option<usize> {
    if let Some(height) = known.get(&std::ptr::from_ref(part)) {
        return (depth + height <= DEEPEST).then_some(*height);
    }
    if depth > DEEPEST {
        return None;
    }
    known.insert(part, 0);
    let named = REFERENCE.into_iter().filter_map(|keyword| resolve(root, part.get(keyword)?.as_str()?));
    let mut tallest = 0;
    for next in parts(part).map(|(_, _, inner)| inner).chain(named) {
        tallest = tallest.max(1 + height(root, next, depth + 1, known)?);
    }
    known.insert(part, tallest);
    Some(tallest)
}

fn shown(reference: &str) -> String {
    format!("{:?}", reference.chars().take(120).collect::<String>())
}
