//! `strake label`: changes labels of a namespace or pod: in a lab in the user's own manifests, text and comments kept, in a cluster
//! at its API server.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use kube_cluster::Collection;
use kube_types::{Kind, ObjectRef};
use manifests::{LabelChange, LabelError, Labelled, set_label};
use serde_json::{Value, json};

use crate::{
    mesh::{Choice, ClusterMesh, LabMesh, Mesh, Place, PodFacts},
    target::Target,
    wait::Wait,
};

/// Sets labels (`KEY=VALUE`) or removes them (`KEY-`): of a lab in the manifest that defines the object, of a cluster at its API
/// server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strake label namespace shop istio.io/dataplane-mode=ambient    every pod of shop joins the mesh
  strake label namespace shop istio.io/dataplane-mode=ambient --wait
                                                                 and the command returns when each is in it
  strake label namespace shop istio.io/dataplane-mode-           and leaves it
  strake label pod db -n shop istio.io/dataplane-mode=none       one pod stays out")]
pub(crate) struct Label {
    /// Kind of object
    kind: LabelKind,
    /// Its name; of a pod also NAMESPACE/NAME
    name: String,
    /// Labels to set, or to remove with a `-` behind the key
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = parse_change)]
    changes: Vec<LabelChange>,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Replace a label that has another value
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LabelKind {
    #[value(alias = "ns", alias = "namespaces")]
    Namespace,
    #[value(alias = "po", alias = "pods")]
    Pod,
}

impl LabelKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Pod => "pod",
        }
    }
}

impl Label {
    pub(crate) async fn run(&self, choice: &Choice) -> Result<ExitCode> {
        let key = self.key();
        let mesh = match choice.place()? {
            Place::Lab(target) => {
                self.label_in_manifests(&target, &key)?;
                // Only waiting asks programs of the mesh: the edit is done, whether or not they answer.
                if !self.wait.is_asked() {
                    return Ok(ExitCode::SUCCESS);
                }
                Mesh::Lab(LabMesh::attach(target).await?)
            }
            Place::Cluster(cluster) => {
                let cluster = ClusterMesh::connect(&cluster).await?;
                self.label_in_cluster(&cluster, &key).await?;
                Mesh::Cluster(cluster)
            }
        };
        let concerns = |pod: &PodFacts| match self.kind {
            LabelKind::Namespace => pod.namespace == key.name,
            LabelKind::Pod => pod.namespace == key.namespace && pod.name == key.name,
        };
        self.wait.until_settled(&mesh, concerns).await?;
        Ok(ExitCode::SUCCESS)
    }

    fn label_in_manifests(&self, target: &Target, key: &ObjectRef) -> Result<()> {
        let labelled = edit(&target.manifests()?, key, &self.changes, self.overwrite)?;
        let kind = self.kind.name();
        let file = labelled.file().display();
        match &labelled {
            Labelled::Changed(_) => println!("{kind}/{} labeled ({file})", self.name),
            Labelled::Unchanged(_) => println!("{kind}/{} not labeled: it has the labels already ({file})", self.name),
            Labelled::Added(_) => println!("{kind}/{} labeled (no manifest defined it: added to {file})", self.name),
        }
        Ok(())
    }

    async fn label_in_cluster(&self, cluster: &ClusterMesh, key: &ObjectRef) -> Result<()> {
        let kind = self.kind.name();
        let at = match self.kind {
            LabelKind::Namespace => Collection::all("v1", "namespaces"),
            LabelKind::Pod => Collection::namespaced("v1", "pods", &key.namespace),
        };
        let at = at.named(&key.name);
        let missing = || anyhow::anyhow!("{kind} {} not found in {}", key.path(), cluster.name);
        let found = cluster.objects().get(&at).await?.ok_or_else(missing)?;
        match patch(&found["metadata"], &self.changes, self.overwrite)? {
            None => println!("{kind}/{} not labeled: it has the labels already", self.name),
            Some(patch) => {
                cluster.objects().merge(&at, &patch).await?.ok_or_else(missing)?;
                println!("{kind}/{} labeled", self.name);
            }
        }
        Ok(())
    }

    fn key(&self) -> ObjectRef {
        match self.kind {
            LabelKind::Namespace => ObjectRef::new(Kind::Namespace, "", &self.name),
            LabelKind::Pod => {
                let (namespace, name) = self.name.split_once('/').unwrap_or((&self.namespace, &self.name));
                ObjectRef::new(Kind::Pod, namespace, name)
            }
        }
    }
}

