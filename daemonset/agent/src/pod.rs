//! A pod of this node and its network namespace, as all parts of the agent name them. Kubernetes' own object is
//! `kube_types::core::Pod`; its form in messages to proxies is `zds::server::Pod`.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use kube_types::ObjectRef;
use runtime::sys::Netns;
use zds::{PodId, WorkloadInfo};

use crate::cni::Sandbox;
use crate::pod_settings::PodSettings;

/// A pod of this node, as far as its enrolment depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    pub key: ObjectRef,
    pub uid: PodId,
    /// The uid in the name of the pod's cgroup. For a static pod the kubelet takes it from the file, and the API has another.
    pub cgroup_uid: String,
    pub info: WorkloadInfo,
    /// Empty until the pod has one.
    pub ips: Vec<IpAddr>,
    /// The namespace that a CNI plugin has named, of use while no process of the pod runs.
    pub sandbox: Option<Arc<Sandbox>>,
    /// Ports on which the pod's own spec has it probed.
    pub probe_ports: Vec<u16>,
    pub settings: PodSettings,
}

/// Network namespace of a pod. Keeps it open.
#[derive(Debug)]
pub struct PodNetns {
    pub netns: Netns,
    /// The same namespace, as it is passed to proxies.
    pub descriptor: Arc<OwnedFd>,
    /// The kernel's number for the namespace, key of everything we leave in the kernel.
    pub cookie: u64,
    /// Index, inside the namespace, of the interface that holds the pod's address.
    pub interface: u32,
}

impl PodNetns {
    /// # Errors
    /// When the namespace cannot be entered, or no descriptor is left.
    pub fn new(netns: Netns, interface: u32) -> std::io::Result<Self> {
        let cookie = netns.cookie()?;
        let descriptor = Arc::new(netns.as_fd().try_clone_to_owned()?);
        Ok(Self { netns, descriptor, cookie, interface })
    }
}
