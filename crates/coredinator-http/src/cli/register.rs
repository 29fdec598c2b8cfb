//! `register`, `deregister`.

use std::{path::Path, time::Duration};

use coredinator_core::ServiceSpec;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    ExitStatus, Failure, Program,
    args::{DeregisterArgs, RegisterArgs},
    client::Client,
    config_file,
    lifecycle::tell,
    output::Output,
    services::encode,
    wait::{Condition, wait_for},
    wanted::Wanted,
};

/// `register`.
///
/// # Errors
/// As [`Client::send`]; files that are not valid.
pub async fn register(program: &Program, client: &Client, output: &Output, args: &RegisterArgs) -> Result<(), Failure> {
    let mut bodies: Vec<(String, Value)> = Vec::new();
    if let Some(name) = &args.name {
        let mut body = json!({ "name": name, "host": args.host, "port": args.port });
        if let Some(path) = &args.health_endpoint {
            body["health_endpoint"] = path.as_str().into();
        }
        bodies.push((name.clone(), body));
    }
    for file in &args.file {
        bodies.extend(config_file::services(program, file)?.iter().map(body));
    }
    for (name, body) in &bodies {
        declare(client, output, name, body, args.replace).await?;
    }
    Ok(())
}

/// A service as the API takes it.
pub(super) fn body(spec: &ServiceSpec) -> (String, Value) {
    (spec.name.to_string(), serde_json::to_value(spec).unwrap_or_default())
}

/// Declares a service, and tells whether that changed anything.
pub(super) async fn declare(
    client: &Client,
    output: &Output,
    name: &str,
    body: &Value,
    replace: bool,
) -> Result<(), Failure> {
    let path = if replace { "/services/register?replace=true" } else { "/services/register" };
    match client.send(Method::POST, path, Some(body)).await {
        Ok((headers, _)) => {
            let became = headers.get("x-coredinator-declared").map_or(&b"created"[..], |became| became.as_bytes());
            let done = match became {
                b"unchanged" => "unchanged",
                b"replaced" => "replaced",
                _ => "registered",
            };
            tell(output, name, done)
        }
        Err(mut failure) => {
            failure.message = format!("{name}: {}", failure.message);
            Err(if failure.exit == ExitStatus::Conflict && !replace {
                failure.hint("replace what is declared by --replace")
            } else {
                failure
            })
        }
    }
}

/// `deregister`.
///
/// # Errors
/// As [`Client::send`], [`wait_for`].
pub async fn deregister(
    client: &Client,
    output: &Output,
    args: &DeregisterArgs,
    limit: Duration,
) -> Result<(), Failure> {
    for name in &args.names {
        client.send(Method::DELETE, &format!("/services/{}", encode(name)), None).await?;
        tell(output, name, "deregistered")?;
    }
    if !args.wait {
        return Ok(());
    }
    let gone: Vec<_> = args.names.iter().map(|name| (name.clone(), Condition::any([Wanted::Deleted]))).collect();
    wait_for(client, output, &gone, limit).await
}

/// Whether a path is how standard input is named.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
