//! `strake-control`: flags, logging, signals. Everything else is in the library.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use runtime::{drain, signals};
use strake_control::{Control, Flags};
use telemetry::{logging, metrics};

/// Time that requests have to finish after a signal.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strake-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let log = logging::init(flags.log_format.into(), flags.log_filter.as_deref()).context("logging")?;
    let config = flags.check()?;
    let recorder = metrics::install().context("metrics")?;
    metrics::record_build("strake-control", env!("CARGO_PKG_VERSION"));
    let (trigger, watch) = drain::channel();
    let mut control = Control::start(config, Some(recorder), watch).await?;

    let signal = signals::shutdown().await.context("signals")?;
    tracing::info!(?signal, "control plane ends");
    control.hand_over().await;
    trigger.start(GRACE);
    control.ended().await;
    log.flush();
    Ok(())
}
