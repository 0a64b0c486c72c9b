//! Out of the mesh, and the mesh out of the cluster.

use anyhow::{Result, ensure};

use super::{
    Story, enrol,
    shop::{self, INTRUDER, SHOP},
};
use crate::stage::{Cluster, eventually, expect_equal};

pub(super) fn unlabel(story: &mut Story) -> Result<()> {
    story.report.step("The label goes: pods leave as they came");
    let running = shop::containers(&story.cluster)?;
    story.report.command(&format!("kubectl label namespace {SHOP} istio.io/dataplane-mode-"));
    shop::set_label(&story.cluster, "istio.io/dataplane-mode-")?;
    shop::until_announced(&story.cluster, SHOP, false);
    let (_, wire) = story.wire(|| shop::call_all(&story.cluster))?;
    let readable = enrol::readable(&wire.audit(&shop::addresses(&story.cluster, SHOP)?))?;
    ensure!(shop::containers(&story.cluster)? == running, "a container was started again");
    story
        .report
        .proved("calls are answered, and readable again on the wire; no container was started again", &[readable]);
    Ok(())
}

pub(super) fn uninstall(story: &mut Story) -> Result<()> {
    story.report.step("The mesh is removed: the applications go on");
    // Back in, so that the removal has pods to take out.
    shop::set_label(&story.cluster, "istio.io/dataplane-mode=ambient")?;
    shop::until_announced(&story.cluster, SHOP, true);
    let running = shop::containers(&story.cluster)?;
    story.strake(&["uninstall"])?;
    let answers = shop::call_all(&story.cluster)?;
    shop::announced(&story.cluster, SHOP, false)?;
    ensure!(shop::containers(&story.cluster)? == running, "a container was started again");
    story.report.proved("the applications go on, outside the mesh", &answers);
    Ok(())
}

/// `before`: what [`everything`] found before the installation.
pub(super) fn nothing(story: &mut Story, before: &[String]) -> Result<()> {
    story.report.step("Nothing is left");
    story.cluster.kubectl(&["delete", "namespace", SHOP, INTRUDER])?;
    eventually("nothing is left", || expect_equal(everything(&story.cluster)?, before.to_vec()));
    story
        .report
        .proved("namespaces, roles, custom resources, kernel programs, rules and CNI configuration are as before", &[]);
    Ok(())
}

/// Everything that an installation may leave: names of objects, and on each node kernel programs, rules and routes.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn everything(cluster: &Cluster) -> Result<Vec<String>> {
    let kinds = "namespaces,clusterroles,clusterrolebindings,customresourcedefinitions";
    let mut found = vec![cluster.kubectl(&["get", kinds, "--output=name"])?];
    for node in ["node-1", "node-2"] {
        for command in ["ls /sys/fs/bpf", "ip rule", "ip -6 rule", "ls /etc/cni/net.d"] {
            found.push(format!("{node}: {command}\n{}", cluster.on(node, &["sh", "-c", command])?));
        }
    }
    Ok(found)
}
