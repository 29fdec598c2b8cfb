//! coredinator's own command line, with one strategy more.

use std::process::ExitCode;

use coredinator_coord::Strategies;
use coredinator_http::cli::{Program, main_with};
use custom_strategy::RoundRobin;

#[tokio::main]
async fn main() -> ExitCode {
    let program = Program { strategies: Strategies::builtin().with(RoundRobin), ..Program::default() };
    main_with(program, std::env::args_os()).await
}
