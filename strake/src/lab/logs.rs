//! `strake lab logs`: what containers have printed, and with `-f` what they print.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use ::lab::{Lab, split_pod};
use anyhow::{Result, bail};
use clap::Args;

use super::Name;

/// Pause between two looks at the files with `--follow`.
const FOLLOW: Duration = Duration::from_millis(100);

/// Prints logs.
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    lab: Name,
    /// The pod: NAMESPACE/NAME, or a NAME in `default` (default: all pods, each line with its pod)
    pod: Option<String>,
    /// The container (default: all of the pod)
    #[arg(short, long)]
    container: Option<String>,
    /// Go on printing until Ctrl-C or the lab's end
    #[arg(short, long)]
    follow: bool,
}

/// A log file and how much of it was printed.
#[derive(Debug, Default)]
struct Tail {
    printed: u64,
    /// Begun line, whose end has not been written.
    line: Vec<u8>,
}

impl Logs {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let lab = Lab::attach(&self.lab.name).await?;
        let mut tails: BTreeMap<PathBuf, Tail> = BTreeMap::new();
        loop {
            for (path, title) in self.files(&lab)? {
                let tail = tails.entry(path.clone()).or_default();
                tail.print(&path, title.as_deref())?;
            }
            if tails.is_empty() && !self.follow {
                bail!("there is no such log");
            }
            if !self.follow || Lab::attach(&self.lab.name).await.is_err() {
                break;
            }
            tokio::time::sleep(FOLLOW).await;
        }
        for tail in tails.into_values() {
            tail.finish()?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The logs to print; with a title when there may be more than one.
    fn files(&self, lab: &Lab) -> io::Result<Vec<(PathBuf, Option<String>)>> {
        let wanted = self.pod.as_deref().map(split_pod);
        let mut files = Vec::new();
        for entry in fs::read_dir(lab.run_dir().logs())? {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let [namespace, pod, container] = stem.split('_').collect::<Vec<_>>()[..] else { continue };
            let fits = wanted.is_none_or(|wanted| wanted == (namespace, pod))
                && self.container.as_deref().is_none_or(|wanted| wanted == container);
            if fits {
                let title = match (&self.pod, &self.container) {
                    (None, _) => Some(format!("{namespace}/{pod} {container}")),
                    (Some(_), _) => None,
                };
                files.push((path, title));
            }
        }
        files.sort();
        Ok(files)
    }
}

impl Tail {
    /// Prints the lines that are new.
    fn print(&mut self, path: &PathBuf, title: Option<&str>) -> io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.printed))?;
        let mut new = Vec::new();
        self.printed += u64::try_from(file.read_to_end(&mut new)?).unwrap_or_default();
        let mut out = io::stdout().lock();
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
