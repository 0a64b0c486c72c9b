//! `strake lab logs`: what containers have printed, and with `-f` what they print.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use ::lab::{Lab, logs::History, split_pod};
use anyhow::{Result, bail};
use clap::Args;
use kube_cluster::LogOptions;

use super::exec::pod_name;
use crate::target::Target;

/// Pause between two looks at the files with `--follow`.
const FOLLOW: Duration = Duration::from_millis(100);

/// Prints logs.
#[derive(Debug, Args)]
pub struct Logs {
    /// The pod: NAME, or NAMESPACE/NAME (default: all pods, each line with its pod)
    pod: Option<String>,
    /// Namespace of the pod; without a pod all pods of the namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// The container (default: all of the pod)
    #[arg(short, long)]
    container: Option<String>,
    #[command(flatten)]
    range: Range,
    /// Pods of the namespace instead of one.
    #[arg(skip)]
    pods: Vec<String>,
}

/// The part of each log to print.
#[derive(Debug, Args)]
pub(crate) struct Range {
    /// Follow the logs until Ctrl-C or the end of the lab
    #[arg(short, long, conflicts_with = "previous")]
    follow: bool,
    /// Print the last N lines of each log
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Print what was written within this time, as 30s, 5m or 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Print the run of the container before the current one
    #[arg(short, long, conflicts_with = "since")]
    previous: bool,
}

impl Range {
    /// The same part of a log of a cluster.
    pub(crate) fn options(&self) -> LogOptions {
        LogOptions {
            container: None,
            tail: self.tail,
            // The API server takes no 0.
            since_seconds: self.since.map(|since| since.as_secs().max(1)),
            follow: self.follow,
            previous: self.previous,
        }
    }
}

/// Namespace, pod and container of a log.
type LogName = [String; 3];

/// A log file and how much of it was printed.
#[derive(Debug, Default)]
struct Tail {
    printed: u64,
    /// Position to stop at, when that is not the end.
    end: Option<u64>,
    /// Begun line, whose end has not been written.
    line: Vec<u8>,
}

