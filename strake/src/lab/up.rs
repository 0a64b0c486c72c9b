//! `strake lab up`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use ::lab::{Lab, LabError, Options, SYSTEM_PROGRAMS, Status};
use anyhow::{Context as _, Result};
use clap::Args;
use runtime::signals::{self, Signal};

use crate::{progress::Progress, target::Target};

/// Namespace of the mesh's own pods, which run in every lab.
const SYSTEM_NAMESPACE: &str = "istio-system";

/// Starts a lab.
#[derive(Debug, Args)]
pub struct Up {
    /// Directories of manifests; changes in them take effect while the lab runs
    #[arg(value_name = "DIR", required = true)]
    manifests: Vec<PathBuf>,
    /// Run a copy of the manifests, which goes away with the lab: `strake label` edits the copy
    #[arg(long)]
    copy: bool,
    /// Nodes to make when the manifests hold no Node
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Directory of strake-control, strake-agent and ztunnel (default: where strake is)
    #[arg(long, value_name = "DIR", env = ::lab::BIN_DIR_VARIABLE)]
    bin_dir: Option<PathBuf>,
    /// Set an environment variable of a program of the mesh: ztunnel, strake-agent or strake-control
    #[arg(long, value_name = "PROGRAM:NAME=VALUE", value_parser = parse_variable)]
    set_env: Vec<(String, String, String)>,
    /// Do not start the mesh
    #[arg(long)]
    no_mesh: bool,
    /// Run in the foreground; Ctrl-C stops the lab
    #[arg(long)]
    foreground: bool,
    /// Seconds to wait for every pod to be ready
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

impl Up {
    fn options(&self, target: &Target) -> Result<Options> {
        let mut options = Options::new(&target.lab, PathBuf::new());
        options.manifests.clone_from(&self.manifests);
        if self.copy {
            options.own_manifests = copy(&self.manifests)?;
            // The lab adds the directory of its copy by itself; the originals are not watched.
            options.manifests.clear();
        }
        options.program = std::env::current_exe()?;
        options.mesh = !self.no_mesh;
        if let Some(nodes) = self.nodes {
            options.nodes = nodes;
        }
        if let Some(dir) = &self.bin_dir {
            options.bin_dir.clone_from(dir);
        }
        for (program, name, value) in self.set_env.iter().cloned() {
            options.program_env.entry(program).or_default().insert(name, value);
        }
        Ok(options)
    }

