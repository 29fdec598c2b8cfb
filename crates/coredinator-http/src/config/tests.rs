//! Golden tests of loading: what people write, and what they are told.

use std::{path::Path, time::Duration};

use coredinator_core::{FieldError, RestartPolicy};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The YAML of the specification, word for word.
const SPECIFICATION: &str = r#"coredinator:
  host: "0.0.0.0"
  port: 8002
  
  services:
    corerl:
      host: "localhost"
      port: 8000
      health_endpoint: "/api/corerl/health"
      restart_policy: "always"
      
    coreio:
      host: "localhost" 
      port: 8001
      health_endpoint: "/api/coreio/health"
      restart_policy: "on-failure"
      
  health_check:
    interval: 30  # seconds
    timeout: 10   # seconds
    retries: 3
    
  coordination:
    enabled: true
    sync_interval: 1.0  # seconds
    conflict_resolution: "priority_based"
"#;

const ALERTS: &str = r#"alerts:
  - name: ServiceDown
    condition: service_health == 0
    duration: 60s
    severity: critical
    
  - name: HighResponseTime
    condition: avg_response_time > 1000ms
    duration: 300s
    severity: warning
"#;

fn loader(text: &str) -> Loader<'static> {
    let input = Input::Text { name: "c.yaml".into(), text: text.into(), folder: "/etc/plant".into() };
    Loader::new().input(input)
}

fn load(text: &str) -> Loaded {
    loader(text).load().unwrap_or_else(|error| panic!("{error}"))
}

/// The problems as lines, without excerpts.
fn problems(loader: Loader<'_>) -> Vec<String> {
    let line = |problem: &Problem| Problem { excerpt: None, ..problem.clone() }.to_string();
    loader.load().unwrap_err().problems().iter().map(line).collect()
}

fn service(body: &str) -> String {
    format!("coredinator:\n  services:\n    a:\n      {}\n", body.replace('\n', "\n      "))
}

#[test]
fn the_specification_loads_verbatim() {
    for text in [SPECIFICATION.to_owned(), format!("{SPECIFICATION}{ALERTS}"), ALERTS.to_owned()] {
        let loaded = load(&text);
        let config = loaded.config;
        if text.contains("coredinator:") {
            assert_eq!((config.host.as_str(), config.port), ("0.0.0.0", 8002));
            let names: Vec<&str> = config.services.iter().map(|spec| spec.name.as_str()).collect();
            assert_eq!(names, ["corerl", "coreio"], "in the order of the file");
            assert_eq!(config.services[1].restart_policy, RestartPolicy::OnFailure { max: None });
            assert!(config.services.iter().all(|spec| !spec.is_managed()));
            assert_eq!(config.coordination.groups["default"].conflict_resolution, "priority_based");
            assert_eq!(loaded.warnings, []);
        }
        assert_eq!(config.alerts.is_some(), text.contains("alerts:"));
    }
}

