//! `healthcheck`, `completion`, `version`.

use clap::CommandFactory as _;
use clap_complete::Shell;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ExitStatus, Failure, args::Cli, client::Client, fields::text, output::Output, paint};

/// `healthcheck`.
///
/// # Errors
/// [`ExitStatus::Failed`] alone: container engines know no other.
pub async fn healthcheck(client: &Client, output: &Output) -> Result<(), Failure> {
    match client.send_root(Method::GET, "/health").await {
        Ok(health) => output.data(&health, &[], |_| format!("{}\n", paint::status(text(&health, "status")))),
        Err(failure) => Err(Failure { exit: ExitStatus::Failed, ..failure }),
    }
}

/// `completion`.
///
/// # Errors
/// As [`Output::text`].
pub fn completion(output: &Output, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "coredinator", &mut script);
    output.text(&String::from_utf8_lossy(&script))
}

/// `version`. That no server answers is told, and no failure.
///
/// # Errors
/// As [`Output::text`].
pub async fn version(client: &Client, output: &Output) -> Result<(), Failure> {
    let server = client.send_root(Method::GET, "/version").await.unwrap_or_default();
    let own = env!("CARGO_PKG_VERSION");
    let value = json!({ "client": own, "server": server, "address": client.address() });
    output.data(&value, &[own], |_| {
        let theirs = match &server {
            Value::Null => "no answer".to_owned(),
            server => text(server, "version").to_owned(),
        };
        format!("client  {own}\nserver  {} ({})\n", paint::clean(&theirs), paint::clean(client.address()))
    })
}
