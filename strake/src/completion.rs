//! `strake completion SHELL`.

use std::{io, process::ExitCode};

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

/// Prints a completion script, for example `strake completion bash > /etc/bash_completion.d/strake`.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    shell: Supported,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(crate) fn run(&self) -> ExitCode {
        let shell = match self.shell {
            Supported::Bash => Shell::Bash,
            Supported::Zsh => Shell::Zsh,
            Supported::Fish => Shell::Fish,
        };
        clap_complete::generate(shell, &mut crate::Cli::command(), "strake", &mut io::stdout());
        ExitCode::SUCCESS
    }
}
