//! `--wait`: returns when pods are where their labels want them, as the kernel and every peer's proxy confirm it.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::{
    get::pods::{self, Row},
    mesh::{Mesh, PodFacts},
    peers::Peers,
    progress::Progress,
};

/// Pause between two questions to agents and proxies.
const INTERVAL: Duration = Duration::from_millis(100);

/// Pods that an error names at most.
const NAMED: usize = 10;

/// The options of a command that can wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wait {
    /// Wait until each pod is where its labels want it and the ztunnel of every node knows
    #[arg(long)]
    wait: bool,
    /// Seconds that --wait takes at most
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout: u64,
}

impl Wait {
    /// Returns true with `--wait`.
    pub(crate) const fn is_asked(&self) -> bool {
        self.wait
    }

    /// With `--wait`, waits until the wanted pods are settled: enrolled, and reached by HBONE from every node, exactly if
    /// their labels ask for it.
    ///
    /// # Errors
    /// After the timeout, with what is missing.
    pub(crate) async fn until_settled(&self, mesh: &Mesh, wanted: impl Fn(&PodFacts) -> bool) -> Result<()> {
        if !self.wait {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        let mut progress = Progress::new();
        loop {
            let missing = match missing(mesh, &wanted).await {
                Ok(missing) if missing.is_empty() => {
                    progress.clear();
                    return Ok(());
                }
                Ok(missing) => missing,
                // A program that is just starting does not answer: whether it agrees is not known.
                Err(error) => vec![format!("{error:#}")],
            };
            if Instant::now() >= deadline {
                progress.clear();
                bail!("not in place after {} s: {}", self.timeout, shortened(&missing));
            }
            progress.show(&missing);
            sleep(INTERVAL).await;
        }
    }
}

/// Differences from what the labels of the wanted pods ask for, one text per pod or peer.
async fn missing(mesh: &Mesh, wanted: &impl Fn(&PodFacts) -> bool) -> Result<Vec<String>> {
    let rows = pods::of(mesh, wanted).await?;
    let unsettled: Vec<String> = rows.iter().filter_map(Row::unsettled).collect();
    if !unsettled.is_empty() {
        return Ok(unsettled);
    }
    // Peers are asked last. They learn of a pod from the control plane after its agent has enrolled it, so before that
    // their answer is known.
    let peers = Peers::ask(mesh).await?;
    let behind = rows.iter().filter_map(|row| {
        let hbone = row.wants_hbone()?;
        let nodes = peers.behind(&row.namespace, &row.name, hbone);
        let protocol = if hbone { "HBONE" } else { "plaintext" };
        (!nodes.is_empty()).then(|| {
            format!("{}/{} is not yet reached by {protocol} from {}", row.namespace, row.name, nodes.join(", "))
        })
    });
    Ok(behind.collect())
}

fn shortened(missing: &[String]) -> String {
    let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    match missing.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let missing: Vec<String> = (0..12).map(|n| format!("p{n}")).collect();

        assert!(shortened(&missing).ends_with("p9; and 2 more"));
        assert_eq!(shortened(&missing[..2]), "p0; p1");
    }
}
