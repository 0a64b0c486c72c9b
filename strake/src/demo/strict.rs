//! Step 5: STRICT. The stranger's plaintext is refused, the node's probe is not.

use std::fs;

use anyhow::{Result, ensure};

use super::{
    report::Evidence,
    story::{CART, DB, MALLORY, Story, TAKES_EFFECT, eventually},
};

const STRICT: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: shop
spec:
  mtls:
    mode: STRICT
";

/// Name in the log of the policy that STRICT was converted to.
const POLICY: &str = "istio-system/istio_converted_static_strict";

/// Probes that must have passed after the change.
const PROBES: usize = 2;

pub(crate) async fn tell(story: &mut Story) -> Result<()> {
    story.report.step("STRICT: who is not in the mesh is refused");
    let before = story.call_by_name(MALLORY, "db.shop").await;
    story.report.prove("until now mallory, who is not in the mesh, could call db in plaintext", before);
    story.report.say("+ PeerAuthentication shop/default, mode STRICT");
    // Counted before the policy is there: only probes after it prove that they pass.
    let probed = probes(story);
    story.apply("strict.yaml", STRICT)?;

    let refused = eventually(TAKES_EFFECT, async || story.refused(MALLORY, "db.shop", POLICY).await).await;
    story.report.prove("mallory is refused over both families, and the log says by what", refused);
    story.report.prove("cart still works", story.call_by_name(CART, "db").await);
    let goes_on = eventually(TAKES_EFFECT, async || still_probed(story, probed).await).await;
    story.report.prove("db's HTTP readiness probe, from the node, keeps succeeding", goes_on);
    Ok(())
}

/// Number of probes that db has answered.
fn probes(story: &Story) -> usize {
    let log = fs::read_to_string(story.lab.log(DB, "db")).unwrap_or_default();
    log.lines().filter(|line| line.contains("GET /healthz") && line.contains(" 200 ")).count()
}

async fn still_probed(story: &Story, before: usize) -> Result<Evidence> {
    let since = probes(story).saturating_sub(before);
    ensure!(since >= PROBES, "{since} probes answered since the policy");
    ensure!(story.lab.pod(DB).await?.ready, "db is not ready");
    Ok(vec![format!("{since} probes answered since the policy, db is ready")])
}
