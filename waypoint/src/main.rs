//! The waypoint: reads arguments and environment, and runs.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use proxy_core::config::Environment;
use waypoint::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: waypoint [proxy [waypoint]] | version | help

Routes, guards and balances the requests of services in the mesh. Everything is set by environment variables.
";

/// A busy proxy uses free pages again sooner than this; an idle one gives them back.
const PURGE_DELAY: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let memory = runtime::memory::apply_options(PURGE_DELAY);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["proxy", ..] => match start(memory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("waypoint: {e:#}");
                ExitCode::FAILURE
            }
        },
        ["version", ..] => {
            println!("waypoint {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["help" | "--help" | "-h", ..] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn start(memory: io::Result<()>) -> anyhow::Result<()> {
    let environment = Environment::of_process()?;
    let config = Config::from_env(&environment)?;
    let logs = telemetry::logging::init(config.common.telemetry.format(), Some(&config.common.telemetry.log_filter))?;
    if let Err(e) = memory {
        tracing::warn!(error = %e, "failed to set up the allocator; free memory is kept longer");
    }
    // Slow things only; traffic has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(waypoint::process::run(config, logs));
    Ok(result?)
}