    /// Until everything is ready or, in the foreground, until Ctrl-C.
    pub(super) async fn run(self, target: &Target) -> Result<ExitCode> {
        let began = Instant::now();
        // From here on a signal ends the lab and not just this process, also while it starts.
        let mut interrupted = tokio::spawn(signals::shutdown());
        // The task has to run once to install its handlers, before the lab is there to be left behind.
        tokio::task::yield_now().await;
        let mut lab = Lab::start(self.options(target)?).await?;
        let mut progress = Progress::new();
        let ready = tokio::select! {
            // What came while the lab started comes first.
            biased;
            signal = &mut interrupted => {
                progress.clear();
                return end(lab, signal??).await;
            }
            ready = lab.wait_ready_with(Duration::from_secs(self.timeout), |waiting| progress.show(waiting)) => ready,
        };
        progress.clear();
        let code = match ready {
            Ok(()) => {
                let status = lab.status().await?;
                println!(
                    "lab {} is ready after {:.1} s: {}",
                    lab.name(),
                    began.elapsed().as_secs_f64(),
                    counts(&status)
                );
                status.warnings.iter().for_each(|warning| println!("warning: {warning}"));
                status.notes.iter().for_each(|note| println!("note: {note}"));
                if status.without_image == 0 && status.pods.iter().all(|pod| pod.namespace == SYSTEM_NAMESPACE) {
                    let places: Vec<_> = self.manifests.iter().map(|path| path.display().to_string()).collect();
                    println!("note: no manifest in {} asks for a pod (read are *.yaml and *.yml)", places.join(", "));
                }
                ExitCode::SUCCESS
            }
            Err(err @ LabError::NotReady { .. }) => {
                eprintln!("{err}");
                eprintln!(
                    "lab {0} keeps running: see `strake lab logs --lab {0}`, stop it with `strake lab down --lab {0}`",
                    lab.name()
                );
                ExitCode::FAILURE
            }
            Err(err) => return Err(err.into()),
        };
        if !self.foreground {
            lab.detach().await?;
            return Ok(code);
        }
        tokio::select! {
            ended = lab.ended() => { ended?; Ok(code) }
            signal = &mut interrupted => end(lab, signal??).await,
        }
    }
}

fn counts(status: &Status) -> String {
    let images = match status.without_image {
        0 => String::new(),
        1 => " (1 more needs a container image)".to_owned(),
        more => format!(" ({more} more need a container image)"),
    };
    format!("{} nodes, {} pods{images}, {} Services", status.nodes.len(), status.pods.len(), status.services.len())
}

async fn end(lab: Lab, signal: Signal) -> Result<ExitCode> {
    eprintln!("{}: lab {} ends", signal.name(), lab.name());
    lab.down().await?;
    // What shells give for a program that a signal ended.
    Ok(ExitCode::from(match signal {
        Signal::Interrupt => 130,
        Signal::Terminate => 143,
    }))
}

fn parse_variable(text: &str) -> Result<(String, String, String), String> {
    let expected = "expected PROGRAM:NAME=VALUE, as ztunnel:LOG_FORMAT=json";
    let (program, rest) = text.split_once(':').ok_or(expected)?;
    let (name, value) = rest.split_once('=').ok_or(expected)?;
    if !SYSTEM_PROGRAMS.contains(&program) {
        return Err(format!("{program:?} is none of {}", SYSTEM_PROGRAMS.join(", ")));
    }
    if name.is_empty() {
        return Err(expected.to_owned());
    }
    Ok((program.to_owned(), name.to_owned(), value.to_owned()))
}

/// The texts of all manifests, by path; of several directories each below a number of its own.
fn copy(directories: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (number, directory) in directories.iter().enumerate() {
        let prefix = if directories.len() > 1 { format!("{}/", number + 1) } else { String::new() };
        let unread = || format!("cannot copy {}", directory.display());
        if directory.is_file() {
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            found.insert(format!("{prefix}{name}"), fs::read_to_string(directory).with_context(unread)?);
        } else {
            collect(directory, &prefix, &mut found).with_context(unread)?;
        }
    }
    Ok(found)
}

fn collect(directory: &Path, prefix: &str, found: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_manifest = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), found)?;
        } else if is_manifest && path.is_file() {
            found.insert(format!("{prefix}{name}"), fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_of_one_program() {
        let parsed = parse_variable("ztunnel:LOG_FORMAT=json=x").unwrap();

        assert_eq!(parsed, ("ztunnel".to_owned(), "LOG_FORMAT".to_owned(), "json=x".to_owned()));
        for (text, expected) in [("LOG=x", "PROGRAM:"), ("istiod:A=b", "none of"), ("ztunnel:A", "PROGRAM:")] {
            assert!(parse_variable(text).unwrap_err().contains(expected), "{text}");
        }
    }

    #[test]
    fn a_copy_has_the_manifests_of_all_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("base/apps")).unwrap();
        for (name, text) in [("base/a.yaml", "a"), ("base/apps/b.yml", "b"), ("base/readme.md", "x"), ("one.yaml", "c")]
        {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let names = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|path| dir.path().join(path)).collect();
            copy(&paths).unwrap().into_keys().collect::<Vec<_>>().join(" ")
        };

        assert_eq!(names(&["base"]), "a.yaml apps/b.yml");
        assert_eq!(names(&["base", "one.yaml"]), "1/a.yaml 1/apps/b.yml 2/one.yaml");
        assert!(copy(&[dir.path().join("none")]).unwrap_err().to_string().contains("none"));
    }
}
