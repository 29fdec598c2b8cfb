//! Configuration files on the command line: `config check`, `config show`, and whoever else reads one.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use coredinator_core::{Runtime, ServiceSpec};
#[cfg(feature = "docker")]
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
#[cfg(feature = "kubernetes")]
use coredinator_runtime_k8s::{KubernetesRuntime, KubernetesRuntimeOptions};
use coredinator_runtime_process::{ProcessRuntime, ProcessRuntimeOptions};
use serde_json::{Map, Value, json};

use super::{
    ExitStatus, Failure, Program,
    args::SettingsArgs,
    output::{Format, Output},
    paint::{self, Colour, paint},
    register::is_stdin,
};
use crate::{
    config::{Checks, Input, LoadError, Loaded, Loader, Part, Problem, load_part, load_services, yaml},
    reload::Read,
};

/// The files that are looked for where none is named.
const DEFAULT_FILES: [&str; 3] = ["coredinator.yaml", "coredinator.yml", "coredinator.json"];
/// How many problems are told before the rest is only counted.
const MAX_TOLD: usize = 50;

/// The file to read: the one that was named, else the one that is there.
#[must_use]
pub fn input(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists()))
}

fn read(path: &Path) -> Result<Input, Failure> {
    if !is_stdin(path) {
        return Ok(Input::Path(path.to_owned()));
    }
    let mut text = Vec::new();
    let limit = crate::config::document::MAX_BYTES as u64 + 1;
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut text);
    read.map_err(|error| Failure::caused(ExitStatus::Usage, "cannot read standard input", &error))?;
    Ok(Input::Text { name: "standard input".to_owned(), text, folder: PathBuf::new() })
}

/// The runtimes by which files are checked: the built-in ones, and the program's own.
fn runtimes(program: &Program) -> Vec<Arc<dyn Runtime>> {
    // It only judges specs here: nothing is started, so nothing is written and nobody owns anything.
    let process = ProcessRuntime::new(ProcessRuntimeOptions::new("", "config-check"));
    let process = process.ok().map(|runtime| Arc::new(runtime) as Arc<dyn Runtime>);
    let runtimes = program.runtimes.iter().cloned().chain(process);
    #[cfg(feature = "docker")]
    let runtimes = runtimes.chain([Arc::new(DockerRuntime::new(DockerRuntimeOptions::new("config-check"))) as _]);
    #[cfg(feature = "kubernetes")]
    let runtimes =
        runtimes.chain([Arc::new(KubernetesRuntime::new(KubernetesRuntimeOptions::new("config-check"))) as _]);
    runtimes.collect()
}

fn checks<'a>(program: &'a Program, runtimes: &'a [Arc<dyn Runtime>]) -> Checks<'a> {
    Checks::default()
        .with_runtimes(runtimes)
        .with_probe_check(|check| program.probes.validate(check))
        .with_strategies(program.strategies.clone())
}

/// Loads the configuration in force: of `named` or the default file, the environment and the flags.
///
/// # Errors
/// [`ExitStatus::Usage`], with everything that is wrong.
pub fn load(program: &Program, settings: &SettingsArgs) -> Result<Loaded, Failure> {
    let input = input(settings.config.as_deref()).as_deref().map_or(Ok(Input::None), read)?;
    let runtimes = runtimes(program);
    let loader = Loader::new().input(input).process_environment().overrides(settings.overrides());
    loader.checks(checks(program, &runtimes)).load().map_err(|error| failure(&error))
}

