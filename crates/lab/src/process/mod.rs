//! The processes that a lab consists of, besides those in its pods. All are one program, started as
//! `<program> lab process <role> ...`; the users' commands are in `strake/`.

pub(crate) mod enter;
mod init;
pub(crate) mod kubelet;

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

/// Plays the role that the command line asks for; `None` when it asks for none. To be called first
/// thing in `main`: the roles want to be alone in their process.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != "lab" || arguments.next()? != "process" {
        return None;
    }
    let role = arguments.next()?.into_string().ok()?;
    let argument = arguments.next();
    Some(match run(&role, argument) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("lab {role}: {message}");
            ExitCode::FAILURE
        }
    })
}

fn run(role: &str, argument: Option<OsString>) -> Result<ExitCode, String> {
    let file = || argument.clone().map(PathBuf::from).ok_or("the file with the options is missing".to_owned());
    match role {
        "launch" => init::launch(&file()?),
        "init" => init::run(&file()?),
        "supervisor" => crate::supervisor::run(&file()?),
        "kubelet" => kubelet::run(),
        "pause" => init::pause(),
        "enter" => Ok(enter::run(argument)),
        other => Err(format!("unknown role {other:?}")),
    }
}
