//! Step 4: both nodes count the same connections, with Istio's names.

use anyhow::{Context, Result};
use lab::output::metric;

use super::{
    report::Evidence,
    story::{NODES, Story, TAKES_EFFECT, eventually, ztunnel},
};

pub(crate) async fn tell(story: &mut Story) -> Result<()> {
    story.report.step("Metrics: both nodes report mutual TLS");
    for (node, reporter) in NODES.into_iter().zip(["source", "destination"]) {
        let counted = eventually(TAKES_EFFECT, async || counted(story, node, reporter).await).await;
        story.report.prove(&format!("{node} as {reporter}"), counted);
    }
    Ok(())
}

async fn counted(story: &Story, node: &str, reporter: &str) -> Result<Evidence> {
    let argv = ["curl", "--silent", "--show-error", "--fail", "--max-time", "5", "http://localhost:15020/metrics"];
    let output = story.lab.exec(&ztunnel(node), &argv).await?;
    anyhow::ensure!(output.code == 0, "{}", output.error_text());
    let text = output.text();
    let labels = [
        ("reporter", reporter),
        ("connection_security_policy", "mutual_tls"),
        ("source_workload", "cart"),
        ("destination_workload", "db"),
    ];
    let shown = "{connection_security_policy=\"mutual_tls\",source_workload=\"cart\",destination_workload=\"db\"}";
    let mut evidence = Vec::new();
    for name in ["istio_tcp_connections_opened_total", "istio_tcp_sent_bytes_total"] {
        let value = metric(&text, name, &labels).filter(|value| *value > 0.0);
        let value = value.with_context(|| format!("{name}{shown} is not there or 0"))?;
        evidence.push(format!("{name}{shown} {value}"));
    }
    Ok(evidence)
}
