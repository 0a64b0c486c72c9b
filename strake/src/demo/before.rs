//! Step 1: before the label, the payload is readable between the nodes.

use anyhow::{Result, ensure};
use capture::Audit;

use super::{
    report::Evidence,
    story::{CART, Story},
};

pub(crate) async fn tell(story: &mut Story) -> Result<()> {
    story.report.step("Before the label: what cart sends to db can be read on the wire between the nodes");
    story.report.say("the wire is recorded");
    story.command(&format!("lab exec --lab {} shop/cart -- curl -s 'http://db{}'", story.lab.name(), story.path()));

    let called = story.captured("node-1", story.call_by_name(CART, "db")).await;
    let (called, frames) = match called {
        Ok((bodies, frames)) => (Ok(bodies), frames),
        Err(err) => (Err(err), Vec::new()),
    };
    story.report.prove("cart on node-1 calls db on node-2 by its Service's name, over IPv4 and IPv6", called);
    let (audit, markers) = story.audit(&frames).await?;
    story.report.prove("the capture shows the payload in clear", in_clear(&audit, markers));
    Ok(())
}

/// The payload was seen, in both directions of at least one connection per family.
pub(crate) fn in_clear(audit: &Audit, markers: usize) -> Result<Evidence> {
    // The request has the marker and the answer repeats it: two for each of the two families.
    ensure!(markers >= 4, "the marker was seen {markers} times in {} frames, expected 2 per connection", audit.frames);
    let mut evidence = vec![format!(
        "{} frames, {} segments with payload, the card number {markers} times",
        audit.frames, audit.segments
    )];
    for plain in audit.plain.iter().filter(|plain| plain.head.starts_with("GET ")) {
        evidence.push(format!("{} -> {}  {:?}", plain.src, plain.dst, plain.head.lines().next().unwrap_or_default()));
    }
    ensure!(evidence.len() > 1, "no request is among the {} plain streams", audit.plain.len());
    Ok(evidence)
}