#[test]
fn json_is_read_too() {
    let loaded = load(r#"{"coredinator": {"port": 9, "services": {"a": {"port": 1, "labels": {"line": "a"}}}}}"#);
    assert_eq!((loaded.config.port, loaded.config.services.len()), (9, 1));
}

#[test]
fn without_a_file_the_defaults_hold() {
    let config = Loader::new().load().unwrap().config;
    assert_eq!((config.host.as_str(), config.port, config.services.len()), ("127.0.0.1", 8002, 0));
    assert_eq!(config.data_dir, Path::new(".coredinator"));
    assert_eq!(config.health_check, CheckTiming::default());
}

#[test]
fn later_layers_win_and_every_value_tells_its_origin() {
    let text = "coredinator:\n  host: 10.0.0.1\n  port: 1\n  data_dir: state\n  health_check: {interval: 5}\n  services:\n    a: {port: 7, health_check: {retries: 2}}\n";
    let environment = [
        ("COREDINATOR_PORT", "2"),
        ("COREDINATOR_HEALTH_CHECK__TIMEOUT", "250ms"),
        ("DATABASE_URL", "postgres://me:secret@db/x"),
        ("COREDINATOR_ADDR", "http://elsewhere"),
        ("COREDINATOR_HOST", ""),
    ];
    let flags = Overrides { port: Some(3), ..Overrides::default() };
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = loader(text).environment(environment).overrides(flags).load().unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!((loaded.config.host.as_str(), loaded.config.port), ("10.0.0.1", 3));
    assert_eq!(loaded.config.data_dir, Path::new("/etc/plant/state"), "relative to the file");
    let check = loaded.config.services[0].health_check.as_ref().unwrap();
    assert_eq!((check.timing.interval, check.timing.timeout), (Duration::from_secs(5), Duration::from_millis(250)));
    for (pointer, origin) in [
        ("/coredinator/host", "c.yaml:2:3"),
        ("/coredinator/port", "--port"),
        ("/coredinator/data_dir", "c.yaml:4:3"),
        ("/coredinator/detach", "default"),
        ("/coredinator/database_url", "DATABASE_URL"),
        ("/coredinator/health_check/interval", "c.yaml:5:18"),
        ("/coredinator/health_check/timeout", "COREDINATOR_HEALTH_CHECK__TIMEOUT"),
        ("/coredinator/health_check/retries", "default"),
        ("/coredinator/services/a/port", "c.yaml:7:9"),
        ("/coredinator/services/a/host", "default"),
        ("/coredinator/services/a/health_check/retries", "c.yaml:7:33"),
        ("/coredinator/services/a/health_check/interval", "c.yaml:5:18"),
        ("/coredinator/services/a/health_check/timeout", "COREDINATOR_HEALTH_CHECK__TIMEOUT"),
    ] {
        assert_eq!(loaded.origin(pointer).to_string(), origin, "{pointer}");
    }
    let shown = loaded.config.to_document();
    assert_eq!(shown["coredinator"]["database_url"], "postgres://me:***@db/x");
    assert!(!format!("{:?}", loaded.config).contains("secret"));
}

#[test]
fn errors_of_other_layers_name_them() {
    let environment = [("COREDINATOR_PORT", "x"), ("COREDINATOR_HEALTH_CHECK__RETRIES", "0")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        problems(loader(SPECIFICATION).environment(environment)),
        [
            "COREDINATOR_PORT: coredinator.port: expected a whole number of 0 to 65535, but found \"x\"",
            "COREDINATOR_HEALTH_CHECK__RETRIES: coredinator.health_check.retries: must be at least 1, but is 0",
        ]
    );
}

#[test]
fn doubtful_variables_are_warned_of() {
    let environment = [("COREDINATOR_PRT", "1"), ("COREDINATOR_PORT", "tcp://10.0.0.1:8002"), ("COREDINATOR_URL", "x")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = Loader::new().environment(environment).load().unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(loaded.config.port, 8002);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0], "COREDINATOR_PRT: unknown variable: passed over\n  hint: did you mean COREDINATOR_PORT?");
    assert!(warnings[1].starts_with("COREDINATOR_PORT: \"tcp://10.0.0.1:8002\" is an address"));
}

#[test]
fn every_error_is_told_at_once_with_its_place() {
    let text = "coredinator:
  prot: 8002
  health_check: {interval: -1}
  services:
    corerl:
      runtime: process
      comand: ./corerl
      restart_policy: sometimes
    Bad_Name: {port: 1}
    coreio:
      host: localhost
    other: 3
servces: {}
";
    assert_eq!(
        problems(loader(text)),
        [
            "c.yaml:13:1: servces: unknown field \"servces\"",
            "c.yaml:3:18: coredinator.health_check.interval: expected a duration: a number of seconds, or text such as \"250ms\" or \"1m30s\", but found -1",
            "c.yaml:2:3: coredinator.prot: unknown field \"prot\"\n  hint: did you mean \"port\"?",
            "c.yaml:9:5: coredinator.services.Bad_Name.name: a service's name must consist of a-z, 0-9 and '-', but has 'B'",
            "c.yaml:10:5: coredinator.services.coreio.port: an external service needs the port at which it is reached",
            "c.yaml:8:7: coredinator.services.corerl.restart_policy: unknown restart policy \"sometimes\" (one of no, always, on-failure, on-failure:N with N >= 1, unless-stopped)",
            "c.yaml:12:5: coredinator.services.other: expected an object, but found a number",
        ]
    );
    let error = loader("coredinator:\n  prot: 1\n").load().unwrap_err();
    assert_eq!(
        error.problems()[0].to_string(),
        "c.yaml:2:3: coredinator.prot: unknown field \"prot\"\n  2 |   prot: 1\n    |   ^\n  hint: did you mean \"port\"?"
    );
}

