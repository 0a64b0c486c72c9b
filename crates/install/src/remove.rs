//! The removal of the mesh from a cluster: pods leave it first, and what they need goes last.

use std::time::Duration;

use contract::labels::{
    CONTROLLER_VERSION_ANNOTATION, GATEWAY_MANAGED_LABEL, GATEWAY_MANAGED_MESH, REDIRECTION_ANNOTATION,
    UNINSTALL_ANNOTATION,
};
use contract::manifests::{AGENT, CONTROL, PLUGGED_IN_SECRET, ROOT_SECRET, ROOTS_CONFIG_MAP, SYSTEM_NAMESPACE};
use kube_cluster::{ApiServer, Collection, Deletion, Location, Objects, RequestError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use waypoint_manifests::{CLASS, ISTIO_CLASS, PartKind};

use crate::objects::{Object, custom_resources};
use crate::{Images, InstallError, MADE_BY, MADE_BY_LABEL, Progress, Settings, chosen};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Takes every pod out of the mesh, and removes everything that an installation has made. A Secret `cacerts` is the user's and
/// stays.
///
/// # Errors
/// When an agent does not end within `limit`, or leaves pods in the mesh: then everything that these need stays.
pub async fn remove(server: &ApiServer, limit: Duration, progress: &mut dyn Progress) -> Result<(), InstallError> {
    take_out(server, limit, progress).await?;
    let api = Objects::new(server);
    // Proxies and control plane after the pods, permissions after those who use them.
    let mut all = chosen(&Settings { images: Images::default(), admission: true })?;
    all.reverse();
    for at in all.iter().map(|object| &object.at).filter(|at| at.collection.plural != "namespaces") {
        if api.delete(at, Deletion::Foreground).await? {
            progress.tell(&format!("deleted {at}"));
        }
        if ["daemonsets", "deployments"].contains(&at.collection.plural.as_str()) {
            gone(&api, at, limit).await?;
        }
    }
    remove_waypoints(&api, progress).await?;
    remove_derived(&api, progress).await?;
    remove_custom_resources(&api, progress).await?;
    remove_namespace(&api, limit, progress).await
}

/// Takes every pod out of the mesh, and ends the agents. Everything else stays.
///
/// # Errors
/// As [`remove`].
pub async fn take_out(server: &ApiServer, limit: Duration, progress: &mut dyn Progress) -> Result<(), InstallError> {
    let api = Objects::new(server);
    // The agents read it when they are told to end. They know by it that the user wants their pods out of the mesh.
    let agent = in_system("apps/v1", "daemonsets").named(AGENT);
    let announced = json!({"metadata": {"annotations": {UNINSTALL_ANNOTATION: "true"}}});
    if api.merge(&agent, &announced).await?.is_some() {
        progress.tell("agents take the pods of their nodes out of the mesh");
        // The DaemonSet stays readable until the last agent has ended.
        api.delete(&agent, Deletion::Foreground).await?;
        gone(&api, &agent, limit).await?;
    }
    let pods = still_in_mesh(&api).await?;
    if pods.is_empty() { Ok(()) } else { Err(InstallError::StillInMesh(pods)) }
}

/// Objects that the control plane has made for Gateways, and their classes. The Gateways are the user's.
async fn remove_waypoints(api: &Objects, progress: &mut dyn Progress) -> Result<(), InstallError> {
    let labels = format!("{GATEWAY_MANAGED_LABEL}={GATEWAY_MANAGED_MESH}");
    for kind in PartKind::ALL.into_iter().rev() {
        let of = Collection::all(kind.api_version(), kind.plural());
        for object in api.list(&of, None, Some(&labels)).await? {
            let metadata = &object["metadata"];
            // Istio's controller has the same label.
            let is_ours = metadata["annotations"][CONTROLLER_VERSION_ANNOTATION].is_string();
            let (Some(namespace), Some(name), true) =
                (metadata["namespace"].as_str(), metadata["name"].as_str(), is_ours)
            else {
                continue;
            };
            let at = Collection::namespaced(kind.api_version(), kind.plural(), namespace).named(name);
            if api.delete(&at, Deletion::Background).await? {
                progress.tell(&format!("deleted {at}"));
            }
        }
    }
    // A cluster without the Gateway API has no path for classes, and a question about one would be an error.
    let definitions = Collection::all("apiextensions.k8s.io/v1", "customresourcedefinitions");
    if api.get(&definitions.named("gatewayclasses.gateway.networking.k8s.io")).await?.is_none() {
        return Ok(());
    }
    for name in [CLASS, ISTIO_CLASS] {
        let at = Collection::all("gateway.networking.k8s.io/v1", "gatewayclasses").named(name);
        let made = api.get(&at).await?.filter(|class| class["metadata"]["labels"][MADE_BY_LABEL] == MADE_BY);
        if made.is_some() && api.delete(&at, Deletion::Background).await? {
            progress.tell(&format!("deleted {at}"));
        }
    }
    Ok(())
}

/// Objects that the control plane has made.
async fn remove_derived(api: &Objects, progress: &mut dyn Progress) -> Result<(), InstallError> {
    let fields = format!("metadata.name={ROOTS_CONFIG_MAP}");
    for object in api.list(&Collection::all("v1", "configmaps"), Some(&fields), None).await? {
        if let Some(namespace) = object["metadata"]["namespace"].as_str() {
            let at = Collection::namespaced("v1", "configmaps", namespace).named(ROOTS_CONFIG_MAP);
            api.delete(&at, Deletion::Background).await?;
        }
    }
    progress.tell(&format!("deleted configmaps {ROOTS_CONFIG_MAP}"));
    let lease = in_system("coordination.k8s.io/v1", "leases").named(CONTROL);
    let root = in_system("v1", "secrets").named(ROOT_SECRET);
    for at in [lease, root] {
        if api.delete(&at, Deletion::Background).await? {
            progress.tell(&format!("deleted {at}"));
        }
    }
    Ok(())
}

/// Kinds that an installation has made and of which there is no object: with its kind an object of the user would be deleted.
async fn remove_custom_resources(api: &Objects, progress: &mut dyn Progress) -> Result<(), InstallError> {
    for Object { at, value } in custom_resources()? {
        let Some(present) = api.get(&at).await? else { continue };
        if present["metadata"]["labels"][MADE_BY_LABEL] != MADE_BY {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, plural) = (text(&value["spec"]["group"]), text(&value["spec"]["names"]["plural"]));
        let objects = api.list(&Collection::all(&format!("{group}/v1"), &plural), None, None).await?;
        if objects.is_empty() {
            api.delete(&at, Deletion::Background).await?;
            progress.tell(&format!("deleted {at}"));
        } else {
            progress.tell(&format!("kept {at}: there are {} {plural}", objects.len()));
        }
    }
    Ok(())
}

/// The namespace, if an installation has made it and the user keeps no authority in it.
async fn remove_namespace(api: &Objects, limit: Duration, progress: &mut dyn Progress) -> Result<(), InstallError> {
    let at = Collection::all("v1", "namespaces").named(SYSTEM_NAMESPACE);
    let Some(namespace) = api.get(&at).await? else { return Ok(()) };
    if namespace["metadata"]["labels"][MADE_BY_LABEL] != MADE_BY {
        return Ok(());
    }
    let cacerts = in_system("v1", "secrets").named(PLUGGED_IN_SECRET);
    if api.get(&cacerts).await?.is_some() {
        progress.tell(&format!("kept {at}: the secret {PLUGGED_IN_SECRET} in it is yours"));
        return Ok(());
    }
    api.delete(&at, Deletion::Background).await?;
    gone(api, &at, limit).await?;
    progress.tell(&format!("deleted {at}"));
    Ok(())
}

async fn gone(api: &Objects, at: &Location, limit: Duration) -> Result<(), InstallError> {
    let deadline = Instant::now() + limit;
    while api.get(at).await?.is_some() {
        if Instant::now() >= deadline {
            return Err(InstallError::Late { limit, missing: format!("{at} is not gone") });
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Pods that an agent has announced and none has taken back, with their nodes.
async fn still_in_mesh(api: &Objects) -> Result<Vec<String>, RequestError> {
    let pods = api.list(&Collection::all("v1", "pods"), None, None).await?;
    Ok(pods.iter().filter(|pod| is_in_mesh(pod)).map(text).collect())
}

/// A pod that has ended has no traffic.
fn is_in_mesh(pod: &Value) -> bool {
    let has_ended = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    !has_ended && pod["metadata"]["annotations"][REDIRECTION_ANNOTATION] == "enabled"
}

fn text(pod: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &pod["metadata"];
    format!("{}/{} on {}", text(&metadata["namespace"]), text(&metadata["name"]), text(&pod["spec"]["nodeName"]))
}

fn in_system(api_version: &str, plural: &str) -> Collection {
    Collection::namespaced(api_version, plural, SYSTEM_NAMESPACE)
}
