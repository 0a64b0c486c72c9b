//! A terminal for a command in a lab: a pseudo-terminal that this program copies to and from its own, which is in raw mode
//! meanwhile. The command is in charge of it, so that shells have job control and Ctrl-C reaches the command.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::ExitCode,
    thread,
};

use ::lab::{Lab, Target};
use anyhow::{Context as _, Result};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};
use tokio::signal::unix::{SignalKind, signal};

use super::exec::wait;

/// Raw mode of this program's terminal, until it is dropped.
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Runs a command with a terminal; `input` says whether what is typed reaches it.
    pub(super) async fn run(lab: &Lab, target: Target, command: &[String], input: bool) -> Result<ExitCode> {
        let (ours, theirs) = pair().context("no pseudo-terminal")?;
        let size = tcgetwinsize(io::stdin())?;
        tcsetwinsize(&ours, size)?;
        let fd = theirs.as_fd();
        let mut running = lab.exec_on_terminal(target, command, [fd, fd, fd]).await?;
        // The command has its own by now: ours would keep the terminal from ending with it.
        drop(theirs);
        // In raw mode the terminal turns no key into a signal: Ctrl-C goes as a byte to the command's terminal, which
        // makes the signal there.
        let raw = Self::raw()?;
        let ours = File::from(ours);
        if input {
            let mut to = ours.try_clone()?;
            // It ends with the process: nothing else can end a read of a terminal.
            thread::spawn(move || copy(&mut io::stdin().lock(), &mut to));
        }
        let mut from = ours.try_clone()?;
        let output = tokio::task::spawn_blocking(move || copy(&mut from, &mut io::stdout().lock()));
        let mut resized = signal(SignalKind::window_change())?;
        let code = {
            let ended = wait(&mut running);
            tokio::pin!(ended);
            loop {
                tokio::select! {
                    code = &mut ended => break code,
                    _ = resized.recv() => follow_size(&ours),
                }
            }
        };
        // Reading fails as soon as the last process has closed its side.
        output.await?;
        drop(raw);
        code
    }

    fn raw() -> Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Without a terminal there is nothing to set back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?.into_string().map_err(io::Error::other)?;
    let theirs = rustix::fs::open(
        &name,
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    Ok((ours, theirs))
}

fn follow_size(ours: &File) {
    let set = || -> io::Result<()> {
        let size: Winsize = tcgetwinsize(io::stdin())?;
        Ok(tcsetwinsize(ours, size)?)
    };
    // The command keeps the size it has.
    let _ = set();
}

/// Copies until either side ends. What is read is passed on at once: somebody is typing.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
