//! The mesh on a real Kubernetes, from its installation to its removal, as its users see it. `make cluster-demo` tells it
//! at its full length.

mod certificates;
mod chart;
mod enrol;
mod leave;
mod outage;
mod pods;
mod policy;
mod report;
mod shop;

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testkit::prerequisites;

use self::report::Report;
use crate::stage::{Cluster, Load, Options, Requests, Wire, mesh, missing};

/// How long things last that a user waits for.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Time without a control plane.
    outage: Duration,
    /// Wait until ztunnels that were replaced have ended, with their last connections.
    wait_for_drain: bool,
}

/// The cluster, and what was told of it.
struct Story {
    cluster: Cluster,
    report: Report,
    pace: Pace,
}

/// Runs the steps in turn. A proof that does not hold ends the test.
fn tell(purpose: &str, pace: Pace) {
    if !prerequisites::met(missing()) {
        return;
    }
    let cluster = Cluster::start(purpose, &Options::default()).unwrap();
    let mut story = Story { cluster, report: Report::new(), pace };
    if let Err(error) = steps(&mut story) {
        panic!("{error:#}\n{}", mesh::logs(&story.cluster));
    }
    story.report.finish();
}

fn steps(story: &mut Story) -> Result<()> {
    let before = leave::everything(&story.cluster)?;
    enrol::before(story)?;
    enrol::install(story)?;
    enrol::label(story)?;
    enrol::questions(story)?;
    policy::strict(story)?;
    policy::allow(story)?;
    pods::newborn(story)?;
    pods::services(story)?;
    outage::rollouts(story)?;
    outage::control_plane(story)?;
    outage::reboot(story)?;
    certificates::rotate(story)?;
    leave::unlabel(story)?;
    leave::uninstall(story)?;
    chart::install_and_remove(story)?;
    leave::nothing(story, &before)
}

#[test]
fn a_namespace_is_encrypted_by_its_label_whatever_happens_and_the_removal_of_the_mesh_leaves_nothing() {
    tell("story", Pace { outage: Duration::from_secs(3), wait_for_drain: false });
}

#[test]
#[ignore = "the same with a user's patience: `make cluster-demo`"]
fn at_its_full_length() {
    tell("demo", Pace { outage: Duration::from_secs(60), wait_for_drain: true });
}

impl Story {
    /// Records the wire between the nodes while `work` runs.
    fn wire<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Wire)> {
        let (done, wire) = Wire::of(&self.cluster, "node-1", work)?;
        Ok((done?, wire))
    }

    /// Runs `work` while `cart` calls the Service `db`, each time over a new connection, and the wire is recorded.
    fn under_load<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Requests, Wire)> {
        let ((done, requests), wire) = self.wire(|| {
            let load =
                Load::start(&self.cluster, shop::SHOP, "deploy/cart", &format!("http://db.{}/order", shop::SHOP))?;
            let done = work()?;
            Ok((done, load.stop()?))
        })?;
        ensure!(requests.answered > 0, "no request was answered: {requests:?}");
        Ok((done, requests, wire))
    }

    /// Fails if payload between pods was on the wire outside of tunnels, or none was in them; evidence.
    fn only_tls(&self, wire: &Wire, pods: &[IpAddr]) -> Result<String> {
        let audit = wire.audit(pods);
        ensure!(audit.plain.is_empty() && audit.broken.is_empty() && audit.records > 0, "{audit:?}");
        Ok(format!(
            "{} TLS 1.3 records in {} new tunnels, {} bytes of payload in them, none outside",
            audit.records, audit.tunnels, audit.protected_bytes
        ))
    }

    /// Runs the mesh's command line, and says so.
    fn strake(&self, args: &[&str]) -> Result<String> {
        self.report.command(&format!("strake {}", args.join(" ")));
        mesh::strake(&self.cluster, args)
    }

    /// Runs kubectl, and says so.
    fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.report.command(&format!("kubectl {}", args.join(" ")));
        self.cluster.kubectl(args)
    }

    /// Waits for the condition that a policy is enforced; its message.
    fn enforced(&self, policy: &str) -> Result<String> {
        self.kubectl(&["wait", "--namespace", shop::SHOP, "--for=condition=Enforced", policy, "--timeout=60s"])?;
        let message = self
            .cluster
            .field(shop::SHOP, policy, ".status.conditions[?(@.type==\"Enforced\")].message")
            .context("the condition")?;
        Ok(format!("Enforced: {message}"))
    }
}
