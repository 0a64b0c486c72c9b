//! Step 8: a ztunnel and an agent are killed. Nothing goes out in plaintext, and the agent is not missed.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use capture::Frame;

use super::{
    load::{Load, no_failure},
    report::Evidence,
    story::{CART, Family, NODES, Story, TAKES_EFFECT, agent, eventually, ztunnel},
};

/// SIGKILL.
const KILL: i32 = 9;

/// Requests that must have passed once an agent is back.
const AFTERWARDS: u32 = 10;

pub(crate) async fn tell(story: &mut Story) -> Result<()> {
    story.report.step("Faults: ztunnel and agent are killed");
    story.report.say("kill -9 of node-1's ztunnel, which stays down for a while; the wire is recorded");
    let gap = story.captured("node-1", through_the_gap(story)).await;
    let (calls, frames) = match gap {
        Ok((calls, frames)) => (Ok(calls), frames),
        Err(err) => (Err(err), Vec::new()),
    };
    story.report.prove("while it is down calls fail; after its restart they work", calls);
    let clear = no_plaintext(story, &frames).await;
    story.report.prove("not one packet with plaintext payload on the wire meanwhile", clear);

    story.report.say("kill -9 of both agents, while cart sends requests");
    let load = Load::requests(story, "db").await?;
    let back = kill_agents(story).await;
    let report = load.stop().await?;
    story.report.prove("traffic continues without interruption", no_failure(&report));
    story.report.prove("the restarted agents find everything proved", back);
    Ok(())
}

/// Calls while the ztunnel is down, all of which must fail, and after.
async fn through_the_gap(story: &Story) -> Result<Evidence> {
    let proxy = ztunnel("node-1");
    // The lab would start it again at once, and the calls would not meet the gap.
    story.lab.pause_restarts(&proxy, true).await?;
    story.lab.kill(&proxy, KILL).await?;
    let mut evidence = Vec::new();
    for family in Family::BOTH {
        match story.call(CART, family, "db", 1).await {
            Ok(body) => evidence.push(format!("WENT THROUGH: {body}")),
            Err(err) => evidence.push(err.to_string()),
        }
    }
    let begun = Instant::now();
    story.lab.pause_restarts(&proxy, false).await?;
    let works = eventually(TAKES_EFFECT, async || story.call_by_name(CART, "db").await).await;
    // Judged only after the ztunnel is back: a story that ends here would leave the lab without it.
    if let Some(through) = evidence.iter().find(|line| line.starts_with("WENT")) {
        bail!("without a ztunnel: {through}");
    }
    works?;
    evidence.push(format!("works again {:.1} s after its restart", begun.elapsed().as_secs_f64()));
    Ok(evidence)
}

pub(crate) async fn no_plaintext(story: &Story, frames: &[Frame]) -> Result<Evidence> {
    ensure!(!frames.is_empty(), "nothing was captured");
    let (audit, markers) = story.audit(frames).await?;
    if let Some(plain) = audit.plain.first() {
        bail!("{} -> {}: {} bytes: {:?}", plain.src, plain.dst, plain.bytes, plain.head);
    }
    ensure!(audit.broken.is_empty(), "{}", audit.broken.join("\n"));
    ensure!(markers == 0, "the card number is there {markers} times");
    Ok(vec![format!("{} frames, {} new tunnels, the card number 0 times", audit.frames, audit.tunnels)])
}

async fn kill_agents(story: &Story) -> Result<Evidence> {
    let restarts = restarts(story).await?;
    for node in NODES {
        story.lab.kill(&agent(node), KILL).await?;
    }
    let rows = eventually(TAKES_EFFECT, async || {
        // The reports of the agents that were killed may still be read for a moment, and would prove nothing about
        // their successors.
        ensure!(self::restarts(story).await? >= restarts + 2, "the agents have not been restarted");
        story.all_in_state("enrolled").await
    });
    let rows = rows.await?;
    story.calls(AFTERWARDS).await?;
    let proofs = rows.iter().map(|row| format!("{} {}/{}", row.name, row.checks.len(), row.checks.len()));
    Ok(vec![proofs.collect::<Vec<_>>().join(", ")])
}

/// Number of restarts of the agents' containers.
async fn restarts(story: &Story) -> Result<u32> {
    let agents = NODES.map(|node| agent(node).replace("istio-system/", ""));
    let pods = story.lab.pods().await?;
    let ours = pods.iter().filter(|pod| agents.contains(&pod.name));
    Ok(ours.flat_map(|pod| &pod.containers).map(|container| container.restarts).sum())
}