/// What one of several files says.
///
/// # Errors
/// [`ExitStatus::Usage`], with everything that is wrong.
pub fn part(program: &Program, file: &Path) -> Result<Part, Failure> {
    let runtimes = runtimes(program);
    load_part(read(file)?, environment(), checks(program, &runtimes)).map_err(|error| failure(&error))
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Loads the same configuration again whenever it is called.
#[must_use]
pub fn reader(program: &Program, settings: &SettingsArgs) -> Read {
    let (runtimes, probes, strategies) = (runtimes(program), program.probes.clone(), program.strategies.clone());
    // Where nobody named a file it is the one that was found, whatever appears beside it later.
    let (path, overrides) = (input(settings.config.as_deref()), settings.overrides());
    Arc::new(move || {
        let checks = Checks::default()
            .with_runtimes(&runtimes)
            .with_probe_check(|check| probes.validate(check))
            .with_strategies(strategies.clone());
        let input = path.clone().map_or(Input::None, Input::Path);
        Loader::new().input(input).process_environment().overrides(overrides.clone()).checks(checks).load()
    })
}

/// The services of a file, which may be a whole configuration.
///
/// # Errors
/// [`ExitStatus::Usage`], with everything that is wrong.
pub fn services(program: &Program, file: &Path) -> Result<Vec<ServiceSpec>, Failure> {
    let runtimes = runtimes(program);
    load_services(read(file)?, environment(), checks(program, &runtimes)).map_err(|error| failure(&error))
}

fn failure(error: &LoadError) -> Failure {
    let problems = error.problems();
    let message = match problems.len() {
        0 => return Failure::caused(ExitStatus::Usage, error.to_string(), source(error)),
        1 => "the configuration has an error".to_owned(),
        many => format!("the configuration has {many} errors"),
    };
    let mut failure = Failure::new(ExitStatus::Usage, message);
    failure.details = problems.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    if let Some(rest) = problems.len().checked_sub(MAX_TOLD).filter(|rest| *rest > 0) {
        failure.details.push(format!("and {rest} more"));
    }
    failure
}

fn source(error: &LoadError) -> &(dyn std::error::Error + 'static) {
    std::error::Error::source(error).unwrap_or(error)
}

/// Tells what is doubtful.
pub fn warn(output: &Output, loaded: &Loaded) {
    for warning in &loaded.warnings {
        output.warn(&format!("{} {}", paint(Colour::Yellow, "warning:"), paint::clean_lines(&warning.to_string())));
    }
}

/// `config show`.
///
/// # Errors
/// [`ExitStatus::Usage`], with everything that is wrong.
pub fn show(program: &Program, output: &Output, settings: &SettingsArgs) -> Result<(), Failure> {
    let loaded = load(program, settings)?;
    warn(output, &loaded);
    let document = loaded.config.to_document();
    let names: Vec<&str> = loaded.config.services.iter().map(|spec| spec.name.as_str()).collect();
    let value = match output.format {
        Format::Json => json!({ "config": document, "origins": origins(&loaded, &document) }),
        _ => document,
    };
    output.data(&value, &names, |_| annotated(&loaded, &value))
}

/// `config check`.
///
/// # Errors
/// [`ExitStatus::Usage`], with everything that is wrong.
pub fn check(program: &Program, output: &Output, file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = input(file) else {
        return Err(Failure::new(ExitStatus::Usage, "there is no coredinator.yaml here").hint("name the file to check"));
    };
    let runtimes = runtimes(program);
    let loader = Loader::new().input(read(&file)?).process_environment();
    let result = loader.checks(checks(program, &runtimes)).load();
    let list = |problems: &[Problem]| -> Vec<Value> { problems.iter().map(problem_json).collect() };
    match result {
        Ok(loaded) => {
            warn(output, &loaded);
            let managed = loaded.config.services.iter().filter(|spec| spec.is_managed()).count();
            let external = loaded.config.services.len() - managed;
            let value = json!({ "ok": true, "managed": managed, "external": external, "warnings": list(&loaded.warnings), "errors": [] });
            let names: Vec<&str> = loaded.config.services.iter().map(|spec| spec.name.as_str()).collect();
            let text = format!(
                "{} is valid: {managed} managed and {external} external services\n",
                paint::clean(&file.display().to_string())
            );
            output.data(&value, &names, |_| text)
        }
        Err(error) => {
            if matches!(output.format, Format::Json | Format::Yaml) && !error.problems().is_empty() {
                output.data(&json!({ "ok": false, "warnings": [], "errors": list(error.problems()) }), &[], |_| {
                    String::new()
                })?;
                return Err(Failure::silent(ExitStatus::Usage));
            }
            Err(failure(&error))
        }
    }
}

fn problem_json(problem: &Problem) -> Value {
    let position = problem.position();
    json!({
        "origin": problem.origin.to_string(),
        "line": position.map(|at| at.line),
        "column": position.map(|at| at.column),
        "pointer": problem.pointer,
        "detail": problem.detail,
        "hint": problem.hint,
    })
}

/// The document with the origin of each value behind it.
fn annotated(loaded: &Loaded, document: &Value) -> String {
    yaml::write_with(document, &|pointer| Some(paint(Colour::Dim, &paint::clean(&loaded.origin(pointer).to_string()))))
}

/// The origin of each value by its pointer.
fn origins(loaded: &Loaded, document: &Value) -> Map<String, Value> {
    let mut origins = Map::new();
    let mut left = vec![(String::new(), document)];
    while let Some((pointer, value)) = left.pop() {
        match value {
            Value::Object(map) if !map.is_empty() => {
                left.extend(map.iter().map(|(key, value)| (coredinator_core::field::join(&pointer, key), value)));
            }
            Value::Array(list) if !list.is_empty() => {
                left.extend(list.iter().enumerate().map(|(i, value)| (format!("{pointer}/{i}"), value)));
            }
            _ => drop(origins.insert(pointer.clone(), loaded.origin(&pointer).to_string().into())),
        }
    }
    origins
}
