//! `apply`, `plan`, `diff`: the configuration changed to what files say.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use coredinator_core::ServiceName;
use reqwest::{Method, header};
use serde_json::Value;

use super::{
    ExitStatus, Failure, Program,
    args::{ApplyArgs, FilesArgs, NoteArgs, PlanArgs},
    client::Client,
    config_file, config_view,
    fields::text,
    output::Output,
    register::is_stdin,
    services::encode,
};
use crate::config::{Part, redact, service};

/// How often a change is made anew because somebody else was faster.
const ATTEMPTS: u32 = 5;

/// The endings of files that are taken from a directory.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// What files say, as one.
#[derive(Debug, Default)]
struct Wanted {
    services: BTreeMap<ServiceName, (Value, PathBuf)>,
    sections: BTreeMap<String, (Value, PathBuf)>,
    prune: bool,
}

impl Wanted {
    /// Reads all files.
    ///
    /// # Errors
    /// [`ExitStatus::Usage`], with everything that is wrong with the first file that is not valid, or what two files say.
    fn read(program: &Program, args: &FilesArgs) -> Result<Self, Failure> {
        let mut wanted = Self { prune: args.prune, ..Self::default() };
        for file in files(&args.files)? {
            let Part { services, sections } = config_file::part(program, &file)?;
            for spec in services {
                let mut document = service(&spec);
                redact::escape(&mut document);
                if let Some((_, first)) = wanted.services.insert(spec.name.clone(), (document, file.clone())) {
                    return Err(twice(&format!("service {:?}", spec.name.as_str()), &first, &file));
                }
            }
            for (name, mut section) in sections {
                redact::escape(&mut section);
                if let Some((_, first)) = wanted.sections.insert(name.clone(), (section, file.clone())) {
                    return Err(twice(&format!("section {name:?}"), &first, &file));
                }
            }
        }
        Ok(wanted)
    }

    /// Lays what the files say over the configuration in force.
    fn over(&self, mut document: Value) -> Value {
        let object = |value: &mut Value| value.as_object_mut().map(std::mem::take).unwrap_or_default();
        let mut section = document.get_mut("coredinator").map(object).unwrap_or_default();
        // Those are set at the start; they are nothing to an update.
        section.retain(|key, _| ["health_check", "config", "services", "coordination"].contains(&key.as_str()));
        let mut services = section.remove("services").map(|mut value| object(&mut value)).unwrap_or_default();
        if self.prune {
            services.clear();
        }
        services.extend(self.services.iter().map(|(name, (document, _))| (name.to_string(), document.clone())));
        section.insert("services".to_owned(), Value::Object(services));
        let mut alerts = document.get("alerts").cloned();
        for (name, (value, _)) in &self.sections {
            match name.as_str() {
                "alerts" => alerts = Some(value.clone()),
                _ => drop(section.insert(name.clone(), value.clone())),
            }
        }
        let mut whole = serde_json::Map::from_iter([("coredinator".to_owned(), Value::Object(section))]);
        whole.extend(alerts.filter(|alerts| !alerts.is_null()).map(|alerts| ("alerts".to_owned(), alerts)));
        Value::Object(whole)
    }
}

fn twice(what: &str, first: &Path, second: &Path) -> Failure {
    let message = format!("{what} is declared twice: in {} and in {}", first.display(), second.display());
    Failure::new(ExitStatus::Usage, message)
}

