//! Reads one file of bounded size without ever waiting for somebody to write into it.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use kube_types::Code;

/// Largest file that is read. 20 000 small objects have 1.2 MB.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;

/// A file that was changed less than this ago may change again without a difference that its metadata shows.
const RACY: Duration = Duration::from_secs(2);

/// Metadata that tells whether a file was changed or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    // `mtime` can be set back by its owner (`touch -d`, `rsync -t`); `ctime` cannot.
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns true if it is the same file, whatever its contents.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Returns true if an equal stamp later on proves that nothing was changed.
    pub(crate) fn is_old(&self, now: SystemTime) -> bool {
        let seconds = u64::try_from(self.modified.0).unwrap_or(0);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        now.duration_since(modified).is_ok_and(|age| age > RACY)
    }
}

/// The text of a file, and its metadata when it was opened.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) stamp: Stamp,
}

/// Reason why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}, not a regular file: it is skipped")]
    NotAFile(&'static str),
    #[error("larger than {} MiB: it is not read", MAX_FILE_BYTES >> 20)]
    TooLarge,
    #[error("not valid UTF-8")]
    NotText,
    #[error("failed to read: {0}")]
    Io(#[from] io::Error),
}

impl ReadError {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::NotAFile(_) => Code::NotAFile,
            Self::TooLarge => Code::TooLarge,
            Self::NotText => Code::Syntax,
            Self::Io(_) => Code::Unreadable,
        }
    }
}

/// Reads a regular file; links are followed.
pub(crate) fn read(path: &Path) -> Result<Text, ReadError> {
    // Opening some devices does something: look first.
    check(&fs::metadata(path)?)?;
    // `NONBLOCK`: opening a named pipe would wait for its writer. `NOCTTY`: a terminal must not become this process's.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    // Of the descriptor: between the look and the open the path may have become something else.
    let metadata = file.metadata()?;
    check(&metadata)?;
    let mut bytes = Vec::new();
    // The size may grow while it is read.
    // One byte more than allowed tells a file that is too large from one that just fits.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText)?;
    Ok(Text { text, stamp: Stamp::of(&metadata) })
}

fn check(metadata: &Metadata) -> Result<(), ReadError> {
    match sort(metadata) {
        Some(sort) => Err(ReadError::NotAFile(sort)),
        None if metadata.size() > MAX_FILE_BYTES => Err(ReadError::TooLarge),
        None => Ok(()),
    }
}

/// Sort of something that is not a regular file.
pub(crate) fn sort(metadata: &Metadata) -> Option<&'static str> {
    let sort = metadata.file_type();
    if sort.is_file() {
        None
    } else if sort.is_dir() {
        Some("a directory")
    } else if sort.is_fifo() {
        Some("a named pipe")
    } else if sort.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}
