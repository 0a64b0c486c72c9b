//! The roots in a ConfigMap of every namespace, from where node proxies and waypoints mount them.

use std::collections::HashMap;
use std::time::Duration;

use ca_server::CurrentIssuer;
use contract::manifests::{ROOTS_CONFIG_MAP as NAME, ROOTS_KEY as KEY};
use graph::PublishedPods;
use kube_cluster::{Collection, Leadership, Location, Objects};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Field manager.
const MANAGER: &str = "strake-control";

/// Time until a new namespace is noticed.
const LOOK: Duration = Duration::from_secs(1);

/// Time after which all ConfigMaps are read again: somebody may have changed or deleted them.
const READ_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Bundle {
    objects: Objects,
    issuer: CurrentIssuer,
    leadership: Leadership,
    pods: PublishedPods,
    /// Roots in the ConfigMap of each namespace, as read or written last; `None` until they are read.
    known: Option<HashMap<String, String>>,
    read: Instant,
    /// A failure was logged, and no round has been without one since.
    is_told: bool,
}

impl Bundle {
    pub(super) fn new(objects: Objects, issuer: CurrentIssuer, leadership: Leadership, pods: PublishedPods) -> Self {
        Self { objects, issuer, leadership, pods, known: None, read: Instant::now(), is_told: false }
    }

    pub(super) async fn run(mut self) {
        loop {
            // The roots are compared in each round, so a change only ends the pause.
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.issuer.changed() => {}
            }
            if self.leadership.is_leading() {
                self.write_where_it_differs().await;
            } else {
                // Whoever leads meanwhile writes; what it has written is read when this replica leads again.
                self.known = None;
            }
        }
    }

    async fn write_where_it_differs(&mut self) {
        if self.known.is_none() || self.read.elapsed() >= READ_AGAIN {
            let fields = format!("metadata.name={NAME}");
            match self.objects.list(&Collection::all("v1", "configmaps"), Some(&fields), None).await {
                Ok(objects) => self.known = Some(objects.iter().filter_map(read).collect()),
                Err(error) => return self.tell(&error),
            }
            self.read = Instant::now();
        }
        let Some(known) = &mut self.known else { return };
        let roots = self.issuer.get().roots_pem().to_owned();
        let pods = self.pods.load();
        let mut failure = None;
        for namespace in pods.namespaces() {
            let name = &namespace.metadata.name;
            // The API server refuses new objects in a namespace that is being deleted.
            let is_ending = namespace.metadata.deletion_timestamp.is_some();
            if is_ending || known.get(name) == Some(&roots) || !self.leadership.is_leading() {
                continue;
            }
            match self.objects.apply(&at(name), &config_map(name, &roots), MANAGER).await {
                Ok(_) => {
                    known.insert(name.clone(), roots.clone());
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => self.tell(&error),
            None => self.is_told = false,
        }
    }

    fn tell(&mut self, error: &kube_cluster::RequestError) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(%error, code = "roots_not_written", "failed to write the roots of the mesh; trying again");
        }
    }
}

fn at(namespace: &str) -> Location {
    Collection::namespaced("v1", "configmaps", namespace).named(NAME)
}

fn config_map(namespace: &str, roots: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace, "labels": {"istio.io/config": "true"}},
        "data": {KEY: roots},
    })
}

/// Namespace and roots of a ConfigMap.
fn read(object: &Value) -> Option<(String, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some((text(&object["metadata"]["namespace"])?, text(&object["data"][KEY])?))
}
