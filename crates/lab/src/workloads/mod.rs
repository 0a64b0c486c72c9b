//! From Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs to the pods they mean, named and labelled as
//! Kubernetes does it. Where the pods run is decided in `scheduler`, how many a Job needs at a time in `jobs`.

pub(crate) mod jobs;
mod names;

use std::collections::{BTreeMap, BTreeSet};

use contract::labels::{JOB_NAME_LABEL, POD_INDEX_LABEL, STATEFUL_SET_POD_NAME_LABEL};
use kube_types::core::{
    ClaimVolume, DaemonSet, Job, Pod, PodSpec, PodTemplate, ScaledSpec, StatefulSet, Toleration, Volume,
};
use kube_types::{Kind, ObjectMeta, ObjectRef, OwnerReference, Resource, StringMap};
use serde::Serialize;
use xxhash_rust::xxh64::xxh64;

use self::names::{Names, encode};
use crate::scheduler::{Candidate, refusal};

/// Everything that manifests hold, by key.
pub(crate) type Objects = BTreeMap<ObjectRef, Resource>;

/// A pod that should exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The pod, without status; with a node when it may run on that one only.
    pub(crate) pod: Pod,
    /// True if the user wrote it: then it is not to be written as a derived object.
    pub(crate) by_user: bool,
    /// Changes when the pod has to be made anew.
    pub(crate) fingerprint: u64,
    /// The Deployment whose old pods stay until this one is ready.
    pub(crate) rollout: Option<ObjectRef>,
    /// The Job that it belongs to, and its number among the Job's pods.
    pub(crate) job: Option<(ObjectRef, u32)>,
}

impl Planned {
    /// Namespace and name.
    pub(crate) fn key(&self) -> (String, String) {
        (self.pod.metadata.namespace.clone(), self.pod.metadata.name.clone())
    }
}

/// Numbers of the pods that each Job has or should have now.
pub(crate) type JobPods = BTreeMap<ObjectRef, BTreeSet<u32>>;

/// Every pod that the objects mean. Those of one owner are neighbours.
pub(crate) fn expand(objects: &Objects, nodes: &[Candidate], jobs: &JobPods) -> Vec<Planned> {
    let mut names = Names::default();
    // Names that are given come before names that are generated.
    let mut planned = Vec::new();
    for resource in objects.values() {
        if let Resource::Pod(pod) = resource {
            planned.push(single(pod));
        } else if let Resource::StatefulSet(set) = resource {
            planned.extend(ordinals(set));
        }
    }
    for pod in &planned {
        names.keep(&pod.pod.metadata.namespace, &pod.pod.metadata.name);
    }
    for resource in objects.values() {
        match resource {
            Resource::Deployment(deployment) => {
                planned.extend(replicas(&deployment.metadata, &deployment.spec, true, &mut names));
            }
            Resource::ReplicaSet(set) => planned.extend(replicas(&set.metadata, &set.spec, false, &mut names)),
            Resource::DaemonSet(set) => planned.extend(one_per_node(set, nodes, &mut names)),
            Resource::Job(job) => planned.extend(job_pods(job, jobs.get(&resource.key()), &mut names)),
            Resource::Namespace(_)
            | Resource::Node(_)
            | Resource::ServiceAccount(_)
            | Resource::ConfigMap(_)
            | Resource::Secret(_)
            | Resource::PersistentVolumeClaim(_)
            | Resource::PeerAuthentication(_)
            | Resource::AuthorizationPolicy(_)
            | Resource::GatewayClass(_)
            | Resource::Gateway(_)
            | Resource::Service(_)
            | Resource::ServiceEntry(_)
            | Resource::WorkloadEntry(_)
            | Resource::VirtualService(_)
            | Resource::DestinationRule(_)
            | Resource::HTTPRoute(_)
            | Resource::GRPCRoute(_)
            | Resource::StatefulSet(_)
            | Resource::Pod(_)
            | Resource::EndpointSlice(_) => {}
        }
    }
    planned
}

/// Labels and specification of the pods that an object makes; a Pod is its own.
pub(crate) fn template(resource: &Resource) -> Option<(&StringMap, &PodSpec)> {
    match resource {
        Resource::Pod(pod) => Some((&pod.metadata.labels, &pod.spec)),
        maker => maker.pod_template().map(|template| (&template.metadata.labels, &template.spec)),
    }
}

