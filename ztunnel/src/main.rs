//! The node proxy: reads arguments and environment, and runs.

use proxy_core::config::Environment;
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use ztunnel::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: ztunnel [proxy [ztunnel]] [--run-dir DIR] | version | help

Carries the connections of a node's pods in mutual TLS. Everything is set by environment variables;
--run-dir is the same as STRAKE_RUN_DIR.
";

/// Command of the command line.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run { run_dir: Option<String> },
    Version,
    Help,
}

fn parse(arguments: impl IntoIterator<Item = String>) -> Option<Command> {
    let mut run_dir = None;
    let mut words = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--run-dir") {
            Some("") => run_dir = Some(arguments.next()?),
            Some(rest) => run_dir = Some(rest.strip_prefix('=')?.to_owned()),
            None => words.push(argument),
        }
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["proxy", ..] => Some(Command::Run { run_dir }),
        ["version", ..] => Some(Command::Version),
        ["help" | "--help" | "-h", ..] => Some(Command::Help),
        _ => None,
    }
}

/// A busy proxy uses free pages again sooner than this; an idle one gives them back.
const PURGE_DELAY: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let memory = runtime::memory::apply_options(PURGE_DELAY);
    match parse(std::env::args().skip(1)) {
        Some(Command::Run { run_dir }) => run(run_dir, memory),
        Some(Command::Version) => {
            println!("ztunnel {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(Command::Help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        None => {
            eprint!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run(run_dir: Option<String>, memory: io::Result<()>) -> ExitCode {
    match start(run_dir, memory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ztunnel: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(run_dir: Option<String>, memory: io::Result<()>) -> anyhow::Result<()> {
    let mut environment = Environment::of_process()?;
    environment.variables.extend(run_dir.map(|dir| ("STRAKE_RUN_DIR".to_owned(), dir)));
    let config = Config::from_env(&environment)?;
    let logs = telemetry::logging::init(config.common.telemetry.format(), Some(&config.common.telemetry.log_filter))?;
    if let Err(e) = memory {
        tracing::warn!(error = %e, "failed to set up the allocator; free memory is kept longer");
    }
    // Slow things only; traffic has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(ztunnel::process::run(config, logs));
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Command> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn no_argument_and_what_the_chart_passes_run_the_proxy() {
        assert_eq!(parsed(""), Some(Command::Run { run_dir: None }));
        assert_eq!(parsed("proxy ztunnel"), Some(Command::Run { run_dir: None }));
        assert_eq!(parsed("proxy --run-dir /run/z"), Some(Command::Run { run_dir: Some("/run/z".into()) }));
        assert_eq!(parsed("--run-dir=/run/z"), Some(Command::Run { run_dir: Some("/run/z".into()) }));
    }

    #[test]
    fn other_words_are_refused() {
        assert_eq!(parsed("version"), Some(Command::Version));
        assert_eq!(parsed("help"), Some(Command::Help));
        assert_eq!(parsed("proxi"), None);
        assert_eq!(parsed("--run-dir"), None);
    }
}
