//! From Deployments, StatefulSets, DaemonSets and Jobs to the pods they mean, named and labelled as Kubernetes does
//! it. Where the pods run is decided in `scheduler`.

use std::collections::BTreeMap;

use kube_api::{
    Kind, ObjectMeta, ObjectRef, OwnerReference, Resource,
    core::{DaemonSet, Deployment, Job, Pod, PodSpec, PodTemplate, StatefulSet},
};
use serde::Serialize;
use xxhash_rust::xxh64::xxh64;

use crate::scheduler::{Candidate, admits};

/// Everything that manifests hold, by key.
pub(crate) type Objects = BTreeMap<ObjectRef, Resource>;

/// Characters of generated names: no vowels, nothing that looks like another (`k8s.io/apimachinery/pkg/util/rand`).
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of the random end of a generated name.
const SUFFIX: usize = 5;

/// A pod that should exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The pod, without status; with a node when it may run on that one only.
    pub(crate) pod: Pod,
    /// Whether the user wrote it: then it is not to be written as a derived object.
    pub(crate) by_user: bool,
    /// Changes when the pod has to be made anew.
    pub(crate) fingerprint: u64,
    /// The Deployment whose old pods stay until this one is ready.
    pub(crate) rollout: Option<ObjectRef>,
}

impl Planned {
    /// Namespace and name.
    pub(crate) fn key(&self) -> (String, String) {
        (self.pod.metadata.namespace.clone(), self.pod.metadata.name.clone())
    }
}

/// Every pod that the objects mean. Those of one owner are neighbours.
pub(crate) fn expand(objects: &Objects, nodes: &[Candidate]) -> Vec<Planned> {
    objects
        .values()
        .flat_map(|resource| match resource {
            Resource::Pod(pod) => vec![single(pod)],
            Resource::Deployment(deployment) => replicas(deployment),
            Resource::StatefulSet(set) => ordinals(set),
            Resource::DaemonSet(set) => one_per_node(set, nodes),
            Resource::Job(job) => completions(job),
            Resource::Namespace(_)
            | Resource::Node(_)
            | Resource::ServiceAccount(_)
            | Resource::ConfigMap(_)
            | Resource::PeerAuthentication(_)
            | Resource::AuthorizationPolicy(_)
            | Resource::Service(_)
            | Resource::EndpointSlice(_) => Vec::new(),
        })
        .collect()
}

fn single(pod: &Pod) -> Planned {
    let pod = Pod { metadata: pod.metadata.clone(), spec: pod.spec.clone(), status: Default::default() };
    Planned { fingerprint: digest(&pod.spec), by_user: true, rollout: None, pod }
}

fn replicas(deployment: &Deployment) -> Vec<Planned> {
    let owner = &deployment.metadata;
    let hash = encode(digest(&deployment.spec.template) >> 32);
    let set = format!("{}-{hash}", owner.name);
    (0..deployment.spec.replicas.unwrap_or(1))
        .map(|ordinal| {
            let mut pod = from_template(&deployment.spec.template, owner, &format!("{set}-"), ordinal);
            pod.metadata.labels.insert("pod-template-hash".to_owned(), hash.clone());
            pod.metadata.owner_references = vec![controller("apps/v1", "ReplicaSet", &owner.namespace, &set)];
            let rollout = ObjectRef::new(Kind::Deployment, &owner.namespace, &owner.name);
            derived(pod, &deployment.spec.template, Some(rollout))
        })
        .collect()
}

fn ordinals(set: &StatefulSet) -> Vec<Planned> {
    let owner = &set.metadata;
    (0..set.spec.replicas.unwrap_or(1))
        .map(|ordinal| {
            let mut pod = from_template(&set.spec.template, owner, &format!("{}-", owner.name), ordinal);
            let name = format!("{}-{ordinal}", owner.name);
            let labels = &mut pod.metadata.labels;
            labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
            labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
            pod.metadata.owner_references = vec![controller("apps/v1", "StatefulSet", &owner.namespace, &owner.name)];
            pod.spec.hostname = Some(name.clone());
            pod.spec.subdomain = set.spec.service_name.clone();
            pod.metadata.name = name;
            derived(pod, &set.spec.template, None)
        })
        .collect()
}

