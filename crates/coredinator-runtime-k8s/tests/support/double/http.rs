//! The double's API server: paths and verbs to what [`World`] does.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::broadcast};

use super::{
    exec,
    world::{self, Change, Refusal, Then, World},
};

type Params = HashMap<String, String>;

pub(super) fn serve(listener: TcpListener, world: Arc<World>) -> tokio::task::JoinHandle<()> {
    let router = Router::new().fallback(answer).with_state(world);
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    })
}

/// A path taken apart.
#[derive(Debug)]
struct Place {
    group: &'static str,
    namespace: Option<String>,
    resource: String,
    name: Option<String>,
    sub: Option<String>,
}

impl Place {
    fn read(path: &str) -> Option<Self> {
        let (group, rest) = if let Some(rest) = path.strip_prefix("/api/v1/") {
            ("", rest)
        } else {
            ("policy", path.strip_prefix("/apis/policy/v1/")?)
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let (namespace, parts) = match *parts {
            ["namespaces", namespace, ref rest @ ..] if !rest.is_empty() => (Some(namespace.to_owned()), rest.to_vec()),
            ref all => (None, all.to_vec()),
        };
        let known: &[&str] =
            if group.is_empty() { &["pods", "secrets", "services"] } else { &["poddisruptionbudgets"] };
        let resource = (*parts.first()?).to_owned();
        known.contains(&resource.as_str()).then(|| Self {
            group,
            namespace,
            resource,
            name: parts.get(1).map(|&name| name.to_owned()),
            sub: parts.get(2).map(|&sub| sub.to_owned()),
        })
    }
}

async fn answer(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    Query(params): Query<Params>,
    headers: header::HeaderMap,
    mut request: Request,
) -> Response {
    let shown = headers.get(header::AUTHORIZATION).and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
    if world.token.lock().unwrap().as_deref().is_some_and(|token| shown != Some(token)) {
        return refuse(&Refusal(401, "Unauthorized", "Unauthorized".to_owned()));
    }
    let Some(place) = Place::read(uri.path()) else {
        return refuse(&Refusal(404, "NotFound", format!("the double knows no {}", uri.path())));
    };
    let watch = params.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
    let verb = match (&method, &place.name) {
        (&Method::GET, Some(_)) => "get",
        (&Method::GET, None) if watch => "watch",
        (&Method::GET, None) => "list",
        (&Method::PATCH, Some(_)) => "patch",
        (&Method::DELETE, Some(_)) => "delete",
        (&Method::POST, None) => "create",
        (&Method::POST, Some(_)) if place.sub.as_deref() == Some("eviction") => "create",
        _ => {
            return refuse(&Refusal(
                405,
                "MethodNotAllowed",
                format!("the double does not do {method} {}", uri.path()),
            ));
        }
    };
    let resource = place.sub.as_ref().map_or_else(|| place.resource.clone(), |sub| format!("{}/{sub}", place.resource));
    world.calls.lock().unwrap().insert((place.group.to_owned(), resource.clone(), verb.to_owned()));
    *world.counts.lock().unwrap().entry((resource.clone(), verb.to_owned())).or_default() += 1;
    if place.namespace.as_ref().is_some_and(|namespace| world.forbidden.lock().unwrap().contains(namespace)) {
        let message = format!("{resource} is forbidden: User \"me\" cannot {verb} resource {resource:?}");
        return refuse(&Refusal(403, "Forbidden", message));
    }
    let fate = world.verdict(&resource, verb);
    match fate {
        Some(Then::Answer(code, again)) => {
            let message = if code == 403 {
                format!("{resource} is forbidden: User \"me\" cannot {verb} resource {resource:?}")
            } else {
                format!("the double answers {code}")
            };
            let mut refused = refuse(&Refusal(code, "Fault", message));
            if let Some(seconds) = again {
                refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            return refused;
        }
        Some(Then::Cut) => return cut(),
        Some(Then::Slow(by)) => tokio::time::sleep(by).await,
        Some(Then::DoneAndCut | Then::DoneAndSlow(_)) | None => {}
    }
    if let ("get", Some("exec"), Some(namespace), Some(name)) =
        (verb, place.sub.as_deref(), place.namespace.as_deref(), place.name.as_deref())
    {
        return exec::answer(&world, namespace, name, &mut request);
    }
    let Ok(body) = axum::body::to_bytes(request.into_body(), usize::MAX).await else { return cut() };
    let done = act(&world, &place, verb, &params, &headers, &body).await;
    match fate {
        Some(Then::DoneAndCut) => cut(),
        Some(Then::DoneAndSlow(by)) => {
            tokio::time::sleep(by).await;
            done
        }
        _ => done,
    }
}

/// An answer that breaks off: its body says that it is longer than it is.
fn cut() -> Response {
    let broken = stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    let mut response = Body::from_stream(broken).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(1000));
    response
}

async fn act(
    world: &Arc<World>,
    place: &Place,
    verb: &str,
    params: &Params,
    headers: &header::HeaderMap,
    body: &Bytes,
) -> Response {
    let param = |name: &str| params.get(name).map(String::as_str);
    let selector = param("labelSelector").unwrap_or_default();
    let namespace = place.namespace.as_deref();
    let Some(name) = place.name.as_deref() else {
        if verb == "watch" {
            return watch(world, place, selector, params);
        }
        if verb == "create" {
            return create(world, place, body);
        }
        let (mut items, version) = world.list(&place.resource, namespace, selector);
        let of_metadata = headers
            .get(header::ACCEPT)
            .is_some_and(|accept| accept.to_str().is_ok_and(|accept| accept.contains("as=PartialObjectMetadataList")));
        if of_metadata {
            for item in &mut items {
                let metadata = item["metadata"].take();
                *item = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
            }
        }
        let kind = match place.resource.as_str() {
            _ if of_metadata => "PartialObjectMetadataList",
            "pods" => "PodList",
            _ => "List",
        };
        return object(&json!({
            "kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": items,
        }));
    };
    let Some(namespace) = namespace else {
        return refuse(&Refusal(400, "BadRequest", "an object has a namespace".to_owned()));
    };
    let key = world::key(&place.resource, namespace, name);
    let outcome = match (verb, place.sub.as_deref()) {
        ("get", None) => world
            .get(&place.resource, namespace, name)
            .ok_or_else(|| Refusal(404, "NotFound", format!("{} {name:?} not found", place.resource))),
        ("get", Some("log")) => return log(world, namespace, name, params),
        ("create", Some("eviction")) => world.evict(&key),
        ("patch", None) => {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            match (kind, param("fieldManager"), serde_json::from_slice::<Value>(body)) {
                ("application/apply-patch+yaml", Some(manager), Ok(asked)) => {
                    world.apply(key, asked, manager, param("force") == Some("true"))
                }
                ("application/merge-patch+json", Some(_), Ok(piece)) => world.merge(key, &piece),
                _ => Err(Refusal(415, "UnsupportedMediaType", format!("the double knows no patch of kind {kind:?}"))),
            }
        }
        ("delete", None) => {
            let options = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice::<Value>(body) };
            match options {
                Ok(options) => world.delete(&key, &options),
                Err(error) => Err(Refusal(400, "BadRequest", error.to_string())),
            }
        }
        _ => Err(Refusal(405, "MethodNotAllowed", format!("the double does not {verb} this"))),
    };
    match outcome {
        Ok(value) => object(&value),
        Err(refusal) => refuse(&refusal),
    }
}

