//! What can be typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use super::coordination_args::{
    AgentArgs, AgentsArgs, CoordinateArgs, CycleArgs, CyclesArgs, GroupArgs, ReplayArgs, ResourcesArgs, StrategyArgs,
    SwitchArgs,
};
pub use super::db_args::{
    DbArgs, DbBackupArgs, DbCommand, DbExportArgs, DbMigrateArgs, DbRestoreArgs, DbSettings, DbVerifyArgs,
};
use super::{ExitStatus, output::Format};
use crate::config::Overrides;

const EXAMPLES: &str = "\
Examples:
  coredinator up --config plant.yaml --wait   start the services of a file
  coredinator ps                              what runs, and how it is
  coredinator logs -f corerl                  follow its output
  coredinator restart corerl --wait           restart it, and wait until it is healthy";

/// Keeps the services of a plant alive, watches them, and finds them.
#[derive(Debug, Parser)]
#[command(name = "coredinator", version, about, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", ExitStatus::HELP))]
pub struct Cli {
    /// What holds of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where coredinator is: http://host:port, or host:port [default: http://127.0.0.1:8002]
    #[arg(long, global = true, env = "COREDINATOR_ADDR", value_name = "ADDRESS")]
    pub address: Option<String>,
    /// How to write data
    #[arg(short, long, global = true, env = "COREDINATOR_OUTPUT", value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// How long it may take: an answer (30s unless said), or all of `wait` and `--wait` (2m unless said); such as 10 or 1m30s
    #[arg(long, global = true, value_parser = duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// No colours
    #[arg(long, global = true)]
    pub no_color: bool,
    /// No progress on standard error
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run coredinator in the foreground
    Serve(ServeArgs),
    /// Bring the services of a file up: at the coredinator that runs, else in one of its own, in the foreground
    Up(UpArgs),
    /// List services
    #[command(visible_alias = "ls")]
    Ps(PsArgs),
    /// Show services by name
    Get(NamesArgs),
    /// Show everything about services: instances, checks, what happened last
    Describe(NamesArgs),
    /// Start services that were stopped or have failed
    Start(ActionArgs),
    /// Stop services, until they are started again
    Stop(ActionArgs),
    /// Replace the running instances of services by new ones
    Restart(ActionArgs),
    /// Change how many instances of services should run
    Scale(ScaleArgs),
    /// Show what services wrote
    Logs(LogsArgs),
    /// Declare a service
    Register(RegisterArgs),
    /// Take services away, stopping their instances
    Deregister(DeregisterArgs),
    /// Show what happened
    Events(EventsArgs),
    /// Wait until services have come to be as wanted
    Wait(WaitArgs),
    /// List the agents that are coordinated
    Agents(AgentsArgs),
    /// Show everything about one agent
    Agent(AgentArgs),
    /// List the last cycles of coordination
    Cycles(CyclesArgs),
    /// Show a cycle: who asked for what, who got what, and why
    Cycle(CycleArgs),
    /// Run a cycle now
    Step(GroupArgs),
    /// Show by which strategies conflicts are resolved, or switch to another
    Strategy(SwitchArgs),
    /// Show how much there is of what agents share, or change it
    Resources(ResourcesArgs),
    /// Solve a recorded cycle again, and tell whether the plan is the same
    Replay(ReplayArgs),
    /// Solve a coordination problem of a file, without a server
    Coordinate(CoordinateArgs),
    /// Change the configuration to what files say
    Apply(ApplyArgs),
    /// Show what applying files would change, and what would be restarted
    Plan(PlanArgs),
    /// Show where files differ from the configuration, value by value: exit code 0 nowhere, 1 somewhere, above 1 an error
    Diff(FilesArgs),
    /// Check a configuration, show what is in force, or go back
    Config(ConfigArgs),
    /// Show how coredinator itself is, who leads, and which replicas there are
    Status,
    /// Look at the database behind coredinator, back it up, restore it, or move to another
    Db(DbArgs),
    /// Ask whether coredinator itself is well: exit code 0 or 1, for a container's health check
    Healthcheck,
    /// Write a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Show the versions of this program and of the coredinator it talks to
    Version,
}