#[test]
fn what_is_not_a_document_is_told_with_its_place() {
    for (text, wanted) in [
        ("", "c.yaml: the file is empty\n  hint: a file begins with \"coredinator:\", and \"services:\" below it"),
        (
            "# nothing\n",
            "c.yaml: the file is empty\n  hint: a file begins with \"coredinator:\", and \"services:\" below it",
        ),
        ("[1]", "c.yaml: expected an object, but found a list"),
        ("coredinator: 3", "c.yaml:1:1: coredinator: expected an object, but found a number"),
        (
            "coredinator:\n  services: [a]",
            "c.yaml:2:3: coredinator.services: expected a map from names to services, but found a list",
        ),
        ("a: 1\n---\nb: 2\n", "c.yaml:2:1: a second document begins here; a file holds one"),
        ("coredinator: {port: 1, port: 2}", "c.yaml:1:24: key \"port\" is given twice, first in line 1"),
        ("coredinator: !mine {}", "c.yaml:1:14: the tag !mine means nothing here"),
        (
            "coredinator: {[a]: 1}",
            "c.yaml:1:15: a key must be a text\n  hint: quote it if it starts with one of [ { & * ?",
        ),
        (
            "services: {}",
            "c.yaml:1:1: services: unknown field \"services\"\n  hint: it belongs below \"coredinator:\", indented: coredinator.services",
        ),
        ("coredinator: {port: .nan}", "c.yaml:1:21: not a finite number"),
    ] {
        assert_eq!(problems(loader(text)), [wanted], "{text:?}");
    }
    let tab = problems(loader("coredinator:\n\thost: x\n"));
    assert!(tab[0].starts_with("c.yaml:2:") && tab[0].ends_with("hint: indent with spaces, not tabs"), "{tab:?}");
    let unquoted = problems(loader("coredinator: {port: ${PORT}}\n"));
    assert!(unquoted[0].ends_with("hint: inside { } and [ ], quote a text that holds ${…}"), "{unquoted:?}");
    let broken = problems(loader("coredinator: {port: 1\n"));
    assert!(broken[0].contains("not valid YAML"), "{broken:?}");
    let input = Input::Text { name: "c.yaml".into(), text: b"a: 1\nbc\xff".to_vec(), folder: "/".into() };
    assert_eq!(
        problems(Loader::new().input(input)),
        ["c.yaml:2:3: this byte is not UTF-8\n  hint: save the file as UTF-8"]
    );
    let absent = Loader::new().input(Input::Path("/nonexistent/c.yaml".into())).load().unwrap_err();
    assert_eq!(absent.to_string(), "cannot read /nonexistent/c.yaml");
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "x-base: &base {runtime: process, command: [sleep, '9'], replicas: 2}
coredinator:
  services:
    a: {<<: *base, replicas: 3}
    b: {replicas: 4, <<: [*base]}
    c: *base
";
    let replicas: Vec<u32> = load(text).config.services.iter().map(|spec| spec.replicas).collect();
    assert_eq!(replicas, [3, 4, 2]);
    assert_eq!(problems(loader("a: {<<: 3}"))[0], "c.yaml:1:9: only maps can be merged by \"<<\"");
}

#[test]
fn bombs_are_refused_before_they_burst() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..30 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    assert!(problems(loader(&laughs))[0].contains("written out in full"));
    let mut chain = String::from("a0: &a0 [x]\n");
    for i in 1..200 {
        chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(problems(loader(&chain))[0].contains("nested more than"));
    assert!(!problems(loader(&"[".repeat(100_000))).is_empty());
    assert!(problems(loader(&"- ".repeat(100_000)))[0].contains("nested more than"));
    assert!(problems(loader(&"x".repeat(17 << 20)))[0].contains("at most 16777216 are read"));
    assert!(problems(loader(&format!("{}: 1", "k".repeat(1000))))[0].contains("a key of 1000 bytes"));
    assert!(!problems(loader(&"{\"a\n".repeat(1 << 20))).is_empty());
}

