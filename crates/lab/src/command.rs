//! Commands and captures that run in a lab, as their starter holds them. They are started by `Lab`.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use crate::{
    control::{Connection, Followup, Reply},
    error::LabError,
    handle::unexpected,
};

/// Output and exit code of a finished command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code, or 128 and the signal that ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without the last line's end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without the last line's end.
    #[must_use]
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// A command that runs in a lab. Dropping it kills the command.
#[derive(Debug)]
pub struct Running {
    connection: Connection,
}

impl Running {
    pub(crate) const fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), LabError> {
        Ok(self.connection.send(&Followup::Signal(signal), &[]).await?)
    }

    /// Waits for its end: exit code, or 128 and the signal. Safe to drop half-way.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn wait(&mut self) -> Result<i32, LabError> {
        match self.connection.receive().await?.ok_or(LabError::Gone)? {
            Reply::Exited(code) => Ok(code),
            other => Err(unexpected(&other)),
        }
    }
}

/// A command that runs in a lab with pipes around it.
#[derive(Debug)]
pub struct Process {
    /// Input of the command; set to `None` to end its input.
    pub stdin: Option<File>,
    /// Its standard output.
    pub stdout: File,
    /// Its standard error.
    pub stderr: File,
    running: Running,
}

impl Process {
    /// Sends it a signal.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), LabError> {
        self.running.signal(signal).await
    }

    /// Writes to its input.
    ///
    /// # Errors
    /// When it does not read any more.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), LabError> {
        let Some(stdin) = &mut self.stdin else { return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()) };
        stdin.write_all(bytes).await?;
        Ok(stdin.flush().await?)
    }

    /// Waits for its end without reading what it prints.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn wait(&mut self) -> Result<i32, LabError> {
        self.running.wait().await
    }

    /// Ends its input and waits for its end and all it prints.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn output(mut self) -> Result<Output, LabError> {
        // A command that reads to the end of its input would never end. Both outputs are read while it runs: a command
        // that fills a pipe that nobody reads would never end either.
        self.stdin = None;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (code, out, err) = tokio::join!(
            self.running.wait(),
            self.stdout.read_to_end(&mut stdout),
            self.stderr.read_to_end(&mut stderr)
        );
        out?;
        err?;
        Ok(Output { code: code?, stdout, stderr })
    }
}

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    connection: Connection,
    file: PathBuf,
}

impl Capture {
    pub(crate) const fn new(connection: Connection, file: PathBuf) -> Self {
        Self { connection, file }
    }

    /// The file, in pcap format with nanosecond timestamps; complete after `stop`.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// When the lab is gone, or the kernel dropped packets.
    pub async fn stop(mut self) -> Result<Captured, LabError> {
        self.connection.send(&Followup::Stop, &[]).await?;
        match self.connection.receive().await?.ok_or(LabError::Gone)? {
            // A capture with gaps proves nothing about packets that are not in it.
            Reply::Captured { packets, dropped: 0 } => Ok(Captured { file: self.file, packets }),
            Reply::Captured { dropped, .. } => Err(LabError::Refused(format!("the kernel dropped {dropped} packets"))),
            other => Err(unexpected(&other)),
        }
    }
}

/// A capture that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The file, in pcap format with nanosecond timestamps.
    pub file: PathBuf,
    /// Packets in it.
    pub packets: u64,
}

/// Pipes for a command: our ends and theirs.
pub(crate) struct Pipes {
    ours: (File, File, File),
    theirs: [OwnedFd; 3],
}

impl Pipes {
    pub(crate) fn new() -> io::Result<Self> {
        let (their_input, input) = io::pipe()?;
        let (output, their_output) = io::pipe()?;
        let (error, their_error) = io::pipe()?;
        let file = |fd: OwnedFd| File::from_std(fd.into());
        Ok(Self {
            ours: (file(input.into()), file(output.into()), file(error.into())),
            theirs: [their_input.into(), their_output.into(), their_error.into()],
        })
    }

    /// Input, output and error of the command.
    pub(crate) fn theirs(&self) -> [BorrowedFd<'_>; 3] {
        self.theirs.each_ref().map(OwnedFd::as_fd)
    }

    /// The command with our ends; theirs are closed here.
    pub(crate) fn around(self, running: Running) -> Process {
        let (stdin, stdout, stderr) = self.ours;
        Process { stdin: Some(stdin), stdout, stderr, running }
    }
}
