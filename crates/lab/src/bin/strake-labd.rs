//! The processes of a lab without the command line: what `strake lab process` is, for this crate's own tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::process::run_if_asked().unwrap_or_else(|| {
        eprintln!("this program is started by a lab; the command line is `strake lab`");
        ExitCode::from(2)
    })
}