/// The files that are named, those of directories in the order of their names.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if is_stdin(path) || !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let cannot = |error| Failure::caused(ExitStatus::Usage, format!("cannot read {}", path.display()), &error);
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(cannot)? {
            let file = entry.map_err(cannot)?.path();
            let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if file.is_file() && ENDINGS.contains(&ending) {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            let message = format!("there is no configuration in {}", path.display());
            return Err(Failure::new(ExitStatus::Usage, message).hint("files end in .yaml, .yml or .json"));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// The document to hand in, the entity tag of the configuration it was made on, and what the server says about it.
struct Judged {
    document: Value,
    tag: String,
    validation: Value,
}

async fn judge(client: &Client, wanted: &Wanted) -> Result<Judged, Failure> {
    let (headers, current) = client.send(Method::GET, "/config/generate", None).await?;
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    let document = wanted.over(current);
    let (_, validation) = client.send(Method::POST, "/config/validate", Some(&document)).await?;
    if validation.get("valid").and_then(Value::as_bool) != Some(true) {
        let errors = validation.get("errors").and_then(Value::as_array).cloned().unwrap_or_default();
        let message = match errors.len() {
            1 => "the configuration would have an error".to_owned(),
            n => format!("the configuration would have {n} errors"),
        };
        let mut failure = Failure::new(ExitStatus::Usage, message);
        failure.details = errors.iter().map(config_view::problem).collect();
        return Err(failure);
    }
    Ok(Judged { document, tag, validation })
}

fn warn(output: &Output, of: &Value) {
    for warning in of.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        output.warn(&config_view::warning(warning));
    }
}

/// Whether a plan changes anything.
fn changes(of: &Value) -> bool {
    let list = |key: &str| of.pointer(&format!("/plan/{key}")).and_then(Value::as_array).cloned().unwrap_or_default();
    !list("sections").is_empty() || list("services").iter().any(|service| text(service, "action") != "unchanged")
}

/// `plan`.
///
/// # Errors
/// [`ExitStatus::Usage`] for files that are not valid; as [`Client::send`]. A silent one with exit code 2 where that was
/// asked for and there is something to change.
pub async fn plan(program: &Program, client: &Client, output: &Output, args: &PlanArgs) -> Result<(), Failure> {
    let judged = judge(client, &Wanted::read(program, &args.files)?).await?;
    warn(output, &judged.validation);
    let names = config_view::changed_names(&judged.validation);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    output.data(&judged.validation, &names, |_| config_view::plan(&judged.validation))?;
    if args.detailed_exitcode && changes(&judged.validation) {
        return Err(Failure::silent(ExitStatus::Usage));
    }
    Ok(())
}

/// `diff`.
///
/// # Errors
/// A silent one with exit code 1 where there are differences; any error has another code than 1.
pub async fn diff(program: &Program, client: &Client, output: &Output, args: &FilesArgs) -> Result<(), Failure> {
    let judging = async { judge(client, &Wanted::read(program, args)?).await };
    let judged = judging.await.map_err(|failure| match failure.exit {
        // 1 says that there are differences.
        ExitStatus::Failed => Failure { exit: ExitStatus::Usage, ..failure },
        _ => failure,
    })?;
    warn(output, &judged.validation);
    let names = config_view::changed_names(&judged.validation);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    output.data(&judged.validation, &names, |_| config_view::differences(&judged.validation))?;
    if changes(&judged.validation) { Err(Failure::silent(ExitStatus::Failed)) } else { Ok(()) }
}

/// The query that tells the history who and why.
pub(super) fn query(note: &NoteArgs, dry_run: bool) -> String {
    let user = || ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let author = note.author.clone().or_else(user).unwrap_or_else(|| "cli".to_owned());
    let message = note.message.as_deref().unwrap_or_default();
    format!("?author={}&message={}&dry_run={dry_run}", encode(&author), encode(message))
}

/// `apply`.
///
/// # Errors
/// [`ExitStatus::Usage`] for files that are not valid; as [`Client::send`].
pub async fn apply(program: &Program, client: &Client, output: &Output, args: &ApplyArgs) -> Result<(), Failure> {
    let wanted = Wanted::read(program, &args.files)?;
    let path = format!("/config/update{}", query(&args.note, args.dry_run));
    let mut attempt = 1;
    loop {
        let judged = judge(client, &wanted).await?;
        match client.send_if(Method::PUT, &path, &judged.tag, Some(&judged.document)).await {
            // Somebody else was faster. What the files say is laid over what that one made.
            Err(failure) if failure.exit == ExitStatus::Conflict && attempt < ATTEMPTS => attempt += 1,
            Err(failure) => return Err(failure),
            Ok((_, updated)) => {
                warn(output, &updated);
                let names = config_view::changed_names(&updated);
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                return output.data(&updated, &names, |_| config_view::updated(&updated));
            }
        }
    }
}
