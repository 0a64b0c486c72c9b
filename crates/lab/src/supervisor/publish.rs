//! Writes what the lab knows to where every `manifests::Source` reads it: whole objects that it derives, overlays over
//! the user's own. Writes only what differs from the last time.

use std::collections::BTreeMap;

use kube_types::core::{Condition, HostIp, Pod, PodIp, PodStatus, Service};
use kube_types::{Kind, ObjectRef, Resource, Status};
use manifests::state;
use serde_json::{Value, json};

use crate::{
    control::{Phase, PodInfo},
    paths::RunDir,
    workloads::Planned,
};

/// Name of the lab among those who write overlays.
const WRITER: &str = "lab";

/// Objects and overlays that should be in the state directory.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Desired {
    pub(crate) objects: BTreeMap<ObjectRef, Value>,
    pub(crate) overlays: BTreeMap<ObjectRef, Value>,
}

/// The state directory as it was written last.
#[derive(Debug)]
pub(crate) struct Publisher {
    run: RunDir,
    status: Status,
    written: Desired,
}

impl Publisher {
    pub(crate) fn new(run: RunDir) -> Self {
        let status = manifests::status(&run.state(), WRITER);
        Self { run, status, written: Desired::default() }
    }

    /// Makes the directory say `desired`. Overlays come first: an object of the user's is never seen
    /// running without its address because of the order of files.
    pub(crate) async fn write(&mut self, desired: Desired) {
        for (key, patch) in &desired.overlays {
            if self.written.overlays.get(key) != Some(patch) {
                report(key, self.status.apply(key, patch.clone()).await);
            }
        }
        let state = self.run.state();
        for (key, object) in &desired.objects {
            if self.written.objects.get(key) != Some(object) {
                report(key, state::write_object(&state, key, object));
            }
        }
        for key in self.written.objects.keys().filter(|key| !desired.objects.contains_key(key)) {
            report(key, state::remove_object(&state, key));
        }
        for key in self.written.overlays.keys().filter(|key| !desired.overlays.contains_key(key)) {
            report(key, self.status.clear(key).await);
        }
        self.written = desired;
    }
}

fn report<E: std::fmt::Display>(key: &ObjectRef, result: Result<(), E>) {
    if let Err(err) = result {
        tracing::error!(%key, %err, "failed to write an object to the state directory; programs of the mesh do not see its change");
    }
}

/// Times of a pod, RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) created: String,
    pub(crate) deleted: Option<String>,
}

impl Desired {
    /// Adds a pod: an overlay over the user's manifest when there is one, else the whole object.
    pub(crate) fn pod(
        &mut self,
        planned: &Planned,
        info: &PodInfo,
        host_ips: &[String],
        times: &Times,
        manifest: bool,
    ) {
        let key = ObjectRef::new(Kind::Pod, &info.namespace, &info.name);
        let mut pod = planned.pod.clone();
        pod.metadata.uid.clone_from(&info.uid);
        pod.metadata.creation_timestamp = Some(times.created.clone());
        pod.metadata.deletion_timestamp.clone_from(&times.deleted);
        pod.spec.node_name = Some(info.node.clone());
        pod.status = pod_status(info, host_ips);
        if manifest {
            self.overlays.insert(key, pod_overlay(&pod));
        } else {
            self.objects.insert(key, Resource::Pod(pod.into()).to_value());
        }
    }

    /// Adds the addresses of a Service.
    pub(crate) fn service(&mut self, service: &Service, manifest: bool) {
        let key = ObjectRef::new(Kind::Service, &service.metadata.namespace, &service.metadata.name);
        if manifest {
            let spec = &service.spec;
            let mut patch = json!({"spec": {"ipFamilies": spec.ip_families}});
            if !spec.cluster_ips.is_empty() {
                patch["spec"]["clusterIP"] = json!(spec.cluster_ip);
                patch["spec"]["clusterIPs"] = json!(spec.cluster_ips);
            }
            self.overlays.insert(key, patch);
        } else {
            self.objects.insert(key, Resource::Service(service.clone().into()).to_value());
        }
    }

    /// Adds an object that the lab derives whole.
    pub(crate) fn whole(&mut self, resource: &Resource) {
        self.objects.insert(resource.key(), resource.to_value());
    }
}

fn pod_status(info: &PodInfo, host_ips: &[String]) -> PodStatus {
    let ips: Vec<_> = info.ips.iter().map(ToString::to_string).collect();
    let condition =
        |kind: &str, holds: bool| Condition { r#type: kind.to_owned(), status: holds.into(), ..Condition::default() };
    PodStatus {
        phase: Some(info.phase.as_str().to_owned()),
        pod_ip: ips.first().cloned(),
        pod_ips: ips.into_iter().map(|ip| PodIp { ip }).collect(),
        host_ip: host_ips.first().cloned(),
        host_ips: host_ips.iter().map(|ip| HostIp { ip: ip.clone() }).collect(),
        conditions: vec![
            condition("PodScheduled", true),
            condition("Initialized", info.phase != Phase::Pending),
            condition("ContainersReady", info.ready),
            condition("Ready", info.ready),
        ],
        message: (!info.reason.is_empty()).then(|| info.reason.clone()),
        reason: None,
    }
}

fn pod_overlay(pod: &Pod) -> Value {
    let mut metadata = json!({"uid": pod.metadata.uid, "creationTimestamp": pod.metadata.creation_timestamp});
    if let Some(deleted) = &pod.metadata.deletion_timestamp {
        metadata["deletionTimestamp"] = json!(deleted);
    }
    json!({"metadata": metadata, "spec": {"nodeName": pod.spec.node_name}, "status": pod.status})
}
