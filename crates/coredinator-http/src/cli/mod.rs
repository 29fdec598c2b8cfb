//! The command line.
//!
//! [`main_with`] parses, dispatches and ends with a documented [`ExitStatus`]. Data goes to standard output, everything else
//! to standard error. What is read from the API is read as JSON, field by field, so that an older program understands a newer
//! server. Rendering is pure ([`view`], [`yaml`](crate::config::yaml), [`table`]); commands are thin.

pub mod apply;
pub mod args;
pub mod client;
pub mod config;
pub mod config_file;
pub mod config_view;
pub mod coordinate;
pub mod coordination;
mod coordination_args;
pub mod coordination_view;
pub mod db;
mod db_args;
pub mod events;
mod exit;
mod fields;
pub mod human;
pub mod lifecycle;
pub mod logs;
pub mod output;
pub mod paint;
pub mod plan_view;
pub mod register;
pub mod replay;
pub mod serve;
pub mod services;
pub mod sse;
pub mod status;
pub mod system;
pub mod table;
pub mod view;
pub mod wait;
mod wanted;

use std::{ffi::OsString, fmt, process::ExitCode, sync::Arc};

use clap::Parser as _;
use coredinator_coord::Strategies;
use coredinator_core::Runtime;
use coredinator_registry::health::ProbeRegistry;
use futures_util::future::LocalBoxFuture;

pub use exit::{ExitStatus, Failure};
pub use serve::{Serve, ServeFailure, ServeOptions};

use args::{Cli, Command, DbCommand};
use client::Client;
use lifecycle::Action;
use output::Output;

/// Where a coredinator is looked for where nobody says.
pub const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8002";

/// What a program brings to its command line beside the commands.
pub struct Program {
    /// Runtimes beside the built-in one, by which files are checked.
    pub runtimes: Vec<Arc<dyn Runtime>>,
    /// The probes by which files are checked.
    pub probes: ProbeRegistry,
    /// The strategies of coordination, by which files are checked and problems solved.
    pub strategies: Strategies,
    /// Runs a server; `None` for a program that only talks to one.
    pub serve: Option<Serve>,
    /// What `up` tells once everything is up: lines on what to do next.
    pub next: Vec<String>,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            runtimes: Vec::new(),
            probes: ProbeRegistry::builtin(),
            strategies: Strategies::builtin(),
            serve: None,
            next: Vec::new(),
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("runtimes", &self.runtimes).finish_non_exhaustive()
    }
}

/// Runs the command line `args`, the program's name included, and tells failures on standard error.
pub async fn main_with(program: Program, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, and go to standard output; nobody is left to tell where that fails.
            let _ = error.print();
            return if error.use_stderr() { ExitStatus::Usage.into() } else { ExitStatus::Ok.into() };
        }
    };
    // A server ends in order when it is interrupted, which it sees to itself; all else is given up.
    let serves = matches!(cli.command, Command::Serve(_) | Command::Up(_));
    let interrupted = async {
        if serves || tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        // The signal is looked at first, so that it is caught from before the command does anything.
        biased;
        () = interrupted => Err(Failure::silent(ExitStatus::Interrupted)),
        result = command(&program, cli) => result,
    };
    match result {
        Ok(()) => ExitStatus::Ok.into(),
        Err(failure) => {
            failure.tell();
            failure.exit.into()
        }
    }
}

/// [`run`], compiled here once and not anew in each program that has a command line.
#[inline(never)]
fn command(program: &Program, cli: Cli) -> LocalBoxFuture<'_, Result<(), Failure>> {
    Box::pin(run(program, cli))
}

async fn run(program: &Program, cli: Cli) -> Result<(), Failure> {
    let global = &cli.global;
    let output = &Output::new(global.output, global.no_color, global.quiet);
    let address = global.address.as_deref().filter(|address| !address.is_empty());
    let limit = global.timeout.unwrap_or(wait::DEFAULT_TIMEOUT);
    // What is limited as a whole may ask questions that are answered late on purpose.
    let waits = match &cli.command {
        Command::Start(args) | Command::Stop(args) | Command::Restart(args) => args.wait,
        Command::Scale(args) => args.wait,
        Command::Deregister(args) => args.wait,
        Command::Wait(_) => true,
        _ => false,
    };
    let patience = global.timeout.filter(|_| !waits).unwrap_or(client::DEFAULT_TIMEOUT);
    let client = || Client::new(address.unwrap_or(DEFAULT_ADDRESS), patience);
    match &cli.command {
        Command::Serve(args) => serve::serve(program, output, args).await,
        Command::Up(args) => serve::up(program, output, args, address).await,
        Command::Ps(args) => services::ps(&client()?, output, args).await,
        Command::Get(args) => services::get(&client()?, output, args).await,
        Command::Describe(args) => services::describe(&client()?, output, args).await,
        Command::Start(args) => lifecycle::act(&client()?, output, Action::Start, args, limit).await,
        Command::Stop(args) => lifecycle::act(&client()?, output, Action::Stop, args, limit).await,
        Command::Restart(args) => lifecycle::act(&client()?, output, Action::Restart, args, limit).await,
        Command::Scale(args) => lifecycle::scale(&client()?, output, args, limit).await,
        Command::Logs(args) => logs::run(&client()?, output, args).await,
        Command::Register(args) => register::register(program, &client()?, output, args).await,
        Command::Deregister(args) => register::deregister(&client()?, output, args, limit).await,
        Command::Events(args) => events::run(&client()?, output, args).await,
        Command::Wait(args) => wait::run(&client()?, output, args, limit).await,
        Command::Agents(args) => coordination::agents(&client()?, output, args).await,
        Command::Agent(args) => coordination::agent(&client()?, output, args).await,
        Command::Cycles(args) => coordination::cycles(&client()?, output, args).await,
        Command::Cycle(args) => coordination::cycle(&client()?, output, args).await,
        Command::Step(args) => coordination::step(&client()?, output, args).await,
        Command::Strategy(args) => coordination::strategy(&client()?, output, args).await,
        Command::Resources(args) => coordination::resources(&client()?, output, args).await,
        Command::Replay(args) => replay::run(program, client, output, args).await,
        Command::Coordinate(args) => coordinate::run(program, output, args).await,
        Command::Apply(args) => apply::apply(program, &client()?, output, args).await,
        Command::Plan(args) => apply::plan(program, &client()?, output, args).await,
        Command::Diff(args) => apply::diff(program, &client()?, output, args).await,
        Command::Config(args) => config::run(program, client, output, &args.command).await,
        Command::Status => status::status(&client()?, output).await,
        Command::Db(args) => match &args.command {
            DbCommand::Status => db::status(&client()?, output).await,
            DbCommand::Verify(args) => db::verify(program, client, output, args).await,
            DbCommand::Backup(args) => db::backup(program, output, args).await,
            DbCommand::Restore(args) => db::restore(program, output, args).await,
            DbCommand::Export(args) => db::export(program, output, args).await,
            DbCommand::Migrate(args) => db::migrate(program, output, args).await,
        },
        Command::Healthcheck => system::healthcheck(&client()?, output).await,
        Command::Completion { shell } => system::completion(output, *shell),
        Command::Version => system::version(&client()?, output).await,
    }
}
