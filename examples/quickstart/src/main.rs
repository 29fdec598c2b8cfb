//! One binary that is all of the quickstart: `quickstart coreio …` is the plant, `quickstart corerl …` a controller,
//! and anything else is coredinator's own command line; without a word it runs the plant of `plant.yaml`.

use std::{os::unix::process::CommandExt as _, process::ExitCode};

use clap::Parser as _;
use coredinator_http::cli::{Program, main_with};
use quickstart::{
    cli::{Cli, Service},
    coreio, corerl,
};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("coreio" | "corerl") => run(Cli::parse().service),
        Some(_) => coredinator(),
        None => begin(),
    }
}

/// Nothing said: the whole quickstart, by `quickstart up --config …/plant.yaml`.
fn begin() -> ExitCode {
    let program = std::env::current_exe().unwrap_or_else(|_| "target/release/quickstart".into());
    // The file's services are this program too, wherever it has been built.
    let error = std::process::Command::new(&program)
        .env("QUICKSTART", &program)
        .args(["up", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/plant.yaml")])
        .exec();
    eprintln!("quickstart: cannot start {}: {error}", program.display());
    ExitCode::FAILURE
}

/// coredinator's own command line, with a word on what to try.
fn coredinator() -> ExitCode {
    const NEXT: &str = "
In another terminal, from this folder:
  cargo run -q --release -- ps                    what runs, and how it is
  cargo run -q --release -- logs -f corerl-a      a controller learning: its error falls
  cargo run -q --release -- cycles -w             what the controllers want of one boiler, and what was decided
  cargo run -q --release -- describe coreio       one service, with its checks and process ids
  pkill -9 -f 'quickstart corerl.*tank-a'         kill that controller, and watch it return
  cargo run -q --release -- events -f             what happens, as it happens
The API is described at http://127.0.0.1:8002/docs";
    let program = Program {
        serve: Some(coredinator_http::server(|coredinator| coredinator)),
        next: NEXT.lines().map(str::to_owned).collect(),
        ..Program::default()
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(main_with(program, std::env::args_os())),
        Err(error) => {
            eprintln!("quickstart: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(service: Service) -> ExitCode {
    // One thread serves all that such a small service is asked.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("quickstart: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match service {
            Service::Coreio(args) => coreio::run(args).await,
            Service::Corerl(args) => corerl::run(*args).await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}