impl Logs {
    /// Logs of several pods of a namespace.
    pub(crate) fn of_pods(namespace: &str, pods: Vec<String>, range: Range) -> Self {
        let pod = match pods.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        };
        Self { pod, namespace: Some(namespace.to_owned()), container: None, range, pods }
    }

    pub(crate) async fn run(self, target: &Target) -> Result<ExitCode> {
        let lab = target.attach().await?;
        let pod = self.pod.as_deref().map(|pod| pod_name(self.namespace.as_deref(), pod)).transpose()?;
        let mut tails: BTreeMap<PathBuf, Tail> = BTreeMap::new();
        let mut first = true;
        loop {
            for (path, name) in self.files(&lab, pod.as_deref())? {
                if !tails.contains_key(&path) {
                    // A log that comes later is new as a whole.
                    let tail = if first { self.begin(&path, &name)? } else { Tail::default() };
                    tails.insert(path.clone(), tail);
                }
                let title = pod.is_none().then(|| format!("{}/{} {}", name[0], name[1], name[2]));
                if let Some(tail) = tails.get_mut(&path) {
                    tail.print(&path, title.as_deref())?;
                }
            }
            first = false;
            if tails.is_empty() && !self.range.follow {
                bail!("{}", self.none(&lab, pod.as_deref())?);
            }
            // The logs go with the lab, so its end is the end of following; what was written until then has been
            // printed above.
            if !self.range.follow || target.attach().await.is_err() {
                break;
            }
            tokio::time::sleep(FOLLOW).await;
        }
        for tail in tails.into_values() {
            tail.finish()?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The part of a log to begin with.
    fn begin(&self, path: &Path, [namespace, pod, container]: &LogName) -> Result<Tail> {
        let history = History::of(path)?;
        let mut tail = Tail::default();
        if self.range.previous {
            let Some((start, end)) = history.previous_run() else {
                bail!("container {container} of pod {namespace}/{pod} has run once: there is no earlier run");
            };
            tail = Tail { printed: start, end: Some(end), ..tail };
        }
        if let Some(since) = self.range.since {
            let at = SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH);
            tail.printed = history.written_before(at);
        }
        if let Some(lines) = self.range.tail {
            tail.printed += last_lines(&tail.read(path)?, lines);
        }
        Ok(tail)
    }

    /// The logs to print.
    fn files(&self, lab: &Lab, pod: Option<&str>) -> io::Result<Vec<(PathBuf, LogName)>> {
        let wanted = pod.map(split_pod);
        let fits = |[namespace, pod, container]: &LogName| {
            let of_pod = match wanted {
                Some(wanted) => wanted == (namespace, pod),
                None => self.namespace.as_ref().is_none_or(|wanted| wanted == namespace),
            };
            let of_pod = of_pod && (self.pods.is_empty() || self.pods.contains(pod));
            of_pod && self.container.as_ref().is_none_or(|wanted| wanted == container)
        };
        Ok(all(lab)?.into_iter().filter(|(_, name)| fits(name)).collect())
    }

    /// That there is no such log, with those that there are.
    fn none(&self, lab: &Lab, pod: Option<&str>) -> io::Result<String> {
        let known: Vec<_> =
            all(lab)?.into_iter().map(|(_, name)| format!("{}/{} {}", name[0], name[1], name[2])).collect();
        let pod = match (pod.map(split_pod), &self.namespace) {
            (Some((namespace, name)), _) => Some(format!("{namespace}/{name}")),
            (None, namespace) => namespace.clone(),
        };
        let wanted = [pod, self.container.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        Ok(format!("no log of {wanted}; there are:\n  {}", known.join("\n  ")))
    }
}

/// Every log: `logs/NAMESPACE/POD/CONTAINER.log`.
fn all(lab: &Lab) -> io::Result<Vec<(PathBuf, LogName)>> {
    let mut found = Vec::new();
    for namespace in directories(&lab.run_dir().logs())? {
        for pod in directories(&namespace)? {
            for entry in fs::read_dir(&pod)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let container = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    found.push((path.clone(), [name(&namespace), name(&pod), container]));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

fn directories(of: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(of)?.map(|entry| entry.map(|entry| entry.path()));
    Ok(paths.collect::<io::Result<Vec<_>>>()?.into_iter().filter(|path| path.is_dir()).collect())
}

/// Offset at which the last `count` lines of a text begin.
fn last_lines(text: &[u8], count: usize) -> u64 {
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let start = match count {
        0 => text.len(),
        count => ends.nth(count - 1).map_or(0, |end| end + 1),
    };
    u64::try_from(start).unwrap_or_default()
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30s, 5m or 1h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

impl Tail {
    /// New content of the file, up to the end that is set.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.printed))?;
        let mut new = Vec::new();
        let most = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.printed));
        file.take(most).read_to_end(&mut new)?;
        Ok(new)
    }

    /// Prints the lines that are new.
    fn print(&mut self, path: &Path, title: Option<&str>) -> io::Result<()> {
        let new = self.read(path)?;
        self.printed += u64::try_from(new.len()).unwrap_or_default();
        let mut out = io::stdout().lock();
        // Whole lines only: with several logs the half of one line would be continued by a line of another.
        self.line.extend_from_slice(&new);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            if let Some(title) = title {
                write!(out, "{title}: ")?;
            }
            out.write_all(&line)?;
        }
        out.flush()
    }

    /// Prints a last line without end.
    fn finish(self) -> io::Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(&self.line)?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = b"one\ntwo\nthree\n";

        let last = |count| &text[usize::try_from(last_lines(text, count)).unwrap()..];

        assert_eq!(last(1), b"three\n");
        assert_eq!(last(2), b"two\nthree\n");
        assert_eq!(last(9), text);
        assert_eq!(last(0), b"");
        assert_eq!(last_lines(b"one\nopen", 1), 4);
        assert_eq!(last_lines(b"", 3), 0);
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "5", "m", "1d", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_of_a_log_ends_where_the_next_run_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        fs::write(&path, "first\nsecond\nthird\n").unwrap();

        let tail = Tail { printed: 6, end: Some(13), line: Vec::new() };

        assert_eq!(tail.read(&path).unwrap(), b"second\n");
    }
}
