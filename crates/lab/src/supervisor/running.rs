//! A pod that was started: its network, its task, and how it is seen from outside.

use std::{fs, net::IpAddr, sync::Arc};

use kube_types::core::{NodeAddress, NodeSpec, NodeStatus};
use kube_types::{Kind, ObjectMeta, ObjectRef, Resource};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::{Notify, watch};

use super::{
    nodes::Node,
    publish::{Desired, Times},
};
use crate::{
    addresses::NodeNumber,
    control::{Phase, PodInfo},
    kube_proxy::LocalPod,
    network,
    pod::{
        self, Context, Setup,
        catalogue::Catalogue,
        facts::Facts,
        files,
        state::{ContainerState, Shared},
        volumes::{self, Places},
    },
    services::Backend,
    workloads::{Objects, Planned, format_uid},
};

/// A pod and its task.
pub(crate) struct Running {
    pub(crate) planned: Planned,
    pub(crate) setup: Arc<Setup>,
    pub(crate) shared: Shared,
    stop: watch::Sender<bool>,
    /// True if it belongs into the mesh, for a pod that has not started yet.
    selected: watch::Sender<bool>,
    /// Last byte of its addresses; `None` on the host network.
    host: Option<u8>,
    times: Times,
}

impl Running {
    /// Makes the pod's network and files and starts it; when it is `selected`, as soon as it is enrolled.
    pub(crate) async fn start(
        planned: Planned,
        selected: bool,
        node: &mut Node,
        context: &Arc<Context>,
        changed: &Arc<Notify>,
    ) -> Result<Self, String> {
        let host_ips = node.number.addresses().both().to_vec();
        let uid = format_uid(rand::random());
        let dir = context.run.pod(&uid);
        let name = node.candidate.name.clone();
        let host_network = planned.pod.spec.host_network;
        let host = if host_network { None } else { Some(node.hosts.take().ok_or("the node has no address left")?) };
        let ips = host.map_or_else(|| host_ips.clone(), |host| node.number.pod(host).both().to_vec());
        let facts = Facts { pod: &planned.pod, uid: &uid, node: &name, ips: &ips, host_ips: &host_ips };
        let places = Places {
            pod: dir.clone(),
            host: context.run.host(&name),
            claims: context.run.claims(&planned.pod.metadata.namespace),
        };
        let files = || {
            files::write_common(&dir, &planned.pod, &ips).map_err(|err| format!("{}: {err}", dir.display()))?;
            volumes::write(&places, &facts, &context.catalogue())
        };
        // Files first: a volume that cannot be made is the usual reason why a pod cannot start, and then no network has
        // to be taken away again.
        let made = match (files(), host) {
            (Err(reason), _) => Err(reason),
            (Ok(()), None) => Ok(Arc::clone(&node.netns)),
            (Ok(()), Some(host)) => {
                let netns = network::add_pod(&node.namespace, node.number, host).await;
                netns.map(Arc::new).map_err(|err| format!("its network: {err}"))
            }
        };
        let netns = match made {
            Ok(netns) => netns,
            Err(reason) => {
                host.into_iter().for_each(|host| node.hosts.give_back(host));
                // Nothing may have been made yet.
                let _ = fs::remove_dir_all(&dir);
                return Err(reason);
            }
        };
        let containers = pod::roles(&planned.pod).map(|(container, role)| (container.name.clone(), role));
        let shared = Shared::new(containers, Arc::clone(changed));
        let (selected, selection) = watch::channel(selected);
        let setup = Arc::new(Setup {
            context: Arc::clone(context),
            pod: planned.pod.clone(),
            uid,
            node: name,
            ips,
            host_ips,
            netns,
            prober: node.prober.clone(),
            selected: selection,
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(pod::run(Arc::clone(&setup), shared.clone(), stopped));
        let times = Times { created: now(), deleted: None };
        Ok(Self { planned, setup, shared, stop, selected, host, times })
    }

    /// Says whether it belongs into the mesh. Without effect once it has started: then the agent follows the labels.
    pub(crate) fn select(&self, selected: bool) {
        self.selected.send_if_modified(|current| std::mem::replace(current, selected) != selected);
    }

    /// Makes the files in its volumes what they should be now.
    pub(crate) fn write_volumes(&self, catalogue: &Catalogue) -> Result<(), String> {
        // Its labels may have changed since it was started.
        let facts = Facts { pod: &self.planned.pod, ..self.setup.facts() };
        volumes::write(&self.setup.places(), &facts, catalogue)
    }

    /// Returns true if it was asked to stop.
    pub(crate) const fn is_stopping(&self) -> bool {
        self.times.deleted.is_some()
    }

    /// Asks it to stop; it says when it has.
    pub(crate) fn stop(&mut self) {
        if self.times.deleted.is_none() {
            self.times.deleted = Some(now());
            self.stop.send_replace(true);
        }
    }

    /// Takes away its network and files, after it has stopped.
    pub(crate) async fn release(self, node: &mut Node) {
        if let Some(host) = self.host {
            if let Err(err) = network::remove_pod(&node.namespace, host).await {
                tracing::warn!(pod = self.setup.pod.metadata.name, %err, "failed to remove the interface of a stopped pod");
            }
            node.hosts.give_back(host);
        }
        if let Err(err) = fs::remove_dir_all(self.setup.dir()) {
            tracing::warn!(pod = self.setup.pod.metadata.name, %err, "failed to remove the files of a stopped pod");
        }
    }

    /// Describes it as it is now.
    pub(crate) fn info(&self) -> PodInfo {
        let state = self.shared.get();
        let metadata = &self.planned.pod.metadata;
        let terminating = self.times.deleted.is_some();
        PodInfo {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: self.setup.uid.clone(),
            node: self.setup.node.clone(),
            ips: self.setup.ips.clone(),
            phase: state.phase(),
            ready: state.ready() && !terminating,
            terminating,
            blocked: false,
            reason: if terminating { "it is being stopped".to_owned() } else { state.reason() },
            containers: state.containers.iter().map(ContainerState::info).collect(),
            cgroup: self.setup.cgroup(),
            pid: None,
        }
    }

    /// Describes it for Services; `None` once it has ended.
    pub(crate) fn backend(&self, info: &PodInfo) -> Option<Backend> {
        // A pod that has ended keeps its address until it is removed, but nothing answers there.
        if matches!(info.phase, Phase::Succeeded | Phase::Failed) {
            return None;
        }
        let pod = &self.planned.pod;
        Some(Backend {
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            uid: info.uid.clone(),
            labels: pod.metadata.labels.clone(),
            node: info.node.clone(),
            ips: info.ips.clone(),
            hostname: pod.spec.hostname.clone(),
            subdomain: pod.spec.subdomain.clone(),
            containers: pod.spec.containers.clone(),
            ready: self.shared.get().ready(),
            terminating: info.terminating,
        })
    }

    /// Describes it for its node's rules.
    pub(crate) fn local(&self, node: NodeNumber) -> Option<LocalPod> {
        let host = self.host?;
        Some(LocalPod { interface: network::pod_interface(host), addresses: node.pod(host) })
    }

    /// Adds it to what the state directory says. `manifest`: the user's file of it is still there.
    pub(crate) fn publish(&self, desired: &mut Desired, info: &PodInfo, manifest: bool) {
        let host_ips: Vec<_> = self.setup.host_ips.iter().map(IpAddr::to_string).collect();
        desired.pod(&self.planned, info, &host_ips, &self.times, manifest && self.planned.by_user);
    }
}

/// A pod that cannot start, before the reason is known.
pub(crate) fn blocked_info(planned: &Planned) -> PodInfo {
    let containers = pod::roles(&planned.pod).map(|(container, role)| {
        ContainerState { name: container.name.clone(), role, ..ContainerState::default() }.info()
    });
    PodInfo {
        namespace: planned.pod.metadata.namespace.clone(),
        name: planned.pod.metadata.name.clone(),
        uid: String::new(),
        node: String::new(),
        ips: Vec::new(),
        phase: Phase::Pending,
        ready: false,
        terminating: false,
        blocked: true,
        reason: String::new(),
        containers: containers.collect(),
        cgroup: Default::default(),
        pid: None,
    }
}

/// Adds the nodes to what the state directory says.
pub(crate) fn publish_nodes(desired: &mut Desired, nodes: &[Node], objects: &Objects) {
    for node in nodes {
        let name = &node.candidate.name;
        let key = ObjectRef::new(Kind::Node, "", name);
        let addresses = node.number.addresses().both();
        let internal = addresses.map(|ip| NodeAddress { address: ip.to_string(), r#type: "InternalIP".to_owned() });
        let mut status = NodeStatus { addresses: internal.to_vec() };
        status.addresses.push(NodeAddress { address: name.clone(), r#type: "Hostname".to_owned() });
        let pod_cidrs = vec![node.number.pods_v4().to_string(), node.number.pods_v6().to_string()];
        // The user has written this Node: what the lab adds is laid over it.
        if objects.contains_key(&key) {
            let labels = &node.candidate.labels;
            let patch = json!({"metadata": {"labels": labels}, "spec": {"podCIDRs": pod_cidrs}, "status": status});
            desired.overlays.insert(key, patch);
        } else {
            let object = kube_types::core::Node {
                metadata: ObjectMeta {
                    name: name.clone(),
                    labels: node.candidate.labels.clone(),
                    ..ObjectMeta::default()
                },
                spec: NodeSpec {
                    unschedulable: !node.candidate.schedulable,
                    pod_cidrs,
                    taints: node.candidate.taints.clone(),
                },
                status,
            };
            desired.whole(&Resource::Node(object.into()));
        }
    }
}

fn now() -> String {
    // Times of Kubernetes' objects have whole seconds.
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    now.format(&Rfc3339).unwrap_or_default()
}
