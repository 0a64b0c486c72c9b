//! `strake lab exec`: a command in a pod, with this program's own input and output.

use std::{io, os::fd::AsFd as _, process::ExitCode};

use ::lab::{Lab, Target};
use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Name;

/// Runs a command in a pod.
#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    lab: Name,
    /// The pod: NAMESPACE/NAME, or a NAME in `default`; a node as node:NAME
    pod: String,
    /// The container (default: the pod's first)
    #[arg(short, long)]
    container: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let lab = Lab::attach(&self.lab.name).await?;
        let target = match self.pod.strip_prefix("node:") {
            Some(node) => Target::Node(node.to_owned()),
            None => Target::Pod { pod: self.pod, container: self.container },
        };
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut running = lab.exec_with(target, &self.command, stdio).await?;
        loop {
            tokio::select! {
                code = running.wait() => return Ok(ExitCode::from(u8::try_from(code?).unwrap_or(u8::MAX))),
                _ = interrupt.recv() => running.signal(SignalKind::interrupt().as_raw_value()).await?,
                _ = terminate.recv() => running.signal(SignalKind::terminate().as_raw_value()).await?,
            }
        }
    }
}
