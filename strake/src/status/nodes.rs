//! What agent and node proxy of each node report, of a lab or a cluster.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::Result;
use contract::admin::agent::{NodeReport, PodState};
use serde::Serialize;

use crate::{
    get::{
        pods::{self, Row},
        table::or_dash,
    },
    mesh::{ByNode, Mesh, dump::ProxyDump},
    times,
};

/// A node.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct NodeView {
    pub(super) name: String,
    /// Pods that labels select for the mesh.
    pub(super) selected: usize,
    /// Pods that the agent has announced at the API server; `None` in a lab, which has none.
    pub(super) in_mesh: Option<usize>,
    /// Pods whose enrolment the agent has read back from the kernel; `None` when it does not answer.
    pub(super) proved: Option<usize>,
    /// The node proxy; `None` when it does not answer.
    pub(super) ztunnel: Option<ProxyView>,
}

/// A node proxy.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProxyView {
    pub(super) version: String,
    pub(super) workloads: usize,
    pub(super) policies: usize,
    pub(super) certificates: usize,
    /// End of the certificate that ends first, RFC 3339.
    pub(super) next_end: Option<String>,
}

pub(super) const HEADER: [&str; 8] =
    ["NODE", "PODS SELECTED", "PROVED", "ZTUNNEL", "WORKLOADS", "POLICIES", "CERTIFICATES", "FIRST ENDS IN"];

/// What was found out about nodes.
#[derive(Debug)]
pub(super) struct Views {
    pub(super) nodes: Vec<NodeView>,
    /// A text for each program that does not answer.
    pub(super) silent: Vec<String>,
    /// A text for each pod that is not where its labels want it.
    pub(super) unsettled: Vec<String>,
}

/// Asks the programs of all nodes.
pub(super) async fn views(mesh: &Mesh) -> Result<Views> {
    let (reports, dumps) = (mesh.reports().await?, mesh.dumps().await?);
    let rows = pods::of(mesh, |_| true).await?;
    Ok(join(reports, dumps, &rows))
}

fn join(reports: ByNode<NodeReport>, dumps: ByNode<ProxyDump>, rows: &[Row]) -> Views {
    let (mut nodes, mut silent) = (BTreeMap::<String, NodeView>::new(), Vec::new());
    for (node, report) in reports {
        let view = nodes.entry(node.clone()).or_default();
        match report {
            Ok(report) => {
                let enrolled = report.pods.iter().filter(|pod| pod.state == PodState::Enrolled);
                view.proved = Some(enrolled.count());
            }
            Err(error) => silent.push(format!("{error:#}")),
        }
    }
    for (node, dump) in dumps {
        let view = nodes.entry(node).or_default();
        match dump {
            Ok(dump) => view.ztunnel = Some(ProxyView::new(&dump)),
            Err(error) => silent.push(format!("{error:#}")),
        }
    }
    for (name, view) in &mut nodes {
        view.name.clone_from(name);
        view.selected = rows.iter().filter(|row| row.node == *name && row.wants_hbone() == Some(true)).count();
    }
    let unsettled = rows.iter().filter_map(Row::unsettled).collect();
    Views { nodes: nodes.into_values().collect(), silent, unsettled }
}

impl ProxyView {
    fn new(dump: &ProxyDump) -> Self {
        let ends = dump.certificates.iter().filter_map(|held| Some(&held.cert_chain.first()?.expiration_time));
        Self {
            version: dump.version.version.clone(),
            workloads: dump.workloads.len(),
            policies: dump.policies.len(),
            certificates: dump.certificates.len(),
            // RFC 3339 in UTC sorts by time.
            next_end: ends.min().cloned(),
        }
    }
}

impl NodeView {
    pub(super) fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.name.clone(), self.selected.to_string()];
        cells.push(self.proved.map_or_else(|| "unknown".to_owned(), |proved| proved.to_string()));
        match &self.ztunnel {
            None => cells.extend(["unknown", "-", "-", "-", "-"].map(str::to_owned)),
            Some(ProxyView { version, workloads, policies, certificates, next_end }) => {
                cells.push(version.clone());
                cells.extend([workloads, policies, certificates].map(ToString::to_string));
                let left = next_end.as_deref().and_then(times::parse).map(|end| times::until(end, SystemTime::now()));
                cells.push(or_dash(&left.unwrap_or_default()));
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::testing;

    #[test]
    fn a_node_whose_programs_are_silent_is_unknown_and_a_problem() {
        let reports = vec![
            ("node-1".to_owned(), Ok(NodeReport::default())),
            ("node-2".to_owned(), Err(anyhow::anyhow!("agent of node-2: cannot reach admin.sock"))),
        ];
        let rows: Vec<_> = testing::pods().into_iter().map(pods::unknown).collect();

        let Views { nodes: views, silent, unsettled } = join(reports, testing::dumps(), &rows);

        assert_eq!((views[0].selected, views[0].proved, views[1].proved), (2, Some(0), None));
        assert_eq!(views[0].ztunnel.as_ref().unwrap().next_end.as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!(views[1].cells()[2..4], ["unknown", "unknown"]);
        assert!(silent[0].starts_with("agent of node-2") && silent[1].contains("admin.sock"), "{silent:?}");
        assert!(unsettled[0].starts_with("shop/cart is unknown"), "{unsettled:?}");
    }
}
