//! Step 3: what the wire, the access logs and the application saw of step 2's calls.

use anyhow::{Context as _, Result, ensure};
use capture::{Audit, Frame};
use lab::output::line_with;

use super::{
    report::Evidence,
    story::{CART, Family, NODES, Story, TAKES_EFFECT, eventually},
};

/// Identities of the two ends.
pub(crate) const CART_ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";
pub(crate) const DB_ID: &str = "spiffe://cluster.local/ns/shop/sa/db";

pub(crate) async fn tell(story: &mut Story, frames: &[Frame]) -> Result<()> {
    story.report.step("The wire: mutual TLS and nothing else; identities at both ends");
    let (audit, markers) = story.audit(frames).await?;
    story.report.prove("the capture shows TLS 1.3 to port 15008, no other payload between the pods", encrypted(&audit));
    story.report.prove("not one byte of the payload", hidden(&audit, markers));
    let wanted = format!("src.identity=\"{CART_ID}\"");
    for (node, direction) in NODES.into_iter().zip(["outbound", "inbound"]) {
        let wanted = [wanted.as_str(), &format!("dst.identity=\"{DB_ID}\""), &format!("direction=\"{direction}\"")];
        let line = eventually(TAKES_EFFECT, async || {
            let log = story.ztunnel_log(node);
            line_with(&log, &wanted).map(str::to_owned).with_context(|| format!("no line with {}", wanted.join(" ")))
        });
        let line = line.await.map(|line| vec![fields(&line)]);
        story.report.prove(&format!("the access log of {node} names both identities ({direction})"), line);
    }
    let seen = client_address(story).await;
    story.report.prove("the server application still sees the client's own address", seen);
    Ok(())
}

/// Only TLS 1.3, and at least one whole handshake of it.
pub(crate) fn encrypted(audit: &Audit) -> Result<Evidence> {
    if let Some(plain) = audit.plain.first() {
        anyhow::bail!("{} -> {}: {} bytes outside TLS: {:?}", plain.src, plain.dst, plain.bytes, plain.head);
    }
    ensure!(audit.broken.is_empty(), "{}", audit.broken.join("\n"));
    // A capture without traffic also has nothing in clear, so a handshake has to be in it.
    ensure!(audit.tunnels > 0 && audit.only_tls13(), "no TLS 1.3 handshake was seen: {audit:?}");
    Ok(vec![format!(
        "{} frames; {} tunnels, hellos agree on 0x0304; {} records, {} protected bytes",
        audit.frames, audit.tunnels, audit.records, audit.protected_bytes
    )])
}

pub(crate) fn hidden(audit: &Audit, markers: usize) -> Result<Evidence> {
    ensure!(audit.frames > 0, "nothing was captured");
    ensure!(markers == 0, "the card number is there {markers} times");
    Ok(vec!["the card number: 0 times".to_owned()])
}

async fn client_address(story: &Story) -> Result<Evidence> {
    let cart = story.lab.pod(CART).await?.ips;
    let mut evidence = Vec::new();
    for family in Family::BOTH {
        let ip = family.of(cart.iter())?;
        let body = story.call(CART, family, "db", 10).await?;
        ensure!(body.contains(&format!(" {ip} ")), "cart is {ip}, db says: {body}");
        evidence.push(body);
    }
    Ok(evidence)
}

/// The fields of an access log line, without time and scope.
fn fields(line: &str) -> String {
    line.split_once("src.addr=").map_or(line, |(_, fields)| fields).to_owned()
}