/// The specification of the pods that an object makes.
pub(crate) fn pod_spec(resource: &Resource) -> Option<&PodSpec> {
    template(resource).map(|(_, spec)| spec)
}

fn single(pod: &Pod) -> Planned {
    let pod = Pod { metadata: pod.metadata.clone(), spec: pod.spec.clone(), status: Default::default() };
    Planned { fingerprint: digest(&pod.spec), by_user: true, rollout: None, job: None, pod }
}

/// The pods of a Deployment's current ReplicaSet, or of a ReplicaSet.
fn replicas(owner: &ObjectMeta, spec: &ScaledSpec, deployment: bool, names: &mut Names) -> Vec<Planned> {
    // 32 bits as in Kubernetes; with more, names of pods would be longer than in a cluster.
    let hash = encode(digest(&spec.template) >> 32);
    let set = if deployment { format!("{}-{hash}", owner.name) } else { owner.name.clone() };
    (0..spec.replicas.unwrap_or(1))
        .map(|ordinal| {
            let mut pod = from_template(&spec.template, owner, &format!("{set}-"), ordinal, names);
            // Of a Deployment, too, as in Kubernetes: the workload's name is guessed from the ReplicaSet's.
            pod.metadata.owner_references = vec![controller("apps/v1", "ReplicaSet", &owner.namespace, &set)];
            let rollout = deployment.then(|| ObjectRef::new(Kind::Deployment, &owner.namespace, &owner.name));
            if deployment {
                pod.metadata.labels.insert("pod-template-hash".to_owned(), hash.clone());
            }
            derived(pod, &spec.template, rollout)
        })
        .collect()
}

fn ordinals(set: &StatefulSet) -> Vec<Planned> {
    let owner = &set.metadata;
    (0..set.spec.replicas.unwrap_or(1))
        .map(|ordinal| {
            let name = format!("{}-{ordinal}", owner.name);
            let mut pod = named(&set.spec.template, owner, &format!("{}-", owner.name), name.clone());
            let labels = &mut pod.metadata.labels;
            labels.insert(STATEFUL_SET_POD_NAME_LABEL.to_owned(), name.clone());
            labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
            pod.metadata.owner_references = vec![controller("apps/v1", "StatefulSet", &owner.namespace, &owner.name)];
            pod.spec.hostname = Some(name.clone());
            pod.spec.subdomain = set.spec.service_name.clone();
            for claim in &set.spec.volume_claim_templates {
                let template = &claim.metadata.name;
                // A claim takes the place of a volume of the same name, as the StatefulSet's controller does it.
                pod.spec.volumes.retain(|volume| volume.name != *template);
                pod.spec.volumes.push(Volume {
                    name: template.clone(),
                    persistent_volume_claim: Some(ClaimVolume {
                        claim_name: format!("{template}-{name}"),
                        read_only: false,
                    }),
                    ..Volume::default()
                });
            }
            // Other claims are other volumes: the pod is made anew.
            derived(pod, &(&set.spec.template, &set.spec.volume_claim_templates), None)
        })
        .collect()
}

/// Claims that a StatefulSet's controller makes from its templates.
pub(crate) fn templated_claims(objects: &Objects) -> impl Iterator<Item = (String, String)> {
    objects.values().flat_map(|resource| {
        let Resource::StatefulSet(set) = resource else { return Vec::new() };
        let (owner, spec) = (&set.metadata, &set.spec);
        let claim = |template: &str, ordinal: u32| format!("{template}-{}-{ordinal}", owner.name);
        spec.volume_claim_templates
            .iter()
            .flat_map(|template| {
                let name = &template.metadata.name;
                (0..spec.replicas.unwrap_or(1)).map(move |ordinal| (owner.namespace.clone(), claim(name, ordinal)))
            })
            .collect()
    })
}

/// The DaemonSet's controller adds these: its pods run where others are kept away for the node's sake.
fn daemon_tolerations() -> Vec<Toleration> {
    let names = ["not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"];
    let toleration = |name: &str| Toleration {
        key: format!("node.kubernetes.io/{name}"),
        operator: "Exists".to_owned(),
        ..Toleration::default()
    };
    names.map(toleration).to_vec()
}

