//! Waypoints of a lab: Gateways in its manifests. A waypoint that this command makes has a file of its own; files of the user are
//! not edited, except for labels of namespaces.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use contract::labels::{DATAPLANE_MODE_AMBIENT, DATAPLANE_MODE_LABEL, USE_WAYPOINT_LABEL};
use kube_types::gateway::Gateway;
use kube_types::{Event, Kind, ObjectRef, Resource};
use manifests::{DirectoryConfig, LabelChange, Labelled, load_directory};
use tokio::time::timeout;

use super::manifest::Manifest;
use crate::{label, mesh::LabMesh, target::Target};

/// Time to read all manifests of a lab.
const DEADLINE: Duration = Duration::from_secs(20);

/// Gateways of a lab.
pub(super) struct LabGateways(Target);

/// Place where a Gateway is defined.
struct Defined {
    gateway: Gateway,
    file: PathBuf,
    line: usize,
    /// Nothing else is in the file.
    is_alone: bool,
}

impl LabGateways {
    pub(super) fn new(mesh: LabMesh) -> Self {
        Self(Target::of(&mesh.lab))
    }

    /// Every Gateway with its status.
    pub(super) async fn all(&self) -> Result<Vec<Gateway>> {
        let mut source = manifests::open(DirectoryConfig::new(self.0.manifests()?, self.0.state()))?;
        let mut found = Vec::new();
        let read = async {
            while let Some(event) = source.next().await {
                match event {
                    Event::Applied { resource: Resource::Gateway(gateway), .. } => found.push(gateway.as_ref().clone()),
                    Event::InSync { .. } => return Ok(()),
                    Event::Applied { .. } | Event::Removed { .. } | Event::Problem(_) | Event::Solved { .. } => {}
                }
            }
            bail!("the reader of the manifests has ended")
        };
        timeout(DEADLINE, read).await.with_context(|| format!("manifests were not read within {DEADLINE:?}"))??;
        Ok(found)
    }

    pub(super) fn apply(&self, manifest: &Manifest) -> Result<String> {
        apply(&self.0.manifests()?, manifest)
    }

    /// Name of the waypoint that a namespace uses.
    pub(super) fn used(&self, namespace: &str) -> Result<Option<String>> {
        label_of(&self.0.manifests()?, namespace, USE_WAYPOINT_LABEL)
    }

    pub(super) fn enrol(&self, namespace: &str, name: &str, overwrite: bool) -> Result<String> {
        let directories = self.0.manifests()?;
        let key = ObjectRef::new(Kind::Namespace, "", namespace);
        let change = LabelChange { label: USE_WAYPOINT_LABEL.to_owned(), value: Some(name.to_owned()) };
        let labelled = label::edit(&directories, &key, &[change], overwrite)?;
        let file = labelled.file().display();
        let mut text = match &labelled {
            Labelled::Unchanged(_) => format!("namespace {namespace} uses waypoint {name} already ({file})"),
            Labelled::Changed(_) | Labelled::Added(_) => {
                format!("namespace {namespace} labeled {USE_WAYPOINT_LABEL}={name} ({file})")
            }
        };
        if label_of(&directories, namespace, DATAPLANE_MODE_LABEL)?.as_deref() != Some(DATAPLANE_MODE_AMBIENT) {
            text.push_str(&super::outside(namespace, "strake"));
        }
        Ok(text)
    }

    pub(super) fn delete(&self, namespace: &str, name: &str) -> Result<String> {
        delete(&self.0.manifests()?, namespace, name)
    }
}

fn apply(directories: &[PathBuf], manifest: &Manifest) -> Result<String> {
    let Manifest { namespace, name, .. } = manifest;
    let wanted: Gateway = serde_json::from_value(manifest.value())?;
    let own = format!("waypoint-{namespace}-{name}.yaml");
    let file = match defined(directories, namespace, name)? {
        Some(found) if found.gateway.spec == wanted.spec && found.gateway.metadata.labels == wanted.metadata.labels => {
            return Ok(format!("waypoint {namespace}/{name} unchanged ({})", found.file.display()));
        }
        Some(found) if found.is_alone && found.file.file_name().is_some_and(|file| *file == *own) => found.file,
        Some(Defined { file, line, .. }) => {
            bail!("waypoint {namespace}/{name} is defined in {}:{line} and differs: edit it there", file.display())
        }
        None => {
            let Some(directory) = directories.iter().find(|path| path.is_dir()) else {
                bail!("the manifests of the lab are files: add what `strake waypoint generate` prints to one of them")
            };
            let file = directory.join(own);
            if file.exists() {
                bail!("{} exists and does not define this waypoint: remove or rename it", file.display());
            }
            file
        }
    };
    manifests::state::write_atomically(&file, manifest.text().as_bytes())
        .with_context(|| format!("failed to write {}", file.display()))?;
    Ok(format!("waypoint {namespace}/{name} applied ({})", file.display()))
}

