//! `strake lab demo`: two nodes on this machine and a story in nine steps, each proved. One file per step;
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
mod requests;
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
    /// Leave the lab running after step 8, with the mesh on: step 9, in which the pods leave it, is left out
    #[arg(long)]
    keep: bool,
    /// Leave the lab running after this step
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u32).range(1..=9), conflicts_with = "keep")]
    until: Option<u32>,
}

/// Name of the lab without `--lab`.
const DEFAULT_LAB: &str = "demo";

/// The last step in which the mesh is on.
const LAST_IN_THE_MESH: u32 = 8;

impl Demo {
    /// Runs the story; exit code 0 when every proof holds, 130 after Ctrl-C.
    ///
    /// # Errors
    /// When the lab does not start, a step cannot be told to its end, or something is left behind.
    pub async fn run(&self, lab: Option<&str>) -> Result<ExitCode> {
        let name = lab.unwrap_or(DEFAULT_LAB);
        // from here on a signal is an event, not the end of this process
        let mut signalled = tokio::spawn(signals::shutdown());
        tokio::task::yield_now().await;
        println!("Strake: two nodes on this machine, namespaces shop and intruder, IPv4 and IPv6");
        // they go with the lab, also when this process is killed
        let manifests = MANIFESTS.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let lab = Lab::start(Options::of(name, manifests)).await.context("the demo's lab")?;
        let kept = self.until.or(self.keep.then_some(LAST_IN_THE_MESH));
        let last = kept.unwrap_or(report::STEPS);
        let mut story = Story::new(lab);
        let outcome = tokio::select! {
            told = tell(&mut story, last) => told.map(|()| None),
            signal = &mut signalled => Ok(Some(signal??)),
        };
        if kept.is_some() && matches!(outcome, Ok(None)) {
            return self.leave_running(story, last).await;
        }
        let code = ending(&story, &outcome, last);
        // Cookies of the namespaces can only be read while the lab runs.
        let traces = Traces::of(&story.lab).await;
        drop(story);
        lab::down(name).await.context("the demo's lab does not go down")?;
        traces.assert_gone().await?;
        println!("left behind: nothing");
        outcome?;
        Ok(code)
    }

    async fn leave_running(&self, mut story: Story, last: u32) -> Result<ExitCode> {
        let code = ending(&story, &Ok(None), last);
        story.lab.detach().await?;
        println!("The lab keeps running; manifests are in {}", story.manifests.display());
        println!(
            "  strake get pods -A --lab {0}\n  strake lab status --lab {0}\n  strake lab down --lab {0}",
            story.lab.name()
        );
        Ok(code)
    }
}

/// The steps up to `last`. An error, other than a proof that failed, ends the story: later steps build on earlier ones.
async fn tell(story: &mut Story, last: u32) -> Result<()> {
    story.lab.wait_ready(UP).await?;
    let mut encrypted = Vec::new();
    for step in 1..=last {
        let told = match step {
            1 => before::tell(story).await,
            2 => enrol::tell(story).await.map(|frames| encrypted = frames),
            3 => wire::tell(story, &encrypted).await,
            4 => metrics::tell(story).await,
            5 => strict::tell(story).await,
            6 => deny::tell(story).await,
            7 => requests::tell(story).await,
            8 => faults::tell(story).await,
            _ => leave::tell(story).await,
        };
        told.with_context(|| format!("step {step}"))?;
    }
    Ok(())
}

/// Says how the story ended; the exit code, as shells give it for a signal.
fn ending(story: &Story, outcome: &Result<Option<Signal>>, last: u32) -> ExitCode {
    match outcome {
        Ok(None) => {
            let held = story.report.finish(last);
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
