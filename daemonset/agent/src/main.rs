//! The node agent: enrols pods, and proves it.

use std::process::ExitCode;

use clap::Parser;
use strake_agent::config::{Command, Config};
use strake_agent::{agent, config};
use telemetry::logging::{self, LogFormat};

fn main() -> ExitCode {
    let config = Config::parse();
    let log = match logging::init(LogFormat::Plain, config::log_filter().as_deref()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = start(config);
    if let Err(error) = &outcome {
        tracing::error!("{error:#}");
    }
    log.flush();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(config: Config) -> anyhow::Result<()> {
    runtime::sys::raise_nofile()?;
    let recorder = telemetry::metrics::install()?;
    telemetry::metrics::record_build("strake-agent", env!("CARGO_PKG_VERSION"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match config.command {
            Some(Command::Uninstall) => agent::uninstall(config).await,
            None => agent::run(config, recorder).await,
        }
    });
    // Blocking kernel calls that are still under way are not waited for.
    runtime.shutdown_background();
    Ok(outcome?)
}