#[test]
fn variables_are_replaced_and_keep_their_types() {
    let text = "coredinator:\n  port: ${PORT:-9000}\n  host: ${HOST}\n  services:\n    a: {port: 1, labels: {price: $$5, quoted: '${N}', plain: 'x${N}'}}\n";
    let environment = [("HOST", "10.0.0.1"), ("N", "7")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = loader(text).environment(environment).load().unwrap().config;
    assert_eq!((config.port, config.host.as_str()), (9000, "10.0.0.1"));
    assert_eq!(config.services[0].labels["price"], "$5");
    assert_eq!(config.services[0].labels["quoted"], "7");
    assert_eq!(
        problems(loader(text)),
        [
            "c.yaml:3:9: variable HOST is not set\n  hint: set HOST, give a default (${HOST:-value}), or write $${HOST} for the text itself",
            "c.yaml:5:47: variable N is not set\n  hint: set N, give a default (${N:-value}), or write $${N} for the text itself",
            "c.yaml:5:62: variable N is not set\n  hint: set N, give a default (${N:-value}), or write $${N} for the text itself"
        ]
    );
}

#[test]
fn paths_are_relative_to_the_file() {
    let place = |body: &str| {
        let spec = load(&service(body)).config.services.remove(0);
        (spec.command.first().cloned().unwrap_or_default(), spec.working_dir.unwrap_or_default())
    };
    let pair = |program: &str, dir: &str| (program.to_owned(), PathBuf::from(dir));
    assert_eq!(place("runtime: process\ncommand: ./run -x"), pair("/etc/plant/run", "/etc/plant"));
    assert_eq!(place("runtime: process\ncommand: [python3]\nworking_dir: sub"), pair("python3", "/etc/plant/sub"));
    assert_eq!(place("runtime: process\ncommand: ./x\nworking_dir: sub"), pair("/etc/plant/sub/x", "/etc/plant/sub"));
    assert_eq!(place("runtime: process\ncommand: /bin/x\nworking_dir: /tmp"), pair("/bin/x", "/tmp"));
    assert_eq!(place("runtime: docker\ncommand: ./run\nworking_dir: app"), pair("./run", "app"), "inside a container");
}

#[test]
fn what_is_wrong_between_services() {
    let text = "coredinator:
  services:
    a: {runtime: process, command: x, depends_on: [b], port: 5}
    b: {runtime: process, command: x, depends_on: {c: {condition: service_healthy}}, port: 5, host: 127.0.0.1}
    c: {runtime: process, command: x, depends_on: [b, coreoi], port: 8002}
    coreio: {port: 5, depends_on: {absent: {required: false}}}
";
    assert_eq!(
        problems(loader(text)),
        [
            "c.yaml:5:39: coredinator.services.c.depends_on.coreoi: there is no service \"coreoi\"\n  hint: did you mean \"coreio\"?",
            "c.yaml:4:52: coredinator.services.b.depends_on.c: dependency cycle: b -> c -> b",
            "c.yaml:4:86: coredinator.services.b.port: service \"a\" is at localhost:5 too\n  hint: use another port, or port: 0, which allocates a free one",
            "c.yaml:5:64: coredinator.services.c.port: coredinator itself listens on port 8002\n  hint: use another port, or port: 0, which allocates a free one",
        ]
    );
    let text =
        "coredinator:\n  services:\n    a: {port: 5, depends_on: {absent: {required: false}}}\n    b: {port: 5}\n";
    let warnings: Vec<String> = load(text).warnings.iter().map(|warning| warning.detail.clone()).collect();
    assert_eq!(warnings, ["there is no service \"absent\"", "service \"a\" is at localhost:5 too"]);
}

#[test]
fn runtimes_and_probes_are_asked() {
    let checks = Checks::default()
        .with_runtime_check(|_| vec![FieldError::new("/image", "unknown field \"image\"")])
        .with_probe_check(|_| vec![FieldError::new("/path", "not to my taste")]);
    assert_eq!(
        problems(loader(&service("runtime: process\ncommand: x\nimage: y\nhealth_endpoint: /h")).checks(checks)),
        [
            "c.yaml:6:7: coredinator.services.a.image: unknown field \"image\"",
            "c.yaml:3:5: coredinator.services.a.health_check.path: not to my taste"
        ]
    );
    let none: [std::sync::Arc<dyn coredinator_core::Runtime>; 0] = [];
    let unknown =
        problems(loader(&service("runtime: proces\ncommand: x")).checks(Checks::default().with_runtimes(&none)));
    assert!(unknown[0].starts_with("c.yaml:4:7: coredinator.services.a.runtime: unknown runtime \"proces\""));
}

#[test]
fn a_document_that_is_shown_loads_again() {
    let text = format!("{SPECIFICATION}{ALERTS}");
    let config = load(&text).config;
    let again = load(&config.to_document().to_string()).config;
    let sorted = |mut config: Config| {
        config.services.sort_by(|a, b| a.name.cmp(&b.name));
        config
    };
    assert_eq!(sorted(again), sorted(config));
    assert_eq!(
        load(&service("runtime: process\ncommand: x\nenvironment: {DB_PASSWORD: p, LOG: i}")).config.to_document()["coredinator"]
            ["services"]["a"]["environment"],
        json!({"DB_PASSWORD": "***", "LOG": "i"})
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_makes_it_panic(text in prop::collection::vec(prop::sample::select(vec![
        "coredinator", ":", " ", "\n", "\n  ", "services", "a", "- ", "[", "]", "{", "}", "&x ", "*x", "<<", "!!int ", "!t ",
        "'", "\"", "|", ">", "\t", "#", "---", "...", "? ", ",", "${A}", "$${", "\u{feff}", "é", "\0", "1e999", "port", "%YAML 1.2", "\\", "~",
    ]), 0..60)) {
        let _ = loader(&text.concat()).load();
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let input = Input::Text { name: "c.yaml".into(), text: bytes, folder: "/".into() };
        let _ = Loader::new().input(input).load();
    }

    #[test]
    fn a_spoiled_specification_does_not_make_it_panic(cut in 0usize..600, insert in "\\PC{0,6}") {
        let mut text = SPECIFICATION.to_owned();
        let at = text.floor_char_boundary(cut.min(text.len()));
        text.insert_str(at, &insert);
        let _ = loader(&text).load();
    }
}

#[test]
fn services_are_read_from_either_form() {
    let read = |text: &str| {
        let input = Input::Text { name: "s.yaml".into(), text: text.into(), folder: "/srv".into() };
        load_services(input, Vec::new(), Checks::default())
    };
    let names =
        |text: &str| -> Vec<String> { read(text).unwrap().into_iter().map(|spec| spec.name.to_string()).collect() };
    assert_eq!(names("name: a\nport: 1\n"), ["a"]);
    assert_eq!(names("- {name: b, port: 1}\n- {name: a, port: 2}\n"), ["b", "a"]);
    assert_eq!(names(SPECIFICATION), ["corerl", "coreio"]);
    assert_eq!(read("{name: a, runtime: process, command: ./x}").unwrap()[0].command, ["/srv/x"]);
    let wrong = |text: &str| -> Vec<String> {
        read(text).unwrap_err().problems().iter().map(|p| Problem { excerpt: None, ..p.clone() }.to_string()).collect()
    };
    assert_eq!(
        wrong("- {name: a, prot: 1}\n- {port: 2}\n"),
        [
            "s.yaml:1:3: 0.port: an external service needs the port at which it is reached",
            "s.yaml:1:13: 0.prot: unknown field \"prot\"\n  hint: did you mean \"port\"?",
            "s.yaml:2:3: 1.name: a service needs a name",
        ]
    );
    assert_eq!(
        wrong("")[0],
        "s.yaml: the file is empty\n  hint: a service has at least a name, and a port or a command"
    );
}

#[test]
fn coordination_is_read_as_the_rest() {
    let config = load(SPECIFICATION).config.coordination;
    assert_eq!(config, load("coredinator: {}").config.coordination, "what the specification says is what holds anyway");
    assert!(config.enabled);
    let text = "coredinator:
  coordination:
    enabld: true
    sync_interval: soon
    conflict_resolution: centralised
    resources:
      steam: {capacity: -1}
    groups:
      line-b: {conflict_resolution: {priority_based: {when_it_does_not_fit: wait}}}
";
    let told = problems(loader(text));
    for start in [
        "c.yaml:3:5: coredinator.coordination.enabld: unknown field \"enabld\"\n  hint: did you mean \"enabled\"?",
        "c.yaml:4:5: coredinator.coordination.sync_interval: not a duration: \"soon\"",
        "c.yaml:5:5: coredinator.coordination.conflict_resolution: unknown strategy \"centralised\"\n  hint: did you mean \"centralized\"?",
        "c.yaml:7:15: coredinator.coordination.resources.steam.capacity: must be an amount of 0 or more, at most 1e15, but is -1",
        "c.yaml:9:55: coredinator.coordination.groups.line-b.conflict_resolution.priority_based.when_it_does_not_fit: ",
    ] {
        assert!(told.iter().any(|told| told.starts_with(start)), "{start}\n{told:#?}");
    }
    assert_eq!(told.len(), 5, "{told:#?}");
    assert_eq!(
        problems(loader("coredinator:\n  coordination:\n    sync_interval: 0\n    ttl: 366d\n")),
        [
            "c.yaml:3:5: coredinator.coordination.sync_interval: must be at least 10 ms, but is 0 s",
            "c.yaml:4:5: coredinator.coordination.ttl: must be at most a year (365d)",
        ]
    );
    assert_eq!(
        problems(loader("coordination: {}")),
        [
            "c.yaml:1:1: coordination: unknown field \"coordination\"\n  hint: it belongs below \"coredinator:\", indented: coredinator.coordination"
        ]
    );
}

#[test]
fn the_guide_to_coordination_shows_a_section_that_loads() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/coordination.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let section = guide.split("```yaml\n").find(|text| text.starts_with("coredinator:\n")).unwrap();
    let config = load(section.split("```").next().unwrap()).config.coordination;
    assert_eq!((config.max_priority, config.max_weight), (Some(3), Some(1.0)));
    // Only where priority decides does it matter who is preemptible.
    assert_eq!(config.groups["default"].conflict_resolution, json!({"priority_based": {"grace": 2}}));
    assert!(config.agents.values().any(|rule| rule.preemptible == Some(false)));
}

#[test]
fn coordination_that_is_shown_loads_again() {
    let text = "coredinator:
  coordination:
    enabled: false
    sync_interval: 250ms
    conflict_resolution: {priority_based: {when_it_does_not_fit: block}}
    on_silence: hold
    ttl: 1m
    budget: {iterations: 1000, deadline_ms: 100}
    resources: [{name: steam, capacity: 120, unit: t/h, reserve: 5}, {name: system.memory, reserve: 1000}]
    variables:
      pressure: {min: 4, max: 12, max_rate: 0.5, current: 8, on_conflict: blend}
    agents: {boiler-1: {priority: 5, preemptible: false}}
    max_priority: 3
    groups:
      b: {sync_interval: 5, collect: 0.2, on_silence: {id: low, demands: {air: 1}, utility: 0}, resources: {air: {capacity: 4}}}
";
    let loaded = load(text);
    assert_eq!(loaded.origin("/coredinator/coordination/sync_interval").to_string(), "c.yaml:4:5");
    assert_eq!(loaded.origin("/coredinator/coordination/variables/pressure/min").to_string(), "c.yaml:11:18");
    assert_eq!(loaded.origin("/coredinator/coordination/max_agents").to_string(), "default");
    let document = loaded.config.to_document();
    let shown = &document["coredinator"]["coordination"];
    assert_eq!(shown["sync_interval"], 0.25);
    assert_eq!(shown["resources"]["system.memory"], json!({"unit": "", "reserve": 1000.0, "kind": "divisible"}));
    assert_eq!(load(&document.to_string()).config.coordination, loaded.config.coordination);
}
