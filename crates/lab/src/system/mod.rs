//! The mesh in a lab: the pods and objects of its manifests, run like any others. Files that they need are made in `files`,
//! objects that a cluster has without a mesh in `cluster`.

pub(crate) mod cluster;
mod differences;
mod files;
mod manifests;
#[cfg(test)]
mod tests;
mod waypoints;

use std::{collections::BTreeMap, env, io, path::PathBuf};

use contract::labels::NAMESPACE_NAME_LABEL;
use graph::enrolment::Enablement;
use kube_types::core::{Pod, PodTemplate};
use kube_types::{Kind, ObjectMeta};
use serde_json::Value;

pub(crate) use self::waypoints::Waypoints;
use self::{
    cluster::KUBE_NAMESPACE,
    differences::{Change, Place, with_variable},
};
use crate::{
    addresses::Dual,
    options::Options,
    paths::{Cgroups, RunDir},
    workloads::{Objects, Planned, digest},
};

/// Namespace of the mesh's own pods, as in its manifests.
pub(crate) const SYSTEM_NAMESPACE: &str = "istio-system";

/// A node, as far as its system pods need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SystemNode {
    pub(crate) name: String,
    pub(crate) addresses: Dual,
    /// A path to its network namespace.
    pub(crate) netns: PathBuf,
}

/// The mesh's manifests, and the files of one lab that its programs use.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    manifests: Vec<Value>,
    options: SystemOptions,
    run: RunDir,
    cgroups: Cgroups,
}

/// The lab's options that system pods depend on.
#[derive(Debug, Clone)]
pub(crate) struct SystemOptions {
    bin_dir: PathBuf,
    manifests: Vec<PathBuf>,
    /// Environment of every program.
    env: BTreeMap<String, String>,
    /// Environment of one program, by its name; wins over everything else.
    program_env: BTreeMap<String, BTreeMap<String, String>>,
    unenrol_grace_seconds: f64,
}

impl SystemOptions {
    fn new(options: &Options) -> Self {
        // Settings of the lab as a whole (log filters, where the kernel programs are) hold for its programs.
        let inherited = |name: &String| name.starts_with("STRAKE_") || name.starts_with("RUST_");
        let mut env: BTreeMap<_, _> = env::vars().filter(|(name, _)| inherited(name)).collect();
        env.extend(options.system_env.clone());
        Self {
            bin_dir: options.bin_dir.clone(),
            manifests: options.manifests.clone(),
            env,
            program_env: options.program_env.clone(),
            unenrol_grace_seconds: options.unenrol_grace.as_secs_f64(),
        }
    }
}

impl Mesh {
    /// # Errors
    /// When the manifests that the program was built with cannot be read.
    pub(crate) fn new(options: &Options, run: RunDir, cgroups: Cgroups) -> io::Result<Self> {
        Ok(Self { manifests: manifests::embedded()?, options: SystemOptions::new(options), run, cgroups })
    }

    /// Adds the mesh's objects where the user's manifests have nothing of that name.
    ///
    /// # Errors
    /// When the lab cannot read one.
    pub(crate) fn add_objects(&self, objects: &mut Objects) -> io::Result<()> {
        for document in &self.manifests {
            if is_workload(document) {
                continue;
            }
            let Some(mut document) = self.in_lab(document, None) else { continue };
            if document["kind"] == Kind::Namespace.name() {
                let name = document["metadata"]["name"].clone();
                document["metadata"]["labels"][NAMESPACE_NAME_LABEL] = name;
            }
            let resource = manifests::read(document)?;
            objects.entry(resource.key()).or_insert(resource);
        }
        Ok(())
    }

    /// The pods of the mesh: one of a Deployment, and one of a DaemonSet on each node.
    ///
    /// # Errors
    /// When the lab cannot read a manifest.
    pub(crate) fn pods(&self, nodes: &[SystemNode]) -> io::Result<Vec<Planned>> {
        let mut pods = Vec::new();
        for document in self.manifests.iter().filter(|document| is_workload(document)) {
            let nodes: Vec<_> =
                if document["kind"] == Kind::DaemonSet.name() { nodes.iter().map(Some).collect() } else { vec![None] };
            for node in nodes {
                let Some(document) = self.in_lab(document, node) else { continue };
                let resource = manifests::read(document)?;
                pods.extend(resource.pod_template().map(|template| planned(resource.meta(), template, node)));
            }
        }
        Ok(pods)
    }

    /// A manifest with the lab's differences and the environment of its options.
    fn in_lab(&self, document: &Value, node: Option<&SystemNode>) -> Option<Value> {
        let title = manifests::title(document);
        let (_, program) = title.split_once('/')?;
        let place = Place { mesh: self, program, node };
        let mut document = differences::apply(document.clone(), &place)?;
        // A path of the lab is not the user's to set for all programs.
        let is_ours = |name: &str| {
            differences::about(&title)
                .any(|difference| matches!(difference.change, Change::Variable(own, _) if own == name))
        };
        let common = self.options.env.iter().filter(|(name, _)| !is_ours(name));
        let own = self.options.program_env.get(program).into_iter().flatten();
        if let Some(Value::Array(containers)) = document.pointer_mut("/spec/template/spec/containers") {
            for (name, value) in common.chain(own) {
                containers.iter_mut().for_each(|container| *container = with_variable(container.take(), name, value));
            }
        }
        Some(document)
    }
}

fn is_workload(document: &Value) -> bool {
    document.pointer("/spec/template/spec").is_some()
}

fn planned(owner: &ObjectMeta, template: &PodTemplate, node: Option<&SystemNode>) -> Planned {
    let mut pod = Pod { metadata: template.metadata.clone(), spec: template.spec.clone(), ..Pod::default() };
    pod.metadata.namespace.clone_from(&owner.namespace);
    pod.metadata.name = node.map_or_else(|| owner.name.clone(), |node| format!("{}-{}", owner.name, node.name));
    pod.spec.node_name = node.map(|node| node.name.clone());
    Planned { fingerprint: digest(&pod.spec), by_user: false, rollout: None, job: None, pod }
}

/// The rule by which the lab's agents select pods for the mesh.
pub(crate) fn enablement() -> Enablement {
    Enablement { excluded_namespaces: vec![KUBE_NAMESPACE.to_owned()], system_namespace: SYSTEM_NAMESPACE.to_owned() }
}
