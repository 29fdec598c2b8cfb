//! `serve`, `up`: running a coredinator, or handing it a file.

use std::{path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::oneshot, time::sleep};

use super::{
    ExitStatus, Failure, Program,
    args::{ServeArgs, SettingsArgs, UpArgs},
    client::{Client, DEFAULT_TIMEOUT},
    config_file,
    output::Output,
    register::{body, declare, is_stdin},
    wait::{Condition, wait_for},
};
use crate::{
    config::{Config, Loaded},
    logging::{self, Audience},
    reload::Read,
};

/// What a server is told beside its configuration.
#[derive(Default)]
pub struct ServeOptions {
    /// The file that the configuration came from.
    pub file: Option<PathBuf>,
    /// Reads it again when asked to; `None`: it cannot be.
    pub reload: Option<Read>,
    /// Is told the address, `http://host:port`, once connections are accepted there.
    pub listening: Option<oneshot::Sender<String>>,
}

/// Why a server ended other than because it was asked to.
pub type ServeFailure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a server until it is asked to end.
pub type Serve = Box<dyn Fn(Config, ServeOptions) -> BoxFuture<'static, Result<(), ServeFailure>> + Send + Sync>;

/// `serve`.
///
/// # Errors
/// What keeps the server from starting, or made it end.
pub async fn serve(program: &Program, output: &Output, args: &ServeArgs) -> Result<(), Failure> {
    logging::init(Audience::Operators);
    let loaded = config_file::load(program, &args.settings)?;
    config_file::warn(output, &loaded);
    foreground(program, &args.settings, loaded, None).await
}

async fn foreground(
    program: &Program,
    settings: &SettingsArgs,
    loaded: Loaded,
    listening: Option<oneshot::Sender<String>>,
) -> Result<(), Failure> {
    let Some(serve) = &program.serve else {
        return Err(Failure::new(
            ExitStatus::Failed,
            "this program only talks to a coredinator; it has none of its own",
        ));
    };
    let file = config_file::input(settings.config.as_deref());
    // Standard input is read once.
    let again = file.as_deref().is_some_and(|file| !is_stdin(file));
    let reload = again.then(|| config_file::reader(program, settings));
    serve(loaded.config, ServeOptions { file, reload, listening })
        .await
        .map_err(|error| Failure::caused(ExitStatus::Failed, "coredinator ended", error.as_ref()))
}

/// Where the coredinator of a configuration is reached from this machine.
fn address(config: &Config) -> String {
    let host = match config.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" | "[::]" => "::1",
        host => host,
    };
    if host.contains(':') && !host.starts_with('[') {
        format!("http://[{host}]:{}", config.port)
    } else {
        format!("http://{host}:{}", config.port)
    }
}

/// `up`.
///
/// # Errors
/// What [`serve`] fails by; as [`Client::send`] and [`wait_for`].
pub async fn up(program: &Program, output: &Output, args: &UpArgs, named: Option<&str>) -> Result<(), Failure> {
    let loaded = config_file::load(program, &args.settings)?;
    config_file::warn(output, &loaded);
    let client = Client::new(named.unwrap_or(&address(&loaded.config)), DEFAULT_TIMEOUT)?;
    let conditions: Vec<(String, Condition)> =
        loaded.config.services.iter().map(|spec| (spec.name.to_string(), Condition::up())).collect();
    // Port 0 is answered by nobody, and an address that was named on purpose is not to be replaced by another.
    if (loaded.config.port != 0 || named.is_some()) && client.answers().await {
        output.note(&format!("the coredinator at {} takes the file over", client.address()));
        for spec in &loaded.config.services {
            let (name, body) = body(spec);
            declare(&client, output, &name, &body, true).await?;
        }
        return if args.wait { wait_for(&client, output, &conditions, args.wait_timeout).await } else { Ok(()) };
    }
    if let Some(address) = named {
        return Err(Failure::new(ExitStatus::Unreachable, format!("no coredinator answers at {address}"))
            .hint("without --address, one is started here"));
    }
    logging::init(Audience::People);
    let (listening, heard) = oneshot::channel::<String>();
    let progress = async {
        if let Ok(address) = heard.await {
            output.note(&format!("listening at {address}"));
            match Client::new(&address, DEFAULT_TIMEOUT) {
                Ok(client) => tell_progress(&client, output, &conditions, args.wait_timeout, &program.next).await,
                Err(failure) => failure.tell(),
            }
        }
        std::future::pending::<()>().await;
    };
    let running = foreground(program, &args.settings, loaded, Some(listening));
    tokio::select! {
        ended = running => ended,
        () = progress => Ok(()),
    }
}

/// Tells how the services come up, until they are or it takes too long; the server goes on either way.
async fn tell_progress(
    client: &Client,
    output: &Output,
    conditions: &[(String, Condition)],
    limit: Duration,
    next: &[String],
) {
    // The services are declared a moment after the server begins to listen.
    for _ in 0..100 {
        let there =
            futures_util::future::join_all(conditions.iter().map(|(name, _)| super::services::one(client, name))).await;
        if !there.iter().any(|service| service.as_ref().is_err_and(|failure| failure.exit == ExitStatus::NotFound)) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    match wait_for(client, output, conditions, limit).await {
        Ok(()) => {
            output.note("all services are up; Ctrl-C stops them");
            next.iter().for_each(|line| output.note(line));
        }
        Err(failure) => failure.tell(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loader;

    #[test]
    fn where_it_is_reached() {
        let config = Loader::new().load().unwrap().config;
        for (host, wanted) in [
            ("127.0.0.1", "http://127.0.0.1:8002"),
            ("0.0.0.0", "http://127.0.0.1:8002"),
            ("::", "http://[::1]:8002"),
            ("plant.local", "http://plant.local:8002"),
        ] {
            assert_eq!(address(&Config { host: host.into(), ..config.clone() }), wanted);
        }
    }
}