fn one_per_node(set: &DaemonSet, nodes: &[Candidate]) -> Vec<Planned> {
    let owner = &set.metadata;
    let template = &set.spec.template;
    let admitted = nodes.iter().enumerate().filter(|(_, node)| admits(node, &template.spec));
    admitted
        .map(|(index, node)| {
            let ordinal = u32::try_from(index).unwrap_or_default();
            let mut pod = from_template(template, owner, &format!("{}-", owner.name), ordinal);
            pod.metadata.owner_references = vec![controller("apps/v1", "DaemonSet", &owner.namespace, &owner.name)];
            pod.spec.node_name = Some(node.name.clone());
            derived(pod, template, None)
        })
        .collect()
}

fn completions(job: &Job) -> Vec<Planned> {
    let owner = &job.metadata;
    (0..job.spec.completions.or(job.spec.parallelism).unwrap_or(1))
        .map(|ordinal| {
            let mut pod = from_template(&job.spec.template, owner, &format!("{}-", owner.name), ordinal);
            pod.metadata.labels.insert("batch.kubernetes.io/job-name".to_owned(), owner.name.clone());
            pod.metadata.labels.insert("job-name".to_owned(), owner.name.clone());
            pod.metadata.owner_references = vec![controller("batch/v1", "Job", &owner.namespace, &owner.name)];
            // Kubernetes refuses `Always` here; what does not say is meant to end.
            pod.spec.restart_policy.get_or_insert_with(|| "Never".to_owned());
            derived(pod, &job.spec.template, None)
        })
        .collect()
}

/// A pod of a template whose generated name is the same each time the lab is started.
fn from_template(template: &PodTemplate, owner: &ObjectMeta, prefix: &str, ordinal: u32) -> Pod {
    let identity = format!("{}/{prefix}{ordinal}", owner.namespace);
    let suffix: String = encode(xxh64(identity.as_bytes(), 0)).chars().take(SUFFIX).collect();
    let metadata = ObjectMeta {
        name: format!("{prefix}{suffix}"),
        namespace: owner.namespace.clone(),
        generate_name: Some(prefix.to_owned()),
        labels: template.metadata.labels.clone(),
        annotations: template.metadata.annotations.clone(),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: Default::default() }
}

fn derived(pod: Pod, template: &PodTemplate, rollout: Option<ObjectRef>) -> Planned {
    Planned { pod, by_user: false, fingerprint: digest(template), rollout }
}

fn controller(api_version: &str, kind: &str, namespace: &str, name: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: stable_uid(&format!("{kind}/{namespace}/{name}")),
        controller: true,
    }
}

/// A uid that is the same for the same text.
pub(crate) fn stable_uid(text: &str) -> String {
    let digest = (u128::from(xxh64(text.as_bytes(), 1)) << 64) | u128::from(xxh64(text.as_bytes(), 2));
    format_uid(digest)
}

/// 128 bits as a version 4 UUID (RFC 9562).
pub(crate) fn format_uid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// A container without a command cannot run here: there is no image to take one from.
pub(crate) fn without_command(spec: &PodSpec) -> Option<&str> {
    let all = spec.init_containers.iter().chain(&spec.containers);
    all.into_iter().find(|container| container.command.is_empty()).map(|container| container.name.as_str())
}

/// A digest of anything by its JSON.
pub(crate) fn digest(value: &impl Serialize) -> u64 {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    xxh64(&bytes, 0)
}

