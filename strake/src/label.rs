//! `strake label`: changes labels in the user's own manifests, text and comments kept. The lab sees the file change.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use kube_types::{Kind, ObjectRef};
use manifests::{LabelChange, LabelError, Labelled, set_label};

use crate::{
    mesh::{LabMesh, Mesh, PodFacts},
    target::Target,
    wait::Wait,
};

/// Sets labels (`KEY=VALUE`) or removes them (`KEY-`) in the manifest that defines the object.
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

impl Label {
    pub(crate) async fn run(&self, target: &Target) -> Result<ExitCode> {
        let key = self.key();
        let labelled = edit(&target.manifests()?, &key, &self.changes, self.overwrite)?;
        let kind = match self.kind {
            LabelKind::Namespace => "namespace",
            LabelKind::Pod => "pod",
        };
        let file = labelled.file().display();
        match &labelled {
            Labelled::Changed(_) => println!("{kind}/{} labeled ({file})", self.name),
            Labelled::Unchanged(_) => println!("{kind}/{} not labeled: it has the labels already ({file})", self.name),
            Labelled::Added(_) => println!("{kind}/{} labeled (no manifest defined it: added to {file})", self.name),
        }
        // Only waiting asks programs of the mesh: the edit above is done, whether or not they answer.
        if self.wait.is_asked() {
            let mesh = Mesh::Lab(LabMesh::attach(target.clone()).await?);
            let concerns = |pod: &PodFacts| match self.kind {
                LabelKind::Namespace => pod.namespace == key.name,
                LabelKind::Pod => pod.namespace == key.namespace && pod.name == key.name,
            };
            self.wait.until_settled(&mesh, concerns).await?;
        }
        Ok(ExitCode::SUCCESS)
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
    fn a_label_with_another_value_names_the_flag_that_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    tier: a\n";
        std::fs::write(dir.path().join("shop.yaml"), manifest).unwrap();
        let shop = ObjectRef::new(Kind::Namespace, "", "shop");

        let refused = edit(&[dir.path().to_owned()], &shop, &[change("tier", Some("b"))], false).unwrap_err();

        assert!(refused.to_string().contains("--overwrite"), "{refused}");
    }
}
