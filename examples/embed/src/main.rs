//! coredinator inside a program of one's own: `cargo run -p embed`, then `curl 127.0.0.1:8010/api/coredinator/services`.

use std::{sync::Arc, time::Duration};

use coredinator_core::{Origin, ServiceSpec, SpecDefaults};
use coredinator_http::{
    Coredinator, Shutdown,
    config::{Loader, Overrides},
};
use embed::TaskRuntime;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Overrides { port: Some(8010), data_dir: Some(".coredinator/embed".into()), ..Overrides::default() };
    let config = Loader::new().overrides(flags).load()?.config;
    let running = Coredinator::new(config)
        .runtime(|identity| {
            let tasks = TaskRuntime::new(Arc::clone(&identity.clock)).program("tick", |arguments, stop| async move {
                println!("tick: started with {arguments:?}; it fails after three seconds, and is started again");
                tokio::select! {
                    () = stop.cancelled() => 0,
                    () = tokio::time::sleep(Duration::from_secs(3)) => 1,
                }
            });
            Ok(Arc::new(tasks))
        })
        .start()
        .await?;

    let document =
        json!({"name": "ticker", "runtime": "task", "command": ["tick", "fast"], "backoff": {"initial": 0.5}});
    let spec =
        ServiceSpec::parse("", None, document, &SpecDefaults::default()).map_err(coredinator_core::FieldErrors)?;
    running.registry().declare(spec, Origin::Api, true).await?;
    println!("listening on {}; Ctrl-C ends it", running.url());
    tokio::signal::ctrl_c().await?;
    running.stop(Shutdown::StopServices, tokio_util::sync::CancellationToken::new()).await;
    Ok(())
}
