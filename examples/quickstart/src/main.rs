//! One binary that is all of the quickstart: `quickstart coreio …` is the plant, `quickstart corerl …` a controller.

use std::process::ExitCode;

use clap::Parser as _;
use quickstart::{
    cli::{Cli, Service},
    coreio, corerl,
};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("coreio" | "corerl") => run(Cli::parse().service),
        _ => {
            eprintln!("quickstart: expected `coreio` or `corerl`; see `quickstart coreio --help`");
            ExitCode::from(2)
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
            Service::Corerl(args) => corerl::run(args).await,
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
