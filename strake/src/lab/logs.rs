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
                bail!("{}", self.none(&lab)?);
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
        let fits = |[namespace, pod, container]: &[String; 3]| {
            wanted.is_none_or(|wanted| wanted == (namespace, pod))
                && self.container.as_ref().is_none_or(|wanted| wanted == container)
        };
        let title = |[namespace, pod, container]: &[String; 3]| {
            self.pod.is_none().then(|| format!("{namespace}/{pod} {container}"))
        };
        let found = all(lab)?.into_iter().filter(|(_, name)| fits(name));
        Ok(found.map(|(path, name)| (path, title(&name))).collect())
    }

    /// That there is no such log, with those that there are.
    fn none(&self, lab: &Lab) -> io::Result<String> {
        let known: Vec<_> =
            all(lab)?.into_iter().map(|(_, name)| format!("{}/{} {}", name[0], name[1], name[2])).collect();
        let pod = self.pod.as_deref().map(split_pod).map(|(namespace, name)| format!("{namespace}/{name}"));
        let wanted = [pod, self.container.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        Ok(format!("there is no log of {wanted}; there are:\n  {}", known.join("\n  ")))
    }
}

/// Every log, with namespace, pod and container.
fn all(lab: &Lab) -> io::Result<Vec<(PathBuf, [String; 3])>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(lab.run_dir().logs())? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let parts: Vec<String> = stem.split('_').map(str::to_owned).collect();
        if let Ok(name) = parts.try_into() {
            found.push((path, name));
        }
    }
    found.sort();
    Ok(found)
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
