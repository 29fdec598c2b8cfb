//! The reference binary.

use std::process::ExitCode;

use coredinator_http::cli::{Program, main_with};

#[tokio::main]
async fn main() -> ExitCode {
    let program = Program { serve: Some(coredinator_http::server(|coredinator| coredinator)), ..Program::default() };
    main_with(program, std::env::args_os()).await
}
