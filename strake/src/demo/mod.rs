//! `strake lab demo`: two nodes on this machine and a story in eight steps, each proved. One file per step;
//! what they share is in `story`. Whatever happens, the lab goes down with this process.

mod before;
mod deny;
mod enrol;
mod faults;
mod leave;
mod leftovers;
mod load;
mod metrics;
mod report;
mod story;
mod strict;
mod wire;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use lab::{Lab, Options};
use runtime::signals::{self, Signal};

use leftovers::Traces;
use story::Story;

/// Until all pods of the demo are ready; on two idle cores it takes some 3 s.
const UP: Duration = Duration::from_secs(60);

/// The manifests, as they are in `examples/shop`.
const MANIFESTS: [(&str, &str); 3] = [
    ("apps.yaml", include_str!("../../../examples/shop/apps.yaml")),
    ("intruder.yaml", include_str!("../../../examples/shop/intruder.yaml")),
    ("shop.yaml", include_str!("../../../examples/shop/shop.yaml")),
];

/// Tells the mesh's story on two nodes of this machine, and proves each step
#[derive(Debug, Args)]
pub struct Demo {
    /// Name of the demo's lab
    #[arg(long, default_value = "demo")]
    name: String,
    /// Leave the lab running at the end
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Runs the story; exit code 0 when every proof holds, 130 after Ctrl-C.
    ///
    /// # Errors
    /// When the lab does not start, a step cannot be told to its end, or something is left behind.
    pub async fn run(&self) -> Result<ExitCode> {
        // from here on a signal is an event, not the end of this process
        let mut signalled = tokio::spawn(signals::shutdown());
        tokio::task::yield_now().await;
        println!("Strake: two nodes on this machine, namespaces shop and intruder, IPv4 and IPv6");
        // they go with the lab, also when this process is killed
        let manifests = MANIFESTS.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let lab = Lab::start(Options::of(&self.name, manifests)).await.context("the demo's lab")?;
        let mut story = Story::new(lab);
        let outcome = tokio::select! {
            told = tell(&mut story) => told.map(|()| None),
            signal = &mut signalled => Ok(Some(signal??)),
        };
        if self.keep && matches!(outcome, Ok(None)) {
            return self.leave_running(story).await;
        }
        let code = ending(&story, &outcome);
        let traces = Traces::of(&story.lab).await;
        drop(story);
        lab::down(&self.name).await.context("the demo's lab does not go down")?;
        traces.assert_gone().await?;
        println!("left behind: nothing");
        outcome?;
        Ok(code)
    }

    async fn leave_running(&self, mut story: Story) -> Result<ExitCode> {
        let code = ending(&story, &Ok(None));
        story.lab.detach().await?;
        println!("The lab runs on: manifests in {}", story.manifests.display());
        println!("  strake get pods -A --lab {0}\n  strake lab down --name {0}", self.name);
        Ok(code)
    }
}

/// The eight steps. An error, other than a proof that failed, ends the story: later steps build on earlier ones.
async fn tell(story: &mut Story) -> Result<()> {
    story.lab.wait_ready(UP).await?;
    before::tell(story).await.context("step 1")?;
    let encrypted = enrol::tell(story).await.context("step 2")?;
    wire::tell(story, &encrypted).await.context("step 3")?;
    metrics::tell(story).await.context("step 4")?;
    strict::tell(story).await.context("step 5")?;
    deny::tell(story).await.context("step 6")?;
    faults::tell(story).await.context("step 7")?;
    leave::tell(story).await.context("step 8")
}

/// Says how the story ended; the exit code, as shells give it for a signal.
fn ending(story: &Story, outcome: &Result<Option<Signal>>) -> ExitCode {
    match outcome {
        Ok(None) => {
            let held = story.report.finish();
            if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Some(signal)) => {
            story.report.stopped();
            println!("{}: the lab goes down", signal.name());
            ExitCode::from(match signal {
                Signal::Interrupt => 130,
                Signal::Terminate => 143,
            })
        }
        Err(_) => {
            story.report.stopped();
            ExitCode::FAILURE
        }
    }
}