/// Patch of an object with this metadata; `None` when it has the labels already.
///
/// # Errors
/// When a label has another value, without `overwrite`.
fn patch(metadata: &Value, changes: &[LabelChange], overwrite: bool) -> Result<Option<Value>> {
    let mut labels = serde_json::Map::new();
    for LabelChange { label, value } in changes {
        match (metadata["labels"].get(label).and_then(Value::as_str), value) {
            (Some(present), Some(wanted)) if present != wanted && !overwrite => {
                bail!("label {label} is {present:?} already: --overwrite replaces it")
            }
            (Some(present), Some(wanted)) if present == wanted => {}
            (None, None) => {}
            (_, value) => {
                labels.insert(label.clone(), json!(value));
            }
        }
    }
    // With the version that was read: a label that somebody else has changed since is not replaced unseen.
    let version = &metadata["resourceVersion"];
    Ok((!labels.is_empty()).then(|| json!({ "metadata": { "resourceVersion": version, "labels": labels } })))
}

/// Edits the manifest that defines the object; which file that is.
pub(crate) fn edit(
    directories: &[PathBuf],
    key: &ObjectRef,
    changes: &[LabelChange],
    overwrite: bool,
) -> Result<Labelled> {
    match set_label(directories, key, changes, overwrite) {
        Ok(labelled) => Ok(labelled),
        Err(err @ LabelError::Exists { .. }) => bail!("{err}: --overwrite replaces it"),
        Err(err @ LabelError::NoManifest(_)) => {
            let searched: Vec<_> = directories.iter().map(|dir| dir.display().to_string()).collect();
            bail!("{err} below {}", searched.join(", "))
        }
        Err(err) => Err(err.into()),
    }
}

pub(crate) fn parse_change(text: &str) -> Result<LabelChange, String> {
    let (label, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((label, value)), _) => (label, Some(value.to_owned())),
        (None, Some(label)) => (label, None),
        (None, None) => return Err("expected KEY=VALUE to set a label or KEY- to remove one".into()),
    };
    if label.is_empty() {
        return Err("the key is empty".into());
    }
    Ok(LabelChange { label: label.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(label: &str, value: Option<&str>) -> LabelChange {
        LabelChange { label: label.into(), value: value.map(Into::into) }
    }

    #[test]
    fn labels_are_set_and_removed_as_kubectl_writes_it() {
        assert_eq!(
            parse_change("istio.io/dataplane-mode=ambient"),
            Ok(change("istio.io/dataplane-mode", Some("ambient")))
        );
        assert_eq!(parse_change("tier="), Ok(change("tier", Some(""))));
        assert_eq!(parse_change("tier=a-"), Ok(change("tier", Some("a-"))));
        assert_eq!(parse_change("tier-"), Ok(change("tier", None)));
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        assert!(parse_change("tier").unwrap_err().contains("KEY=VALUE"));
        assert_eq!(parse_change("=x"), Err("the key is empty".into()));
    }

    #[test]
    fn a_pod_may_be_named_with_its_namespace() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            label: Label,
        }
        let key = |words: &[&str]| <Line as clap::Parser>::parse_from([&["label"], words].concat()).label.key();

        assert_eq!(key(&["pod", "shop/db", "a=b"]), ObjectRef::new(Kind::Pod, "shop", "db"));
        assert_eq!(key(&["pod", "db", "-n", "shop", "a=b"]), ObjectRef::new(Kind::Pod, "shop", "db"));
        assert_eq!(key(&["namespace", "shop", "a=b"]), ObjectRef::new(Kind::Namespace, "", "shop"));
    }

    #[test]
    fn labels_of_a_cluster_are_patched_where_they_differ() {
        let metadata = json!({"resourceVersion": "7", "labels": {"tier": "a", "old": "x"}});
        let patched = |changes: &[LabelChange], overwrite| patch(&metadata, changes, overwrite);

        assert_eq!(patched(&[change("tier", Some("a")), change("none", None)], false).unwrap(), None);
        let wanted = json!({"metadata": {"resourceVersion": "7", "labels": {"new": "b", "old": null}}});
        assert_eq!(patched(&[change("new", Some("b")), change("old", None)], false).unwrap(), Some(wanted));
        let refused = patched(&[change("tier", Some("b"))], false).unwrap_err().to_string();
        assert!(refused.contains("--overwrite"), "{refused}");
        assert!(patched(&[change("tier", Some("b"))], true).unwrap().is_some());
        assert!(patch(&json!({"resourceVersion": "7"}), &[change("a", Some("b"))], false).unwrap().is_some());
    }

    #[test]
    fn a_label_with_another_value_names_the_flag_that_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    tier: a\n";
        std::fs::write(dir.path().join("shop.yaml"), manifest).unwrap();
        let shop = ObjectRef::new(Kind::Namespace, "", "shop");

        let refused = edit(&[dir.path().to_owned()], &shop, &[change("tier", Some("b"))], false).unwrap_err();

        assert!(refused.to_string().contains("--overwrite"), "{refused}");
    }
}
