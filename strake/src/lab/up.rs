//! `strake lab up`.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use ::lab::{Lab, LabError, Options};
use anyhow::Result;
use clap::Args;

use super::Name;

/// Namespace of the mesh's own pods, which run in every lab.
const SYSTEM_NAMESPACE: &str = "istio-system";

/// Starts a lab.
#[derive(Debug, Args)]
pub struct Up {
    /// Directories of manifests; changes in them take effect while the lab runs
    #[arg(value_name = "DIR", required = true)]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    lab: Name,
    /// Nodes to make when the manifests hold no Node
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Directory of strake-control, strake-agent and ztunnel (default: where strake is)
    #[arg(long, value_name = "DIR", env = ::lab::BIN_DIR_VARIABLE)]
    bin_dir: Option<PathBuf>,
    /// Start no control plane, agents and node proxies
    #[arg(long)]
    no_mesh: bool,
    /// Stay, and end the lab at Ctrl-C
    #[arg(long)]
    foreground: bool,
    /// Seconds to wait for every pod to be ready
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

impl Up {
    fn options(&self) -> Result<Options> {
        let mut options = Options::new(&self.lab.name, PathBuf::new());
        options.manifests.clone_from(&self.manifests);
        options.program = std::env::current_exe()?;
        options.mesh = !self.no_mesh;
        if let Some(nodes) = self.nodes {
            options.nodes = nodes;
        }
        if let Some(dir) = &self.bin_dir {
            options.bin_dir.clone_from(dir);
        }
        Ok(options)
    }

    /// Until everything is ready or, in the foreground, until Ctrl-C.
    pub(super) async fn run(self) -> Result<ExitCode> {
        let began = Instant::now();
        // From here on a signal ends the lab and not just this process, also while it starts.
        let mut interrupted = tokio::spawn(runtime::signals::shutdown());
        tokio::task::yield_now().await;
        let mut lab = Lab::start(self.options()?).await?;
        let ready = tokio::select! {
            // What came while the lab started comes first.
            biased;
            _ = &mut interrupted => return end(lab).await,
            ready = lab.wait_ready(Duration::from_secs(self.timeout)) => ready,
        };
        let code = match ready {
            Ok(()) => {
                let status = lab.status().await?;
                println!(
                    "lab {} is ready after {:.1} s: {} nodes, {} pods, {} Services",
                    lab.name(),
                    began.elapsed().as_secs_f64(),
                    status.nodes.len(),
                    status.pods.len(),
                    status.services.len()
                );
                status.notes.iter().for_each(|note| println!("note: {note}"));
                if status.pods.iter().all(|pod| pod.namespace == SYSTEM_NAMESPACE) {
                    let places: Vec<_> = self.manifests.iter().map(|path| path.display().to_string()).collect();
                    println!("note: no manifest in {} asks for a pod (read are *.yaml and *.yml)", places.join(", "));
                }
                ExitCode::SUCCESS
            }
            Err(err @ LabError::NotReady { .. }) => {
                eprintln!("{err}");
                eprintln!("lab {0} runs on: `strake lab logs --name {0}` and `strake lab down --name {0}`", lab.name());
                ExitCode::FAILURE
            }
            Err(err) => return Err(err.into()),
        };
        if !self.foreground {
            lab.detach().await?;
            return Ok(code);
        }
        let ended = tokio::select! {
            ended = lab.ended() => { ended?; true }
            _ = &mut interrupted => false,
        };
        if ended { Ok(code) } else { end(lab).await }
    }
}

async fn end(lab: Lab) -> Result<ExitCode> {
    lab.down().await?;
    // What shells give for a program that Ctrl-C ended.
    Ok(ExitCode::from(130))
}