fn delete(directories: &[PathBuf], namespace: &str, name: &str) -> Result<String> {
    match defined(directories, namespace, name)? {
        Some(found) if found.is_alone => {
            fs::remove_file(&found.file).with_context(|| format!("failed to remove {}", found.file.display()))?;
            Ok(format!("waypoint {namespace}/{name} deleted ({})", found.file.display()))
        }
        Some(Defined { file, line, .. }) => {
            bail!("waypoint {namespace}/{name} is in {}:{line} beside other objects: remove it there", file.display())
        }
        None => bail!("no manifest defines waypoint {namespace}/{name}"),
    }
}

/// Looks for the definition of a Gateway.
fn defined(directories: &[PathBuf], namespace: &str, name: &str) -> Result<Option<Defined>> {
    for path in directories {
        let loaded = read(path)?;
        let is_it = |resource: &Resource| match resource {
            Resource::Gateway(gateway) if gateway.metadata.namespace == namespace && gateway.metadata.name == name => {
                Some(gateway.as_ref().clone())
            }
            _ => None,
        };
        let found = loaded.objects.iter().find_map(|object| Some((is_it(&object.resource)?, object)));
        if let Some((gateway, object)) = found {
            let objects = loaded.objects.iter().filter(|other| other.file == object.file).count();
            // A document with a mistake is no object, and is the user's all the same.
            let has_problems = loaded.problems.iter().any(|problem| problem.file == object.file);
            let is_alone = objects == 1 && !has_problems;
            return Ok(Some(Defined { gateway, file: object.file.clone(), line: object.line, is_alone }));
        }
    }
    Ok(None)
}

/// Value of a label of a namespace, in the manifest that defines it.
fn label_of(directories: &[PathBuf], name: &str, label: &str) -> Result<Option<String>> {
    for path in directories {
        let found = read(path)?.objects.into_iter().find_map(|object| match object.resource {
            Resource::Namespace(namespace) if namespace.metadata.name == name => Some(namespace),
            _ => None,
        });
        if let Some(namespace) = found {
            return Ok(namespace.metadata.labels.get(label).cloned());
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<manifests::Manifests> {
    load_directory(path).with_context(|| format!("failed to read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waypoint::Traffic;

    fn manifest(traffic: Option<Traffic>) -> Manifest {
        Manifest::new("shop", "waypoint", "strake-waypoint", traffic).unwrap()
    }

    #[test]
    fn a_waypoint_has_a_file_of_its_own_that_is_changed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let directories = [dir.path().to_owned()];
        let file = dir.path().join("waypoint-shop-waypoint.yaml");

        assert!(apply(&directories, &manifest(None)).unwrap().contains(" applied ("));
        assert!(apply(&directories, &manifest(None)).unwrap().contains(" unchanged ("));
        assert!(apply(&directories, &manifest(Some(Traffic::All))).unwrap().contains(" applied ("));
        assert!(fs::read_to_string(&file).unwrap().contains("istio.io/waypoint-for: all"));
        assert!(delete(&directories, "shop", "waypoint").unwrap().contains(" deleted ("));
        assert!(!file.exists());
        assert!(delete(&directories, "shop", "waypoint").unwrap_err().to_string().contains("no manifest defines"));
    }

    #[test]
    fn a_label_is_that_of_the_manifest_which_defines_the_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/use-waypoint: door}}\n";
        fs::write(dir.path().join("shop.yaml"), text).unwrap();
        let directories = [dir.path().to_owned()];

        assert_eq!(label_of(&directories, "shop", USE_WAYPOINT_LABEL).unwrap().as_deref(), Some("door"));
        assert_eq!(label_of(&directories, "other", USE_WAYPOINT_LABEL).unwrap(), None);
    }

    #[test]
    fn files_of_the_user_are_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let directories = [dir.path().to_owned()];
        let file = dir.path().join("all.yaml");
        let text = format!("{}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n", manifest(None).text());
        fs::write(&file, &text).unwrap();

        assert!(apply(&directories, &manifest(None)).unwrap().contains(" unchanged ("));
        let changed = apply(&directories, &manifest(Some(Traffic::All))).unwrap_err().to_string();
        let removed = delete(&directories, "shop", "waypoint").unwrap_err().to_string();

        assert!(changed.contains("all.yaml:1 and differs: edit it there"), "{changed}");
        assert!(removed.contains("all.yaml:1 beside other objects"), "{removed}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn a_file_of_the_name_with_something_else_in_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("waypoint-shop-waypoint.yaml");
        fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n").unwrap();

        let refused = apply(&[dir.path().to_owned()], &manifest(None)).unwrap_err().to_string();

        assert!(refused.contains("does not define this waypoint"), "{refused}");
        assert!(apply(std::slice::from_ref(&file), &manifest(None)).unwrap_err().to_string().contains("generate"));
    }
}
