//! Writes what the lab knows to where every `manifests::Source` reads it: whole objects that it derives, overlays over
//! the user's own. Writes only what differs from the last time.

use std::{collections::BTreeMap, path::PathBuf};

use kube_types::core::{Condition, HostIp, Pod, PodIp, PodStatus, Service};
use kube_types::{Kind, ObjectRef, Resource, Status};
use manifests::state;
use serde_json::{Value, json};

use crate::{
    control::{Phase, PodInfo},
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
    state: PathBuf,
    status: Status,
    written: Desired,
}

impl Publisher {
    /// `state`: the directory, which is made when the first object is written.
    pub(crate) fn new(state: PathBuf) -> Self {
        let status = manifests::status(&state, WRITER);
        Self { state, status, written: Desired::default() }
    }

    /// Makes the directory say `desired`. Overlays come first: an object of the user's is never seen
    /// running without its address because of the order of files. What fails is tried again at the next call.
    pub(crate) async fn write(&mut self, desired: Desired) {
        let gone_objects = absent(&self.written.objects, &desired.objects);
        let gone_overlays = absent(&self.written.overlays, &desired.overlays);
        for (key, patch) in desired.overlays {
            if self.written.overlays.get(&key) != Some(&patch)
                && succeeded(&key, self.status.apply(&key, patch.clone()).await)
            {
                self.written.overlays.insert(key, patch);
            }
        }
        for (key, object) in desired.objects {
            if self.written.objects.get(&key) != Some(&object)
                && succeeded(&key, state::write_object(&self.state, &key, &object))
            {
                self.written.objects.insert(key, object);
            }
        }
        for key in gone_objects {
            if succeeded(&key, state::remove_object(&self.state, &key)) {
                self.written.objects.remove(&key);
            }
        }
        for key in gone_overlays {
            if succeeded(&key, self.status.clear(&key).await) {
                self.written.overlays.remove(&key);
            }
        }
    }
}

/// Keys that were written and are not desired any more.
fn absent(written: &BTreeMap<ObjectRef, Value>, desired: &BTreeMap<ObjectRef, Value>) -> Vec<ObjectRef> {
    written.keys().filter(|key| !desired.contains_key(key)).cloned().collect()
}

fn succeeded<E: std::fmt::Display>(key: &ObjectRef, result: Result<(), E>) -> bool {
    if let Err(err) = &result {
        tracing::error!(%key, %err, "failed to write an object to the state directory; programs of the mesh do not see its change");
    }
    result.is_ok()
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn an_object_that_could_not_be_written_or_removed_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let key = ObjectRef::new(Kind::Pod, "shop", "cart");
        let path = state::object_path(&state, &key).unwrap();
        let desired = || Desired { objects: [(key.clone(), json!({"kind": "Pod"}))].into(), ..Desired::default() };
        let mut publisher = Publisher::new(state.clone());

        // A file in the place of the directory.
        fs::write(&state, "").unwrap();
        publisher.write(desired()).await;
        fs::remove_file(&state).unwrap();
        publisher.write(desired()).await;
        assert!(path.is_file());

        // A directory in the place of the file.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        publisher.write(Desired::default()).await;
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "").unwrap();
        publisher.write(Desired::default()).await;
        assert!(!path.exists());
    }
}
