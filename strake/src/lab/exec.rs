//! `strake lab exec`: a command in a pod, with this program's own output, and its input where that is asked for.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd as _, BorrowedFd},
    process::ExitCode,
};

use ::lab::{Running, Target};
use anyhow::{Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal::Terminal;

/// Runs a command in a pod.
#[derive(Debug, Args)]
pub struct Exec {
    /// The pod: NAME, or NAMESPACE/NAME; a node as node:NAME
    pod: String,
    /// Namespace of the pod
    #[arg(short, long)]
    namespace: Option<String>,
    /// The container (default: the pod's first)
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input to the command
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal of its own
    #[arg(short = 't', long)]
    tty: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(super) async fn run(self, mesh: &crate::target::Target) -> Result<ExitCode> {
        let target = self.target()?;
        let lab = mesh.attach().await?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        // Only a terminal has a size and a mode to pass on; a script gets pipes, and is told about it.
        if self.tty && stdin.is_terminal() {
            return Terminal::run(&lab, target, &self.command, self.stdin).await;
        }
        if self.tty {
            eprintln!("strake: no terminal is given to the command: standard input is not one");
        }
        // Without `-i` the command must not take input that a script around this program means for itself (`while read
        // ...`).
        let nothing = File::open("/dev/null")?;
        let input: BorrowedFd<'_> = if self.stdin { stdin.as_fd() } else { nothing.as_fd() };
        let mut running = lab.exec_with(target, &self.command, [input, stdout.as_fd(), stderr.as_fd()]).await?;
        wait(&mut running).await
    }

    fn target(&self) -> Result<Target> {
        if let Some(node) = self.pod.strip_prefix("node:") {
            return Ok(Target::Node(node.to_owned()));
        }
        Ok(Target::Pod { pod: pod_name(self.namespace.as_deref(), &self.pod)?, container: self.container.clone() })
    }
}

/// `NAMESPACE/NAME` of a pod that is named in one of kubectl's ways.
pub(super) fn pod_name(namespace: Option<&str>, pod: &str) -> Result<String> {
    let name = pod.strip_prefix("pod/").unwrap_or(pod);
    match (namespace, name.split_once('/')) {
        (Some(namespace), Some((other, _))) if namespace != other => {
            bail!("pod {name} is not in namespace {namespace}: give one of the two")
        }
        (Some(namespace), None) => Ok(format!("{namespace}/{name}")),
        (_, Some(_)) | (None, None) => Ok(name.to_owned()),
    }
}

/// Waits for a command's end and passes signals on to it.
pub(super) async fn wait(running: &mut Running) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            code = running.wait() => return Ok(ExitCode::from(u8::try_from(code?).unwrap_or(u8::MAX))),
            _ = interrupt.recv() => running.signal(SignalKind::interrupt().as_raw_value()).await?,
            _ = terminate.recv() => running.signal(SignalKind::terminate().as_raw_value()).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_as_kubectl_names_it() {
        assert_eq!(pod_name(None, "shop/db").unwrap(), "shop/db");
        assert_eq!(pod_name(Some("shop"), "db").unwrap(), "shop/db");
        assert_eq!(pod_name(Some("shop"), "shop/db").unwrap(), "shop/db");
        assert_eq!(pod_name(None, "pod/db").unwrap(), "db");
        assert!(pod_name(Some("other"), "shop/db").is_err());
    }

    #[test]
    fn flags_are_those_of_kubectl() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            exec: Exec,
        }
        let line = ["exec", "-it", "-n", "shop", "db", "-c", "app", "--", "sh", "-c", "x"];

        let exec = <Line as clap::Parser>::parse_from(line).exec;

        assert!(exec.stdin && exec.tty);
        let expected = Target::Pod { pod: "shop/db".to_owned(), container: Some("app".to_owned()) };
        assert_eq!(exec.target().unwrap(), expected);
        assert_eq!(exec.command, ["sh", "-c", "x"]);
    }
}