/// The flags that set settings.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingsArgs {
    /// The configuration file; "-" for standard input [default: coredinator.yaml, if there is one]
    #[arg(long, env = "COREDINATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the state is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address to listen on
    #[arg(long)]
    pub host: Option<String>,
    /// The port to listen on; 0 for a free one
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Keep the state in this database instead
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Let services go on when coredinator ends; it finds them again at its next start
    #[arg(long)]
    pub detach: bool,
    /// What this machine is called among those that share a database [default: as it calls itself]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}

impl SettingsArgs {
    /// As a layer over the file's settings.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            host: self.host.clone(),
            port: self.port,
            data_dir: self.data_dir.clone(),
            database_url: self.database_url.clone(),
            detach: self.detach.then_some(true),
            node: self.node.clone(),
        }
    }
}

/// `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The settings; those but the file matter only where no coredinator runs yet.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Wait until all services of the file are healthy or completed
    #[arg(long)]
    pub wait: bool,
    /// How long to wait for that
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "2m")]
    pub wait_timeout: Duration,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Only services whose name holds this
    pub text: Option<String>,
    /// Only services with this label: KEY or KEY=VALUE; several must all hold
    #[arg(short = 'l', long = "selector", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Only services with this status; several: any of them
    #[arg(short, long, value_delimiter = ',')]
    pub status: Vec<coredinator_core::ServiceStatus>,
}

/// Names of services.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// Which services
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// `start`, `stop`, `restart`.
#[derive(Debug, Args)]
pub struct ActionArgs {
    /// Which services
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Wait until it has happened
    #[arg(long)]
    pub wait: bool,
}

/// `scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// How many of which: corerl=3
    #[arg(required = true, value_name = "NAME=N", value_parser = scale)]
    pub scales: Vec<(String, u32)>,
    /// Wait until they are healthy
    #[arg(long)]
    pub wait: bool,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which services; none: all that are managed
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Go on with new lines as they are written
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the newest lines of each instance
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<u64>,
    /// Only lines of the last 5m, 1h, …, or since an instant such as 2026-01-01T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Write lines alone, without who wrote them
    #[arg(long)]
    pub no_prefix: bool,
}

/// `register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// A file with a service, or with a whole configuration; "-" for standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["name", "host", "port", "health_endpoint"], required_unless_present = "name")]
    pub file: Vec<PathBuf>,
    /// The name of an external service
    #[arg(long, requires = "port")]
    pub name: Option<String>,
    /// Where it is reached
    #[arg(long, default_value = "localhost")]
    pub host: String,
    /// The port at which it is reached
    #[arg(long)]
    pub port: Option<u16>,
    /// The path of its health check; none: whether it accepts connections
    #[arg(long, value_name = "PATH")]
    pub health_endpoint: Option<String>,
    /// Replace what is declared under this name already
    #[arg(long)]
    pub replace: bool,
}

/// `deregister`.
#[derive(Debug, Args)]
pub struct DeregisterArgs {
    /// Which services
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Wait until they are gone
    #[arg(long)]
    pub wait: bool,
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Of which services; none: of all
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Go on with events as they come
    #[arg(short, long)]
    pub follow: bool,
}

/// `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Which services
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// For which status; several: any of them. "deleted": until there is no such service
    #[arg(long = "for", value_name = "STATUS", value_delimiter = ',', default_value = "healthy")]
    pub wanted: Vec<super::wanted::Wanted>,
}

/// Files of the configuration.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// A file with a whole configuration, a service, or a list of services; a directory of such; "-" for standard input
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Take away the services of the configuration that no file names (those that registered themselves stay)
    #[arg(long)]
    pub prune: bool,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The files.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Exit code 2 where there is something to change
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The files.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Who and why, for the history.
    #[command(flatten)]
    pub note: NoteArgs,
    /// Only say what would be changed
    #[arg(long)]
    pub dry_run: bool,
}

