//! The program `strake`. What it does is in the library beside it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser as _;

fn main() -> ExitCode {
    // The roles of a lab's processes want to be alone in theirs: before any thread or parser.
    if let Some(code) = lab::process::run_if_asked() {
        return code;
    }
    // Whoever reads what is printed may stop (`| head`): that ends the program without a word, as it ends others.
    runtime::sys::process::end_on_closed_pipe();
    let called = std::env::args_os().next().map(PathBuf::from);
    let program = called.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
    match strake::run(strake::Cli::parse(), program) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("strake: {err:#}");
            ExitCode::FAILURE
        }
    }
}
