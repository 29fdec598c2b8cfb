//! From a spec to what is executed: placeholders, environment, the program's file.

use std::{
    collections::BTreeMap,
    env,
    ffi::{CString, OsStr, OsString},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use coredinator_core::{RuntimeError, StartRequest};

use crate::{procfs::Tags, spawn::Program};

/// Makes `request` concrete for `port`.
///
/// # Errors
/// [`RuntimeError::NotStarted`]: `WorkingDirNotFound`, `CommandNotFound`, `NotExecutable`, `InvalidText`.
pub(crate) fn prepare(request: &StartRequest, port: u16, owner: &str) -> Result<Program, RuntimeError> {
    let spec = &request.spec;
    let expand = |text: &str| expand(text, port, &spec.host, request.replica);
    let command: Vec<String> = spec.command.iter().map(|word| expand(word)).collect();
    let Some(name) = command.first() else {
        return Err(RuntimeError::not_started("CommandNotFound", "the service has no command"));
    };
    let mut environment: BTreeMap<OsString, OsString> = env::vars_os().filter(|(key, _)| is_inherited(key)).collect();
    environment.extend(spec.environment.iter().map(|(key, value)| (key.into(), expand(value).into())));
    environment.extend(request.environment.iter().map(|(key, value)| (key.into(), value.into())));
    if port != 0 {
        environment.insert(Tags::PORT.into(), port.to_string().into());
    }
    environment.insert(Tags::HOST.into(), spec.host.clone().into());
    environment.insert(Tags::SERVICE.into(), spec.name.as_str().into());
    environment.insert(Tags::INSTANCE_ID.into(), request.id.as_str().into());
    environment.insert(Tags::REPLICA.into(), request.replica.to_string().into());
    environment.insert(Tags::OWNER.into(), owner.into());

    let working_dir = spec.working_dir.as_deref().map(check_directory).transpose()?;
    let search = environment.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    let path = find_program(name, working_dir.as_deref(), &search)?;
    let variables = environment.into_iter().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    Ok(Program {
        path: text(path.as_os_str())?,
        arguments: command.iter().map(|word| text(OsStr::new(word))).collect::<Result<_, _>>()?,
        environment: variables.map(|entry| text(&entry)).collect::<Result<_, _>>()?,
        working_dir: working_dir.as_deref().map(|path| text(path.as_os_str())).transpose()?,
    })
}

/// Replaces `{port}`, `{host}` and `{replica}` wherever they stand; all other text stays, other braces too.
pub(crate) fn expand(text: &str, port: u16, host: &str, replica: u32) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        expanded.push_str(before);
        rest = if let Some(after) = from.strip_prefix("{port}") {
            expanded.push_str(&port.to_string());
            after
        } else if let Some(after) = from.strip_prefix("{host}") {
            expanded.push_str(host);
            after
        } else if let Some(after) = from.strip_prefix("{replica}") {
            expanded.push_str(&replica.to_string());
            after
        } else {
            expanded.push('{');
            &from[1..]
        };
    }
    expanded.push_str(rest);
    expanded
}

/// What coredinator's own environment says about coredinator is not a service's business, least of all its token; its port
/// would be taken for the service's.
fn is_inherited(key: &OsStr) -> bool {
    !key.as_bytes().starts_with(b"COREDINATOR_") && key != Tags::PORT
}

fn check_directory(path: &Path) -> Result<PathBuf, RuntimeError> {
    let fail = |why: String| {
        RuntimeError::not_started("WorkingDirNotFound", format!("working directory {}: {why}", path.display()))
    };
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => absolute(path).map_err(|error| fail(error.to_string())),
        Ok(_) => Err(fail("not a directory".to_owned())),
        Err(error) => Err(fail(error.to_string())),
    }
}

fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}

/// A name with a `/` is a path, relative to the working directory; any other is looked for along the service's `PATH`.
fn find_program(name: &str, working_dir: Option<&Path>, search: &OsStr) -> Result<PathBuf, RuntimeError> {
    let anchored = |path: &Path| {
        let path = working_dir.map_or_else(|| path.to_owned(), |directory| directory.join(path));
        absolute(&path).unwrap_or(path)
    };
    if name.contains('/') {
        let path = anchored(Path::new(name));
        return check_program(&path).map(|()| path);
    }
    let candidates = env::split_paths(search).map(|directory| anchored(&directory).join(name));
    let mut refused = None;
    for path in candidates {
        match check_program(&path) {
            Ok(()) => return Ok(path),
            Err(error @ RuntimeError::NotStarted { .. }) if path.is_file() => refused = refused.or(Some(error)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        RuntimeError::not_started("CommandNotFound", format!("no program named {name:?} along PATH"))
    }))
}

/// Says in words what `exec` would only say in a number.
fn check_program(path: &Path) -> Result<(), RuntimeError> {
    let refuse = |code, why: &str| Err(RuntimeError::not_started(code, format!("{}: {why}", path.display())));
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => refuse("CommandNotFound", "no such file"),
        Err(error) => refuse("CommandNotFound", &error.to_string()),
        Ok(metadata) if metadata.is_dir() => refuse("NotExecutable", "is a directory"),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => refuse("NotExecutable", "is not executable"),
        Ok(_) => Ok(()),
    }
}

fn text(text: &OsStr) -> Result<CString, RuntimeError> {
    CString::new(text.as_bytes())
        .map_err(|_| RuntimeError::not_started("InvalidText", format!("{:?} holds a NUL byte", text.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn placeholders() {
        let expanded = |text| expand(text, 8080, "h", 3);
        assert_eq!(expanded("--listen={host}:{port}"), "--listen=h:8080");
        assert_eq!(expanded("{port}{port}{replica}"), "808080803");
        assert_eq!(expanded("{{port}} {ports} {PORT} {"), "{8080} {ports} {PORT} {");
    }

    proptest! {
        #[test]
        fn text_without_placeholders_stays(text in "\\PC*") {
            prop_assume!(["{port}", "{host}", "{replica}"].iter().all(|placeholder| !text.contains(placeholder)));
            prop_assert_eq!(expand(&text, 1, "h", 2), text);
        }

        #[test]
        fn as_if_replaced_one_after_the_other(parts in proptest::collection::vec("(\\{port\\}|\\{host\\}|\\{replica\\}|[{}a-z]{0,3})", 0..9), port: u16) {
            let text = parts.concat();
            let plain = text.replace("{port}", &port.to_string()).replace("{host}", "h").replace("{replica}", "2");
            prop_assert_eq!(expand(&text, port, "h", 2), plain);
        }
    }
}