/// What somebody else makes: it is there, and nothing is done about it.
fn create(world: &World, place: &Place, body: &Bytes) -> Response {
    let made = match serde_json::from_slice::<Value>(body) {
        Ok(mut asked) => {
            asked["metadata"]["namespace"] = json!(place.namespace);
            world.put(&place.resource, asked, "somebody")
        }
        Err(error) => Err(Refusal(400, "BadRequest", error.to_string())),
    };
    match made {
        Ok(made) => object(&made),
        Err(refusal) => refuse(&refusal),
    }
}

fn object(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

pub(super) fn refuse(refusal: &Refusal) -> Response {
    let mut response = object(&world::status(refusal));
    *response.status_mut() = StatusCode::from_u16(refusal.0).expect("a status");
    response
}

fn watch(world: &Arc<World>, place: &Place, selector: &str, params: &Params) -> Response {
    let after: u64 = params.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let Some((past, changes)) = world.changes(after) else {
        let gone = world::status(&Refusal(410, "Expired", "too old resource version".to_owned()));
        return Body::from(json!({"type": "ERROR", "object": gone}).to_string() + "\n").into_response();
    };
    let (resource, namespace, selector) = (place.resource.clone(), place.namespace.clone(), selector.to_owned());
    let wanted = move |change: &Change| {
        change.key.0 == resource
            && namespace.as_ref().is_none_or(|namespace| *namespace == change.key.1)
            && world::chosen(&change.object, &selector)
    };
    let line = |change: &Change| json!({"type": change.kind, "object": change.object}).to_string() + "\n";
    let cuts = world.cuts.subscribe();
    let old: Vec<_> = past.iter().filter(|change| wanted(change)).map(line).map(Ok::<_, std::io::Error>).collect();
    let seconds = params.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(300);
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let new = stream::unfold((changes, cuts), move |(mut changes, mut cuts)| {
        let wanted = wanted.clone();
        async move {
            loop {
                tokio::select! {
                    change = changes.recv() => match change {
                        Ok(change) if wanted(&change) => return Some((Ok(line(&change)), (changes, cuts))),
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => return None,
                    },
                    _ = cuts.recv() => return Some((Err(std::io::Error::other("cut")), (changes, cuts))),
                    () = tokio::time::sleep_until(end) => return None,
                }
            }
        }
    });
    Body::from_stream(stream::iter(old).chain(new)).into_response()
}

fn log(world: &Arc<World>, namespace: &str, name: &str, params: &Params) -> Response {
    let Some(pod) = world.get("pods", namespace, name) else {
        return refuse(&Refusal(404, "NotFound", format!("pods {name:?} not found")));
    };
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let param = |name: &str| params.get(name).map(String::as_str);
    let printed = {
        let nodes = world.nodes.lock().unwrap();
        nodes.get(uid).and_then(|pod| pod.printed(param("previous") == Some("true")))
    };
    let Some(printed) = printed else {
        let message = format!("container \"main\" in pod {name:?} is waiting to start: ContainerCreating");
        return refuse(&Refusal(400, "BadRequest", message));
    };
    let since = param("sinceTime").and_then(|time| time.parse().ok());
    let tail = param("tailLines").and_then(|lines| lines.parse().ok());
    let (follow, timestamps) = (param("follow") == Some("true"), param("timestamps") == Some("true"));
    let cuts = world.cuts.subscribe();
    let lines = stream::unfold((printed.read(since, tail), cuts), move |(mut reader, mut cuts)| async move {
        let line = tokio::select! {
            line = reader.next(follow) => line?,
            _ = cuts.recv() => return Some((Err(std::io::Error::other("cut")), (reader, cuts))),
        };
        let text = if timestamps { format!("{} {}\n", line.0, line.1) } else { format!("{}\n", line.1) };
        Some((Ok(text), (reader, cuts)))
    });
    Body::from_stream(lines).into_response()
}
