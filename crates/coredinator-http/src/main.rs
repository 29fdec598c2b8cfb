//! The reference binary.

use std::process::ExitCode;

use coredinator_http::cli::{Program, main_with};

#[tokio::main]
async fn main() -> ExitCode {
    main_with(Program::default(), std::env::args_os()).await
}