/// What the history is told.
#[derive(Debug, Args)]
pub struct NoteArgs {
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Who, for the history [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
}

/// `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The commands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell everything that is wrong with a file
    Check {
        /// The file; "-" for standard input [default: coredinator.yaml]
        file: Option<PathBuf>,
    },
    /// Show what a file, the environment and flags say together, and where each value came from
    Show(SettingsArgs),
    /// Show the configuration of the coredinator that runs, or one service's document
    Get {
        /// The service
        #[arg(value_name = "NAME")]
        service: Option<String>,
    },
    /// List the revisions of the configuration, or show what one changed
    History {
        /// The revision
        #[arg(value_name = "N")]
        revision: Option<u64>,
        /// How many of the newest
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        limit: u32,
    },
    /// Go back to the configuration of an earlier revision
    Rollback {
        /// The revision; 0: that before the first
        #[arg(value_name = "N")]
        revision: u64,
        /// Who and why, for the history.
        #[command(flatten)]
        note: NoteArgs,
        /// Only say what would be changed
        #[arg(long)]
        dry_run: bool,
    },
    /// Have the coredinator that runs read its file anew: all of it or nothing
    Reload,
    /// Write the JSON Schema of the file, for editors
    Schema,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    coredinator_core::duration::parse(text).map_err(|error| error.to_string())
}

fn scale(text: &str) -> Result<(String, u32), String> {
    let (name, count) = text.split_once('=').ok_or("write it as NAME=N")?;
    let count = count.parse().map_err(|_| format!("{count:?} is no number of instances"))?;
    if name.is_empty() { Err("write it as NAME=N".to_owned()) } else { Ok((name.to_owned(), count)) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn scales() {
        assert_eq!(scale("a=3"), Ok(("a".into(), 3)));
        for bad in ["a", "=3", "a=", "a=-1", "a=x"] {
            assert!(scale(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_word_of_the_documentation_parses() {
        for line in [
            "serve --config f --data-dir d --host h --port 1 --database-url u --detach",
            "up --config f --wait --wait-timeout 10s",
            "ps -l a=b --status healthy,failed -o wide",
            "get a b -o json",
            "describe a",
            "start a b",
            "stop a --wait --timeout 10",
            "restart a",
            "scale a=1 b=2",
            "logs -f --tail 10 --since 5m a",
            "register -f x -f -",
            "register --name a --host h --port 1 --health-endpoint /h",
            "deregister a",
            "events -f",
            "wait a --for healthy,deleted --timeout 1m",
            "coordinate --problem f --strategy centralized --option a=1 --option b=x --iterations 5 --deadline 300ms",
            "coordinate -p - --strategy-file f -o json",
            "agents --group g",
            "agent a -o json",
            "cycles -w --limit 5 --group g",
            "cycle 7 --group g -o json",
            "step --group g",
            "strategy",
            "strategy game_theoretic --option rule=vcg --group g",
            "strategy --strategy-file f",
            "resources -o json",
            "resources steam=8 pumps=3,1 --group g",
            "replay 7",
            "replay -",
            "config check f",
            "config show",
            "config get",
            "config get a -o json",
            "config history -n 3",
            "config history 7",
            "config rollback 3 -m why --author me --dry-run",
            "config schema",
            "config reload",
            "apply -f a -f dir -f - --prune -m why --dry-run",
            "plan -f a --detailed-exitcode",
            "diff -f a --prune",
            "healthcheck",
            "completion bash",
            "version --address h:1",
        ] {
            let words = ["coredinator"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words.clone()).is_ok(), "{line}: {:?}", Cli::try_parse_from(words).err());
        }
        for bad in [
            "",
            "apply",
            "diff a",
            "config rollback",
            "config history x",
            "register",
            "register --name a",
            "register -f x --name a --port 1",
            "wait a --for well",
            "ps --timeout x",
            "logs --tail -1",
            "coordinate",
            "cycle x",
            "strategy --option a=1",
            "resources steam",
            "resources =3",
            "resources steam=much",
            "resources steam=inf",
            "resources steam=1,2,3",
            "coordinate -p f --option a",
            "coordinate -p f -s x --strategy-file f",
        ] {
            assert!(Cli::try_parse_from(["coredinator"].into_iter().chain(bad.split(' '))).is_err(), "{bad}");
        }
    }
}
