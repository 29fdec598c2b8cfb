//! The file that holds a service's schema, read where coredinator's file names it.

use std::path::Path;

use coredinator_core::{FieldError, field::join};
use serde_json::Value;

use super::document::Document;

/// The longest file of a schema that is read, in bytes: 4 MiB.
const LONGEST: u64 = 4 << 20;

/// Puts the schema in place of the path of its file, which is relative to `folder`, in a service's document at `pointer`. The
/// file is JSON, or YAML; a dollar sign in it is a dollar sign.
pub(super) fn read_in_place(pointer: &str, service: &mut Value, folder: &Path) -> Vec<FieldError> {
    let Some(named) = service.get("config_schema").and_then(Value::as_str) else { return Vec::new() };
    let path = folder.join(named);
    let at = join(pointer, "config_schema");
    let (schema, error) = match read(&path) {
        Ok(schema) if schema.is_object() || schema.is_boolean() => (Some(schema), None),
        Ok(_) => (None, Some(FieldError::new(at, format!("{} holds no schema", path.display())))),
        Err(error) => {
            let error = FieldError::new(at, format!("cannot read {}: {error}", path.display()));
            (
                None,
                Some(
                    error
                        .with_hint("name the file of a JSON Schema, relative to this file, or write the schema itself"),
                ),
            )
        }
    };
    // One that cannot be read is told once.
    service["config_schema"] = schema.unwrap_or_default();
    error.into_iter().collect()
}

fn read(path: &Path) -> Result<Value, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let faults = match Document::parse_plain(&text) {
        Ok(document) => return Ok(document.value()),
        Err(faults) => faults,
    };
    Err(faults.first().map_or_else(String::new, |fault| format!("{}: {}", fault.position, fault.detail)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::{Checks, Input, LoadError, Loader, load_services};

    #[test]
    fn the_file_of_a_schema_is_read_in_place_and_what_is_wrong_with_it_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
        write("good.yaml", b"properties:\n  rate: {enum: ['$${x}']}\n");
        write("good.json", br#"{"properties": {"rate": {"enum": ["$${x}"]}}}"#);
        write("number.json", b"7");
        write("broken.json", b"{");
        write("bytes.json", b"\xff");
        write("large.json", &vec![b' '; 5 << 20]);
        std::fs::create_dir(folder.path().join("folder.json")).unwrap();
        let input = |name: &str, text: String| Input::Text {
            name: name.into(),
            text: text.into(),
            folder: folder.path().into(),
        };
        let service =
            |schema: &str| format!("runtime: process, command: x, config: {{rate: '1'}}, config_schema: {schema}");
        let load = |schema: &str| {
            let text = format!("coredinator:\n  services:\n    a: {{{}}}\n", service(schema));
            Loader::new().input(input("plant.yaml", text)).load()
        };
        let schema = Some(json!({"properties": {"rate": {"enum": ["$${x}"]}}}));
        for name in ["good.yaml", "./good.json", folder.path().join("good.json").to_str().unwrap()] {
            // It is another text; and a program that reads no schemas refuses any.
            let Err(LoadError::Invalid(problems)) = load(name) else { panic!("{name} was not read") };
            let at = if cfg!(feature = "json-schema") { "config/rate" } else { "config_schema" };
            assert_eq!(problems[0].pointer, format!("/coredinator/services/a/{at}"), "{problems:?}");
            let list = input("services.yaml", format!("- {{name: a, {}}}", service(name)));
            let services = load_services(list, Vec::new(), Checks::default()).unwrap();
            assert_eq!(services[0].config.schema, schema);
        }
        for (name, says) in [
            ("gone.json", "No such file"),
            ("number.json", "holds no schema"),
            ("broken.json", "1:"),
            ("bytes.json", "UTF-8"),
            ("large.json", "more than 4194304 bytes"),
            ("folder.json", "directory"),
        ] {
            let Err(LoadError::Invalid(problems)) = load(name) else { panic!("{name} was taken") };
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].pointer, "/coredinator/services/a/config_schema");
            assert_eq!(problems[0].position().map(|at| at.line), Some(3));
            assert!(problems[0].detail.contains(says), "{name}: {problems:?}");
            let list = input("services.yaml", format!("- {{name: a, {}}}", service(name)));
            assert!(load_services(list, Vec::new(), Checks::default()).is_err(), "{name}");
        }
    }
}