fn one_per_node(set: &DaemonSet, nodes: &[Candidate], names: &mut Names) -> Vec<Planned> {
    let owner = &set.metadata;
    let mut template = set.spec.template.clone();
    template.spec.tolerations.extend(daemon_tolerations());
    // Names are generated for every node, also for those that refuse the pod: with a cordoned node in between, the
    // others keep their names.
    let all = nodes.iter().zip(0..).map(|(node, ordinal)| {
        let mut pod = from_template(&template, owner, &format!("{}-", owner.name), ordinal, names);
        pod.metadata.owner_references = vec![controller("apps/v1", "DaemonSet", &owner.namespace, &owner.name)];
        pod.spec.node_name = Some(node.name.clone());
        (node, derived(pod, &set.spec.template, None))
    });
    all.filter(|(node, _)| refusal(node, &template.spec).is_none()).map(|(_, planned)| planned).collect()
}

fn job_pods(job: &Job, numbers: Option<&BTreeSet<u32>>, names: &mut Names) -> Vec<Planned> {
    let owner = &job.metadata;
    let Some(numbers) = numbers else { return Vec::new() };
    let key = ObjectRef::new(Kind::Job, &owner.namespace, &owner.name);
    // Names are generated for all numbers from 0 on, because each depends on those before it; pods that are not wanted
    // are left out afterwards.
    let all = (0..=numbers.last().copied().unwrap_or_default()).map(|ordinal| {
        let mut pod = from_template(&job.spec.template, owner, &format!("{}-", owner.name), ordinal, names);
        pod.metadata.labels.insert(JOB_NAME_LABEL.to_owned(), owner.name.clone());
        // The older label, which Kubernetes still writes beside the one with a prefix.
        pod.metadata.labels.insert("job-name".to_owned(), owner.name.clone());
        pod.metadata.owner_references = vec![controller("batch/v1", "Job", &owner.namespace, &owner.name)];
        // The API server asks for one of `Never` and `OnFailure`; what says nothing is meant to end.
        pod.spec.restart_policy.get_or_insert_with(|| "Never".to_owned());
        Planned { job: Some((key.clone(), ordinal)), ..derived(pod, &job.spec.template, None) }
    });
    let all: Vec<_> = all.collect();
    all.into_iter().filter(|planned| planned.job.as_ref().is_some_and(|(_, number)| numbers.contains(number))).collect()
}

/// A pod of a template whose generated name is the same each time the lab is started.
fn from_template(template: &PodTemplate, owner: &ObjectMeta, prefix: &str, ordinal: u32, names: &mut Names) -> Pod {
    named(template, owner, prefix, names.generate(&owner.namespace, prefix, ordinal))
}

fn named(template: &PodTemplate, owner: &ObjectMeta, prefix: &str, name: String) -> Pod {
    let metadata = ObjectMeta {
        name,
        namespace: owner.namespace.clone(),
        generate_name: Some(prefix.to_owned()),
        labels: template.metadata.labels.clone(),
        annotations: template.metadata.annotations.clone(),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: Default::default() }
}

