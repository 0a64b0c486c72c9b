//! The node agent: enrols pods, and proves it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use strake_agent::config::{Command, Config};
use strake_agent::{agent, config};
use telemetry::logging::{self, LogFormat};

/// The C library's allocator keeps an arena for each thread that ever called into the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Memory that is free goes back to the kernel at once: 12 MiB instead of 53 MiB after the start, where the type
/// information of the kernel is parsed and dropped.
const PURGE_DELAY: Duration = Duration::ZERO;

/// Calls into the kernel at a time. Those of more pods wait for milliseconds.
const BLOCKING_THREADS: usize = 8;

/// A thread without such a call ends after this long.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // Before anything else: `exec` starts the program from the beginning.
    let memory = runtime::memory::apply_options(PURGE_DELAY);
    let config = Config::parse();
    let log = match logging::init(LogFormat::Plain, config::log_filter().as_deref()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = memory {
        tracing::warn!(%error, "failed to set up the allocator; free memory is kept longer");
    }
    let outcome = start(config);
    if let Err(error) = &outcome {
        tracing::error!("{error:#}");
    }
    log.flush();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(config: Config) -> anyhow::Result<()> {
    // Each enrolled pod holds descriptors of its namespace and of its sockets.
    runtime::sys::raise_nofile()?;
    let recorder = telemetry::metrics::install()?;
    telemetry::metrics::record_build("strake-agent", env!("CARGO_PKG_VERSION"));
    // One thread: the agent waits for the kernel and the network, and calls that block have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()?;
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
