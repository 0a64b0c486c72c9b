//! The nodes of a running lab: namespace, cgroups, prober, DNS and kube-proxy of each.

use std::{any::Any, fs, io, path::PathBuf, sync::Arc};

use contract::labels::{ARCH_LABEL, HOSTNAME_LABEL, INSTANCE_TYPE_LABEL, OS_LABEL, REGION_LABEL, ZONE_LABEL};
use kube_types::{Resource, StringMap};
use runtime::sys::Netns;
use rustix::mount::{MountFlags, mount};

use crate::{
    addresses::{NodeNumber, PodHosts, dns},
    control::NodeInfo,
    dns::{Zone, serve},
    kube_proxy,
    network::{Namespace, Wire},
    pod::{Context, netns_path},
    prober::{Keeper, Prober},
    process::enter::Entry,
    scheduler::Candidate,
    system::SystemNode,
    workloads::Objects,
};

/// A node that runs.
pub(crate) struct Node {
    pub(crate) candidate: Candidate,
    pub(crate) number: NodeNumber,
    pub(crate) namespace: Namespace,
    pub(crate) netns: Arc<Netns>,
    pub(crate) prober: Prober,
    pub(crate) keeper: Keeper,
    pub(crate) hosts: PodHosts,
    /// The rules that the kernel has.
    rules: String,
    /// Answers as long as it lives.
    _dns: Box<dyn Any + Send>,
}

impl Node {
    pub(crate) fn info(&self) -> NodeInfo {
        NodeInfo { name: self.candidate.name.clone(), addresses: self.number.addresses().both().to_vec() }
    }

    pub(crate) fn system(&self) -> SystemNode {
        SystemNode {
            name: self.candidate.name.clone(),
            addresses: self.number.addresses(),
            netns: netns_path(&self.netns),
        }
    }

    /// Gives the kernel these rules unless it has them.
    pub(crate) async fn apply(&mut self, rules: String) -> io::Result<()> {
        if self.rules == rules {
            return Ok(());
        }
        let (netns, text) = (Arc::clone(&self.netns), rules.clone());
        tokio::task::spawn_blocking(move || kube_proxy::apply(&netns, &text)).await.map_err(io::Error::other)??;
        // Only rules that the kernel has taken are remembered: after a failure the next round tries again.
        self.rules = rules;
        Ok(())
    }
}

/// Instance type of every node that does not say otherwise.
const INSTANCE_TYPE: &str = "strake-lab";

/// Region of every node that does not say otherwise; each node is a zone of its own.
const REGION: &str = "lab";

/// The nodes that manifests ask for; `count` of them when they name none.
pub(crate) fn wanted(objects: &Objects, count: usize) -> Vec<Candidate> {
    let named: Vec<_> = objects
        .values()
        .filter_map(|resource| match resource {
            Resource::Node(node) => Some(node),
            _ => None,
        })
        .zip(1..)
        .map(|(node, number)| Candidate {
            name: node.metadata.name.clone(),
            labels: well_known(node.metadata.labels.clone(), &node.metadata.name, number),
            schedulable: !node.spec.unschedulable,
            taints: node.spec.taints.clone(),
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    (1..=count)
        .map(|number| {
            let name = format!("node-{number}");
            let labels = well_known(StringMap::new(), &name, number);
            Candidate { name, labels, schedulable: true, taints: Vec::new() }
        })
        .collect()
}

/// Adds the labels that every node of a cluster has, where the manifest does not have them.
fn well_known(mut labels: StringMap, name: &str, number: usize) -> StringMap {
    let architecture = match std::env::consts::ARCH {
        // The label has Go's name of the architecture.
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let zone = format!("{REGION}-{number}");
    // A label has at most 63 bytes, a node's name more.
    let hostname = name.get(..63).unwrap_or(name).trim_end_matches(['-', '.']);
    for (label, value) in [
        (HOSTNAME_LABEL, hostname),
        (OS_LABEL, "linux"),
        (ARCH_LABEL, architecture),
        (INSTANCE_TYPE_LABEL, INSTANCE_TYPE),
        (REGION_LABEL, REGION),
        (ZONE_LABEL, &zone),
    ] {
        labels.entry(label.to_owned()).or_insert_with(|| value.to_owned());
    }
    labels
}

/// Makes a node and joins it to the others.
pub(crate) async fn create(
    candidate: Candidate,
    wire: &Wire,
    others: &[Node],
    context: &Context,
    zone: &Zone,
) -> io::Result<Node> {
    let number = u8::try_from(others.len() + 1).map(NodeNumber).map_err(io::Error::other)?;
    let namespace = wire.add_node(number, others.iter().map(|node| (node.number, &node.namespace))).await?;
    let netns = Arc::new(namespace.netns().try_clone()?);
    let name = &candidate.name;
    // The cgroup tree and the bpffs are there before the agent of the node starts, which looks for both.
    fs::create_dir_all(context.cgroups.node(name).join("kubepods"))?;
    mount_bpffs(&context.run.node(name).join("bpffs"))?;
    let addresses = [number.addresses().both(), dns().both()].concat();
    let dns = Box::new(serve(zone, &netns, &addresses)?);
    let program = context.program.clone();
    let argv = [program.to_string_lossy().as_ref(), "lab", "process", "kubelet"].map(str::to_owned).to_vec();
    let entry =
        Entry { cgroup: context.cgroups.kubelet(name), netns: Some(netns_path(&netns)), argv, ..Entry::default() };
    let (prober, keeper) = Prober::start(entry, &program);
    Ok(Node {
        candidate,
        number,
        namespace,
        netns,
        prober,
        keeper,
        hosts: PodHosts::default(),
        rules: String::new(),
        _dns: dns,
    })
}

/// A node's own bpffs; it and what is pinned in it live as long as the lab's mount namespace.
fn mount_bpffs(dir: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    mount("bpffs", dir, "bpf", MountFlags::empty(), None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_counted_unless_they_are_named() {
        let mut objects = Objects::new();
        assert_eq!(wanted(&objects, 2).iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["node-1", "node-2"]);

        let named = json!({"metadata": {"name": "east", "labels": {"zone": "e"}}, "spec": {"unschedulable": true}});
        let named = Resource::from_value(Kind::Node, named).unwrap();
        objects.insert(named.key(), named);

        let nodes = wanted(&objects, 2);
        assert_eq!(nodes.len(), 1);
        assert!(!nodes[0].schedulable);
        assert_eq!(nodes[0].labels["kubernetes.io/hostname"], "east");
        assert_eq!(nodes[0].labels["zone"], "e");
    }

    #[test]
    fn every_node_has_the_labels_that_clusters_have() {
        let mut objects = Objects::new();
        let counted = wanted(&objects, 2);
        let own = json!({"metadata": {"name": "east", "labels": {"topology.kubernetes.io/zone": "own"}},
            "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}});
        let own = Resource::from_value(Kind::Node, own).unwrap();
        objects.insert(own.key(), own);
        let named = wanted(&objects, 2);

        assert_ne!(counted[0].labels["topology.kubernetes.io/zone"], counted[1].labels["topology.kubernetes.io/zone"]);
        assert_eq!(named[0].labels["topology.kubernetes.io/zone"], "own");
        assert_eq!(named[0].taints[0].key, "gpu");
        for label in ["kubernetes.io/arch", "kubernetes.io/os", "node.kubernetes.io/instance-type"] {
            assert!(named[0].labels.contains_key(label), "{label}");
        }
    }
}
