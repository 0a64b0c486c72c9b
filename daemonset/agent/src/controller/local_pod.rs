//! From a pod of the cluster to what the agent needs to know of it.

use std::sync::Arc;

use kube_types::core::Pod;
use kube_types::{Kind, ObjectRef};
use zds::{PodId, WorkloadInfo};

use crate::cni::Sandbox;
use crate::pod::LocalPod;
use crate::pod_settings::PodSettings;
use crate::{probes, static_pods};

/// `None` for a pod that nothing can be done for yet: it has no uid. The addresses of a sandbox are newer than those of the
/// pod's status, which the kubelet writes once the sandbox is there.
pub(super) fn local_pod(pod: &Pod, sandbox: Option<&Arc<Sandbox>>, settings: PodSettings) -> Option<LocalPod> {
    let meta = &pod.metadata;
    let ips: Vec<_> = match sandbox {
        Some(sandbox) => sandbox.ips().to_vec(),
        None => pod.addresses().filter_map(|ip| ip.parse().ok()).collect(),
    };
    Some(LocalPod {
        key: ObjectRef::new(Kind::Pod, meta.namespace.clone(), meta.name.clone()),
        uid: PodId::new(&meta.uid)?,
        cgroup_uid: static_pods::cgroup_uid(pod).to_owned(),
        info: WorkloadInfo {
            name: meta.name.as_str().into(),
            namespace: meta.namespace.as_str().into(),
            service_account: pod.service_account().into(),
        },
        probe_ports: probes::declared(pod, &ips).ports,
        settings,
        ips,
        sandbox: sandbox.cloned(),
    })
}
