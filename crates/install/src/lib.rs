//! Installs the mesh in a cluster, and removes it: the manifests as objects, the wait until they run, and the way back.

mod objects;
mod remove;
mod rollout;

use std::time::Duration;

use kube_cluster::{ApiServer, Location, Objects, RequestError};

pub use objects::{Images, InvalidManifest, Object, admission, custom_resources, objects};
pub use remove::{remove, take_out};

/// Choices of an installation.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub images: Images,
    /// Also the policies of admission. Without it, policies of an earlier installation stay as they are.
    pub admission: bool,
}

/// Field manager of everything that an installation applies.
const MANAGER: &str = "strake-install";

/// Label of namespaces and custom resources that an installation has made, and that its removal therefore deletes.
const MADE_BY_LABEL: &str = "app.kubernetes.io/managed-by";
const MADE_BY: &str = "strake";

/// Receiver of lines about the progress of long work, for people.
pub trait Progress {
    fn tell(&mut self, line: &str);
}

/// Reason why an installation or removal did not come to its end. What was done stays; the same command continues from there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Something that was waited for did not come.
    #[error("after {limit:?}: {missing}")]
    Late { limit: Duration, missing: String },
    /// Pods that no agent has taken out of the mesh.
    #[error("{} pods are still in the mesh, and nothing was removed that they need: {}", .0.len(), .0.join(", "))]
    StillInMesh(Vec<String>),
}

/// Applies the manifests and waits until every program runs on every node.
///
/// # Errors
/// When the API server refuses an object, or the programs do not become ready within `limit`.
pub async fn install(
    server: &ApiServer,
    settings: &Settings,
    limit: Duration,
    progress: &mut dyn Progress,
) -> Result<(), InstallError> {
    let api = Objects::new(server);
    for Object { at, mut value } in custom_resources()? {
        value["metadata"]["labels"] = serde_json::json!({MADE_BY_LABEL: MADE_BY});
        // Those of Istio, or of a newer version, have more fields: objects of users would lose them.
        if api.get(&at).await?.is_none() && api.create(&at, &value).await? {
            progress.tell(&format!("created {at}"));
        }
    }
    for Object { at, value } in chosen(settings)? {
        if at.collection.plural == "namespaces" {
            make_namespace(&api, &at).await?;
        }
        api.apply(&at, &value, MANAGER).await?;
        progress.tell(&format!("applied {at}"));
    }
    rollout::wait(&api, limit, progress).await
}

/// The objects that are applied, in their order, besides custom resources.
///
/// # Errors
/// As [`objects()`].
pub fn chosen(settings: &Settings) -> Result<Vec<Object>, InvalidManifest> {
    let mut chosen = objects(&settings.images)?;
    if settings.admission {
        chosen.extend(admission()?);
    }
    Ok(chosen)
}

/// A namespace that is there already is the user's, and stays when the mesh is removed.
async fn make_namespace(api: &Objects, at: &Location) -> Result<(), RequestError> {
    let namespace = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": at.name, "labels": {MADE_BY_LABEL: MADE_BY}},
    });
    api.create(at, &namespace).await.map(drop)
}
