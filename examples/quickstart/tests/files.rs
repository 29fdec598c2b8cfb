//! The example files say what coredinator and the quickstart's services understand.

use std::path::Path;

use clap::Parser as _;
use coredinator_http::config::{Config, Input, Loader};
use quickstart::cli::Cli;

fn load(file: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let loaded = Loader::new().input(Input::Path(path)).load().unwrap_or_else(|error| panic!("{file}: {error:#?}"));
    assert!(loaded.warnings.is_empty(), "{file}: {:#?}", loaded.warnings);
    loaded.config
}

#[test]
fn every_command_of_the_plant_is_one_that_the_quickstart_understands() {
    let config = load("plant.yaml");
    let names: Vec<&str> = config.services.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["check", "coreio", "corerl-a", "corerl-b"]);
    for spec in &config.services {
        let command = spec.command.iter().map(|word| word.replace("{port}", "8123"));
        let parsed = Cli::try_parse_from(command);
        assert!(parsed.is_ok(), "{}: {}", spec.name, parsed.err().map(|error| error.to_string()).unwrap_or_default());
    }
}

#[test]
fn the_specification_loads_as_it_stands() {
    let config = load("../spec.yaml");
    assert_eq!(config.services.len(), 2);
    assert!(config.services.iter().all(|spec| !spec.is_managed()));
    assert!(config.coordination.enabled);
}
