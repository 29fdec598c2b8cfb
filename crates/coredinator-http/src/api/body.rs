//! Bodies of requests: JSON, read strictly.

use std::fmt;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, map::Entry};

use super::problem::Problem;

/// Reads a body of at most `limit` bytes as JSON; `None` for an empty one.
///
/// # Errors
/// 413, 415 (also where no type is given), 400.
pub(super) async fn read_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Option<Value>, Problem> {
    let bytes = read(body, limit).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !is_json(headers) {
        let detail = "the body must be JSON, and say so: content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", detail));
    }
    serde_json::from_slice::<NoTwins>(&bytes)
        .map(|read| Some(read.0))
        .map_err(|error| Problem::bad_request("MalformedJson", format!("the body is not JSON: {error}")))
}

/// The same where an empty body is not JSON either.
pub(super) async fn require_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Value, Problem> {
    let read = read_json(headers, body, limit).await?;
    read.ok_or_else(|| Problem::bad_request("MalformedJson", "the body is empty, and should be JSON"))
}

/// Reads a body of at most `limit` bytes that is YAML or JSON, as a text that a reader of YAML understands.
///
/// # Errors
/// 413, 415 (also where no type is given), 400 for JSON that is none.
pub(super) async fn read_document(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let bytes = read(body, limit).await?;
    let media_type = essence(headers);
    let yaml = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"].contains(&media_type.as_str())
        || media_type.ends_with("+yaml");
    if yaml {
        return Ok(bytes.to_vec());
    }
    if !is_json(headers) {
        let detail = "the body must be YAML or JSON, and say so: content-type: application/yaml";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", detail));
    }
    let read = serde_json::from_slice::<NoTwins>(&bytes);
    let NoTwins(value) =
        read.map_err(|error| Problem::bad_request("MalformedJson", format!("the body is not JSON: {error}")))?;
    // JSON is YAML but for the white space that it may be indented by.
    Ok(if bytes.contains(&b'\t') { format!("{value:#}").into_bytes() } else { bytes.to_vec() })
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = essence(headers);
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The media type of a body, without its parameters.
fn essence(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

async fn read(body: Body, limit: usize) -> Result<BytesMut, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| Problem::bad_request("BrokenBody", "the body ended early or could not be read"))?;
        if bytes.len() + chunk.len() > limit {
            let detail = format!("the body is larger than {limit} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", detail));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// JSON whose objects name no key twice: which of the two was meant, nobody could tell.
struct NoTwins(Value);

impl<'de> Deserialize<'de> for NoTwins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(NoTwins(item)) = items.next_element()? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let NoTwins(value) = fields.next_value()?;
            match read.entry(key) {
                Entry::Vacant(free) => free.insert(value),
                Entry::Occupied(twin) => {
                    let shown: String = twin.key().chars().take(64).collect();
                    return Err(A::Error::custom(format_args!("the key {shown:?} is there twice")));
                }
            };
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_json_is_read_as_it_is() {
        let documents = [
            json!(null),
            json!([true, -1, 1, 1.5, "a\n", u64::MAX, [], {}]),
            json!({"a": {"b": [{"a": null}, {"a": 1}]}, "b": "c"}),
        ];
        for document in documents {
            assert_eq!(serde_json::from_str::<NoTwins>(&document.to_string()).unwrap().0, document);
        }
    }

    #[test]
    fn no_key_is_there_twice() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"\u0061":3}}]"#] {
            let error = serde_json::from_str::<NoTwins>(text).map(|read| read.0).unwrap_err();
            assert!(error.to_string().contains("the key \"a\" is there twice"), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(serde_json::from_str::<NoTwins>(&deep).is_err());
    }
}
