//! The CNI plugin of the mesh: see `strake_cni`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use strake_cni::plugin;

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let (output, code) = match plugin::run(variable, io::stdin().lock()) {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => (Some(error), ExitCode::FAILURE),
    };
    // A runtime that does not read its plugin's answer takes the code.
    let printed = output.map_or(Ok(()), |output| writeln!(io::stdout(), "{output}"));
    if printed.is_ok() { code } else { ExitCode::FAILURE }
}
