//! The mesh by its Helm chart instead of `strake install`.

use anyhow::Result;

use super::{
    Story,
    shop::{self, SHOP},
};
use crate::stage::mesh;

/// Installs and removes the mesh by Helm. The label of the namespace is there already.
pub(super) fn install_and_remove(story: &mut Story) -> Result<()> {
    story.report.step("The same by Helm, with policies of admission");
    helm(
        story,
        &[
            "install",
            "strake",
            "daemonset/chart",
            "--create-namespace",
            "--set=global.hub=localhost,admission.enabled=true",
        ],
    )?;
    let enrolled = shop::until_announced(&story.cluster, SHOP, true);
    let pods = shop::addresses(&story.cluster, SHOP)?;
    let (_, wire) = story.wire(|| shop::call_all(&story.cluster))?;
    let sealed = story.only_tls(&wire, &pods)?;
    story.report.proved(&format!("{enrolled} pods are enrolled by the chart's agents"), &[sealed]);

    helm(story, &["uninstall", "strake"])?;
    shop::announced(&story.cluster, SHOP, false)?;
    let answers = shop::call_all(&story.cluster)?;
    story.report.proved("pods have left before their programs go", &answers);
    // What a chart leaves by intention: custom resources, what the control plane has made, and the namespace.
    story.strake(&["uninstall"])?;
    story.cluster.kubectl(&["delete", "namespace", "istio-system"])?;
    story.cluster.kubectl_reading(&["delete", "--filename=-"], contract::manifests::CRDS).map(drop)
}

fn helm(story: &Story, args: &[&str]) -> Result<String> {
    story.report.command(&format!("helm {}", args.join(" ")));
    let fixed = ["--namespace=istio-system", "--wait", "--timeout=120s"];
    mesh::helm(&story.cluster, &[args, &fixed].concat())
}
