//! Log lines of the kernel programs, told on as events of `tracing` with target `ebpf`.
//!
//! aya hands them to the `log` crate; they are taken there and nothing else passes through it.

use std::{fmt, io};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::unix::AsyncFd;

/// The ring buffer of the lines. Full, or read by nobody: new lines are lost, nothing else.
pub struct KernelLog {
    logger: EbpfLogger<ToTracing>,
}

impl KernelLog {
    /// `None`, and said aloud, when the object's lines cannot be read.
    pub(crate) fn of(object: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(object, ToTracing) {
            Ok(logger) => Some(Self { logger }),
            Err(error) => {
                tracing::warn!(%error, "log lines of the kernel programs cannot be read");
                None
            }
        }
    }

    /// Tells lines on as they come, until it is dropped (which is safe at any time).
    ///
    /// # Errors
    /// When the runtime cannot wait for the buffer.
    #[allow(unsafe_code)]
    pub async fn run(self) -> io::Result<()> {
        // SAFETY: the logger owns the ring buffer's descriptor, always answers the same one, and lives as
        // long as the registration.
        let mut logger = unsafe { AsyncFd::register(self.logger) }?;
        loop {
            let mut ready = logger.readable_mut().await?;
            ready.get_inner_mut().flush();
            // Cleared only after the buffer was emptied: a line that comes in between makes it ready again.
            ready.clear_ready();
        }
    }

    /// Tells on what is there now.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

impl fmt::Debug for KernelLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelLog").finish_non_exhaustive()
    }
}

struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (line, message) = (record.line(), record.args());
        let module = record.module_path();
        match record.level() {
            Level::Error => tracing::error!(target: "ebpf", module, line, "{message}"),
            Level::Warn => tracing::warn!(target: "ebpf", module, line, "{message}"),
            Level::Info => tracing::info!(target: "ebpf", module, line, "{message}"),
            Level::Debug => tracing::debug!(target: "ebpf", module, line, "{message}"),
            Level::Trace => tracing::trace!(target: "ebpf", module, line, "{message}"),
        }
    }

    fn flush(&self) {}
}