fn derived(pod: Pod, template: &impl Serialize, rollout: Option<ObjectRef>) -> Planned {
    Planned { pod, by_user: false, fingerprint: digest(template), rollout, job: None }
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
    // Two digits are left out: those of version and variant take their places.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{names::SUFFIX, *};

    fn objects(list: &[(Kind, serde_json::Value)]) -> Objects {
        let read = |(kind, value): &(Kind, serde_json::Value)| Resource::from_value(*kind, value.clone()).unwrap();
        list.iter().map(read).map(|resource| (resource.key(), resource)).collect()
    }

    fn template() -> serde_json::Value {
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "command": ["x"]}]}})
    }

    fn node(name: &str) -> Candidate {
        Candidate { name: name.to_owned(), schedulable: true, ..Candidate::default() }
    }

    #[test]
    fn pods_of_a_deployment_can_be_traced_to_it() {
        let deployment = json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 2, "template": template()}});

        let pods = expand(&objects(&[(Kind::Deployment, deployment)]), &[], &JobPods::new());

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

        let names = |objects: &Objects| expand(objects, &[], &JobPods::new())[0].pod.metadata.name.clone();

        assert_eq!(names(&deployment("a")), names(&deployment("a")));
        assert_ne!(names(&deployment("a")), names(&deployment("b")));
    }

    #[test]
    fn pods_of_a_stateful_set_have_names_that_dns_can_serve() {
        let set = json!({"metadata": {"name": "db", "namespace": "shop"},
            "spec": {"replicas": 2, "serviceName": "db", "template": template()}});

        let pods = expand(&objects(&[(Kind::StatefulSet, set)]), &[], &JobPods::new());

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

        let pods =
            expand(&objects(&[(Kind::DaemonSet, all), (Kind::DaemonSet, some)]), &[node("a"), second], &JobPods::new());

        let nodes: Vec<_> = pods.iter().filter_map(|planned| planned.pod.spec.node_name.as_deref()).collect();
        assert_eq!(nodes, ["a", "b", "b"]);
    }

    #[test]
    fn a_job_has_the_pods_that_it_needs_now_and_they_end_by_default() {
        let job = json!({"metadata": {"name": "once"}, "spec": {"completions": 9, "template": template()}});
        let key = ObjectRef::new(Kind::Job, "", "once");
        let pods = |numbers: &[u32]| {
            let needed = JobPods::from([(key.clone(), numbers.iter().copied().collect())]);
            expand(&objects(&[(Kind::Job, job.clone())]), &[], &needed)
        };

        assert_eq!(pods(&[]), []);
        assert_eq!(pods(&[0])[0].pod.spec.restart_policy.as_deref(), Some("Never"));
        assert_eq!(pods(&[1, 2])[0], pods(&[0, 1])[1], "a pod has the same name whatever became of the others");
    }

    #[test]
    fn a_relabelled_pod_stays() {
        let pod = |label: &str| json!({"metadata": {"name": "p", "labels": {"a": label}}, "spec": {"containers": []}});

        let before = expand(&objects(&[(Kind::Pod, pod("1"))]), &[], &JobPods::new());
        let after = expand(&objects(&[(Kind::Pod, pod("2"))]), &[], &JobPods::new());

        assert_eq!(before[0].fingerprint, after[0].fingerprint);
        assert!(before[0].by_user);
    }

    #[test]
    fn a_replica_set_makes_pods_of_its_own_name() {
        let set = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "template": template()}});

        let pods = expand(&objects(&[(Kind::ReplicaSet, set)]), &[], &JobPods::new());

        assert_eq!(pods.len(), 2);
        assert_eq!(pods[0].pod.metadata.name.len(), "web-".len() + SUFFIX);
        assert_eq!(pods[0].pod.metadata.controller().unwrap().name, "web");
        assert!(!pods[0].pod.metadata.labels.contains_key("pod-template-hash"));
        assert_eq!(pods[0].rollout, None);
    }

    #[test]
    fn a_pod_of_a_stateful_set_has_a_claim_of_its_own() {
        let set = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"replicas": 2, "serviceName": "db",
            "template": template(), "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}});
        let objects = objects(&[(Kind::StatefulSet, set)]);

        let pods = expand(&objects, &[], &JobPods::new());
        let claims: Vec<_> = templated_claims(&objects).map(|(_, name)| name).collect();

        let volume = &pods[1].pod.spec.volumes[0];
        assert_eq!(volume.name, "data");
        assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-1");
        assert_eq!(claims, ["data-db-0", "data-db-1"]);
    }

    #[test]
    fn generated_names_never_collide() {
        let deployment = json!({"metadata": {"name": "big"}, "spec": {"replicas": 1000, "template": template()}});

        let pods = expand(&objects(&[(Kind::Deployment, deployment)]), &[], &JobPods::new());

        let names: BTreeSet<_> = pods.iter().map(Planned::key).collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn uids_look_like_those_of_kubernetes() {
        let uid = stable_uid("ReplicaSet/default/web-1");

        assert_eq!(uid.len(), 36);
        assert_eq!(uid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(uid, stable_uid("ReplicaSet/default/web-1"));
    }
}