/// A number in the characters of generated names, one for each decimal digit
/// (`SafeEncodeString` of the same package).
fn encode(number: u64) -> String {
    number.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects(list: &[(Kind, serde_json::Value)]) -> Objects {
        let read = |(kind, value): &(Kind, serde_json::Value)| Resource::from_value(*kind, value.clone()).unwrap();
        list.iter().map(read).map(|resource| (resource.key(), resource)).collect()
    }

    fn template() -> serde_json::Value {
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "command": ["x"]}]}})
    }

    fn node(name: &str) -> Candidate {
        Candidate { name: name.to_owned(), labels: BTreeMap::new(), schedulable: true }
    }

    #[test]
    fn pods_of_a_deployment_can_be_traced_to_it() {
        let deployment = json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 2, "template": template()}});

        let pods = expand(&objects(&[(Kind::Deployment, deployment)]), &[]);

        assert_eq!(pods.len(), 2);
        let meta = &pods[0].pod.metadata;
        let hash = &meta.labels["pod-template-hash"];
        assert_eq!(meta.generate_name.as_deref(), Some(format!("web-{hash}-").as_str()));
        assert!(meta.name.starts_with(&format!("web-{hash}-")));
        assert_eq!(meta.name.len(), "web-".len() + hash.len() + 1 + SUFFIX);
        assert_eq!(meta.controller().unwrap().kind, "ReplicaSet");
        assert_eq!(meta.controller().unwrap().name, format!("web-{hash}"));
        assert_ne!(pods[0].pod.metadata.name, pods[1].pod.metadata.name);
        assert!(!pods[0].by_user);
    }

    #[test]
    fn a_changed_template_gives_new_names_and_an_unchanged_one_the_same() {
        let deployment = |image: &str| {
            let mut template = template();
            template["spec"]["containers"][0]["image"] = image.into();
            objects(&[(Kind::Deployment, json!({"metadata": {"name": "web"}, "spec": {"template": template}}))])
        };

        let names = |objects: &Objects| expand(objects, &[])[0].pod.metadata.name.clone();

        assert_eq!(names(&deployment("a")), names(&deployment("a")));
        assert_ne!(names(&deployment("a")), names(&deployment("b")));
    }

    #[test]
    fn pods_of_a_stateful_set_have_names_that_dns_can_serve() {
        let set = json!({"metadata": {"name": "db", "namespace": "shop"},
            "spec": {"replicas": 2, "serviceName": "db", "template": template()}});

        let pods = expand(&objects(&[(Kind::StatefulSet, set)]), &[]);

        assert_eq!(pods[1].pod.metadata.name, "db-1");
        assert_eq!(pods[1].pod.spec.hostname.as_deref(), Some("db-1"));
        assert_eq!(pods[1].pod.spec.subdomain.as_deref(), Some("db"));
    }

    #[test]
    fn a_daemon_set_has_a_pod_on_each_node_that_it_selects() {
        let mut second = node("b");
        second.labels.insert("disk".to_owned(), "ssd".to_owned());
        let mut template = template();
        template["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        let all = json!({"metadata": {"name": "all"}, "spec": {"template": self::template()}});
        let some = json!({"metadata": {"name": "some"}, "spec": {"template": template}});

        let pods = expand(&objects(&[(Kind::DaemonSet, all), (Kind::DaemonSet, some)]), &[node("a"), second]);

        let nodes: Vec<_> = pods.iter().filter_map(|planned| planned.pod.spec.node_name.as_deref()).collect();
        assert_eq!(nodes, ["a", "b", "b"]);
    }

    #[test]
    fn a_job_ends_by_default_and_a_relabelled_pod_stays() {
        let job = json!({"metadata": {"name": "once"}, "spec": {"completions": 2, "template": template()}});
        let pod = |label: &str| json!({"metadata": {"name": "p", "labels": {"a": label}}, "spec": {"containers": []}});

        let jobs = expand(&objects(&[(Kind::Job, job)]), &[]);
        let before = expand(&objects(&[(Kind::Pod, pod("1"))]), &[]);
        let after = expand(&objects(&[(Kind::Pod, pod("2"))]), &[]);

        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[0].pod.spec.restart_policy.as_deref(), Some("Never"));
        assert_eq!(before[0].fingerprint, after[0].fingerprint);
        assert!(before[0].by_user);
    }

    #[test]
    fn uids_look_like_those_of_kubernetes() {
        let uid = stable_uid("ReplicaSet/default/web-1");

        assert_eq!(uid.len(), 36);
        assert_eq!(uid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(uid, stable_uid("ReplicaSet/default/web-1"));
    }
}
