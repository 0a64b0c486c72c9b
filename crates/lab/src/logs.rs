//! When a container's log grew and where each of its runs begins in it. Logs are what containers wrote and nothing else, so
//! this is kept beside them: a line `begin MILLISECONDS OFFSET` for each start, `at MILLISECONDS LENGTH` for each second
//! in which the log grew.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

/// Pause between two looks at how long the logs are: what `since` is exact to.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Extension of the file beside a log.
const EXTENSION: &str = "marks";

/// The logs of a lab that runs.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Length of each log as of the last look.
    lengths: Mutex<BTreeMap<PathBuf, u64>>,
}

impl Marks {
    /// Notes that a container is about to start and will write to the end of `log`.
    pub(crate) fn begin(&self, log: &Path) -> io::Result<()> {
        let length = length(log)?;
        append(log, "begin", length)?;
        self.lengths.lock().insert(log.to_owned(), length);
        Ok(())
    }

    /// Notes which logs grew since the last look.
    pub(crate) fn look(&self) {
        let mut lengths = self.lengths.lock();
        lengths.retain(|log, known| {
            let Ok(now) = length(log) else { return false };
            // A length that could not be written down stays as it was, and the next look tries again.
            if now != *known && append(log, "at", now).is_ok() {
                *known = now;
            }
            true
        });
    }
}

fn length(log: &Path) -> io::Result<u64> {
    match fs::metadata(log) {
        Ok(metadata) => Ok(metadata.len()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(err) => Err(err),
    }
}

fn append(log: &Path, word: &str, offset: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(log.with_extension(EXTENSION))?;
    writeln!(file, "{word} {} {offset}", milliseconds(SystemTime::now()))
}

fn milliseconds(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// Notes about a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Byte at which each run begins.
    runs: Vec<u64>,
    /// Time in milliseconds since 1970, and the length that the log had.
    lengths: Vec<(u128, u64)>,
}

impl History {
    /// Reads what was noted about a log.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn of(log: &Path) -> io::Result<Self> {
        match fs::read_to_string(log.with_extension(EXTENSION)) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(err) => Err(err),
        }
    }

    fn parse(text: &str) -> Self {
        let mut history = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (word, at, offset) = (words.next(), words.next(), words.next());
            // Else the supervisor was killed while it wrote the line.
            let (Some(at), Some(offset)) = (at.and_then(|at| at.parse().ok()), offset.and_then(|o| o.parse().ok()))
            else {
                continue;
            };
            if word == Some("begin") {
                history.runs.push(offset);
            }
            history.lengths.push((at, offset));
        }
        history
    }

    /// Number of bytes of the log that were written before `at`, to the second.
    #[must_use]
    pub fn written_before(&self, at: SystemTime) -> u64 {
        let at = milliseconds(at);
        let earlier = self.lengths.iter().filter(|(time, _)| *time <= at);
        // The highest and not the last: the clock may have been set back meanwhile.
        earlier.map(|(_, length)| *length).max().unwrap_or_default()
    }

    /// First and last byte (exclusive) of the run before the current one; `None` when the container was started once.
    #[must_use]
    pub fn previous_run(&self) -> Option<(u64, u64)> {
        match self.runs[..] {
            [.., previous, current] => Some((previous, current)),
            [] | [_] => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_divided_by_time_and_by_run() {
        let history = History::parse("begin 1000 0\nat 2000 10\nbegin 3000 30\nbegin 4000 50\nat 9000 70\nnonsense\n");
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);

        assert_eq!(history.written_before(at(500)), 0);
        assert_eq!(history.written_before(at(2500)), 10);
        assert_eq!(history.written_before(at(9000)), 70);
        assert_eq!(history.previous_run(), Some((30, 50)));
        assert_eq!(History::parse("begin 1000 0\n").previous_run(), None);
    }

    #[test]
    fn only_what_grew_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c.log");
        let marks = Marks::default();

        marks.begin(&log).unwrap();
        marks.look();
        fs::write(&log, "one\n").unwrap();
        marks.look();
        marks.look();
        marks.begin(&log).unwrap();

        let history = History::of(&log).unwrap();
        assert_eq!(history.previous_run(), Some((0, 4)));
        assert_eq!(history.lengths.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [0, 4, 4]);
    }
}
