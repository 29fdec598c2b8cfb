//! `config`: the configuration of a file, and that of the coredinator that runs.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Failure, Program,
    apply::query,
    args::ConfigCommand,
    client::Client,
    config_file, config_view,
    output::{Format, Output},
    services::encode,
};
use crate::config::{schema, yaml};

/// `config`.
///
/// # Errors
/// What is wrong with a file; as [`Client::send`].
pub async fn run(
    program: &Program,
    client: impl Fn() -> Result<Client, Failure>,
    output: &Output,
    command: &ConfigCommand,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => config_file::check(program, output, file.as_deref()),
        ConfigCommand::Show(settings) => config_file::show(program, output, settings),
        ConfigCommand::Schema => match output.format {
            Format::Yaml => output.text(&yaml::write(&schema::schema())),
            _ => output.text(&format!("{:#}\n", schema::schema())),
        },
        ConfigCommand::Reload => {
            let updated = client()?.send_root(Method::POST, "/-/reload").await?;
            let names = config_view::changed_names(&updated);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            output.data(&updated, &names, |_| config_view::updated(&updated))
        }
        ConfigCommand::Get { service } => {
            let path = match service {
                None => "/config/generate".to_owned(),
                Some(name) => format!("/config/generate?service={}", encode(name)),
            };
            let document = client()?.get(&path).await?;
            let services = document.pointer("/coredinator/services").and_then(Value::as_object);
            let names: Vec<&str> = services.into_iter().flat_map(|map| map.keys()).map(String::as_str).collect();
            output.data(&document, &names, |_| yaml::write(&document))
        }
        ConfigCommand::History { revision: Some(revision), .. } => {
            let read = client()?.get(&format!("/config/history/{revision}")).await?;
            output.data(&read, &[], |_| config_view::revision(&read))
        }
        ConfigCommand::History { revision: None, limit } => {
            let read = client()?.get(&format!("/config/history?limit={limit}")).await?;
            let empty = Vec::new();
            let revisions = read.get("revisions").and_then(Value::as_array).unwrap_or(&empty);
            let names: Vec<String> =
                revisions.iter().filter_map(|one| one.get("revision")).map(ToString::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            output.data(&read, &names, |_| config_view::history(revisions))
        }
        ConfigCommand::Rollback { revision, note, dry_run } => {
            let path = format!("/config/rollback{}", query(note, *dry_run));
            let (_, updated) = client()?.send(Method::POST, &path, Some(&json!({ "revision": revision }))).await?;
            let names = config_view::changed_names(&updated);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            output.data(&updated, &names, |_| config_view::updated(&updated))
        }
    }
}
