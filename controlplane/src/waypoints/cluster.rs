//! The objects of a waypoint in a cluster: made, corrected and removed by server-side apply. It decides nothing about statuses.
//!
//! Nothing is overwritten that was not made for the Gateway by this controller, and nothing that has changed since it was read.

use std::collections::HashMap;
use std::time::Duration;

use contract::labels::{
    CONTROLLER_VERSION_ANNOTATION, GATEWAY_DEFAULTS_LABEL, GATEWAY_MANAGED_LABEL, GATEWAY_MANAGED_MESH,
    GATEWAY_NAME_LABEL,
};
use kube_cluster::{Collection, Leadership, Location, Objects, RequestError};
use kube_types::core::ConfigMap;
use kube_types::gateway::Gateway;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use waypoint_manifests::{CONTROLLER_VERSION, Overlays, Part, PartKind, Settings, parameters, render};
use xxhash_rust::xxh64::xxh64;

use super::status::Outcome;

/// Field manager of the objects.
const MANAGER: &str = "strake-waypoints";

/// Digest of an object as it was rendered, on the object.
const DIGEST_ANNOTATION: &str = "strake.io/rendered";

/// Pause after each write: at most 20 a second, also when the settings of all waypoints change.
const WRITE_PAUSE: Duration = Duration::from_millis(50);

/// Time that class-wide defaults are used before they are read again.
const DEFAULTS_AGE: Duration = Duration::from_secs(30);

/// Makes the objects of waypoints.
pub(crate) struct Cluster {
    pub(super) objects: Objects,
    pub(super) leadership: Leadership,
    /// `None`: no image is configured, and nothing is made.
    pub(super) settings: Option<Settings>,
    /// Namespace of class-wide defaults.
    pub(super) root_namespace: String,
    defaults: Option<(Instant, Vec<ConfigMap>)>,
    /// Version of each object, by its uid, in which the API server keeps what was applied in another form, for instance `1`
    /// for `1000m`: a comparison would find a difference each time.
    settled: HashMap<String, String>,
}

/// An object that should be there, with what is there.
struct Wanted {
    at: Location,
    object: Value,
    live: Option<Value>,
}

/// Reason why work on a Gateway stops.
enum Stop {
    Blocked(String),
    Failed(String),
}

impl From<RequestError> for Stop {
    fn from(error: RequestError) -> Self {
        // A refusal of the object itself (422) stays until somebody changes the Gateway or its overlays.
        if error.is_transient() { Self::Failed(error.to_string()) } else { Self::Blocked(error.to_string()) }
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Blocked(reason) => Self::Blocked(reason),
            Stop::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl Cluster {
    pub(super) fn new(
        objects: Objects,
        leadership: Leadership,
        settings: Option<Settings>,
        root_namespace: String,
    ) -> Self {
        Self { objects, leadership, settings, root_namespace, defaults: None, settled: HashMap::new() }
    }

    /// Makes the objects of a Gateway what they should be.
    pub(super) async fn make(&mut self, gateway: &Gateway) -> Outcome {
        let Some(settings) = self.settings.clone() else {
            return Outcome::Blocked("the control plane has no --waypoint-image, so it makes no waypoints".to_owned());
        };
        let overlays = match self.overlays(gateway).await {
            Ok(Ok(overlays)) => overlays,
            Ok(Err(problems)) => return Outcome::Invalid(problems),
            Err(stop) => return stop.into(),
        };
        match render(gateway, &overlays, &settings) {
            Err(problems) => Outcome::Invalid(problems),
            Ok(parts) => match self.apply_all(gateway, parts).await {
                Ok(()) => Outcome::Made,
                Err(stop) => stop.into(),
            },
        }
    }

    /// Removes the objects that were made for a Gateway.
    pub(super) async fn remove(&mut self, gateway: &Gateway) -> Outcome {
        let removed = async {
            let owned = self.owned(gateway).await?;
            self.remove_others(&[], owned).await
        };
        match removed.await {
            Ok(()) => Outcome::Made,
            Err(stop) => stop.into(),
        }
    }

    async fn overlays(
        &mut self,
        gateway: &Gateway,
    ) -> Result<Result<Overlays, Vec<waypoint_manifests::Problem>>, Stop> {
        let namespace = &gateway.metadata.namespace;
        let own = match parameters(gateway) {
            Ok(Some(name)) => {
                let at = Collection::namespaced("v1", "configmaps", namespace).named(name);
                self.objects.get(&at).await?.map(config_map).transpose()?
            }
            Ok(None) | Err(_) => None,
        };
        let defaults = self.defaults().await?;
        Ok(Overlays::of(gateway, defaults, |_| own.as_ref()))
    }

    async fn defaults(&mut self) -> Result<&[ConfigMap], Stop> {
        let is_fresh = self.defaults.as_ref().is_some_and(|(read, _)| read.elapsed() < DEFAULTS_AGE);
        if !is_fresh {
            let of = Collection::namespaced("v1", "configmaps", &self.root_namespace);
            let found = self.objects.list(&of, None, Some(GATEWAY_DEFAULTS_LABEL)).await?;
            let maps = found.into_iter().map(config_map).collect::<Result<_, _>>()?;
            self.defaults = Some((Instant::now(), maps));
        }
        Ok(self.defaults.as_ref().map(|(_, maps)| maps.as_slice()).unwrap_or_default())
    }

    async fn apply_all(&mut self, gateway: &Gateway, parts: Vec<Part>) -> Result<(), Stop> {
        let mut owned = self.owned(gateway).await?;
        let mut wanted = Vec::new();
        for part in parts {
            let at = location(part.kind, &gateway.metadata.namespace, part.name());
            let live = match owned.remove(&(part.kind, part.name().to_owned())) {
                Some(live) => Some(live),
                None => self.objects.get(&at).await?,
            };
            if let Some(live) = &live {
                check(&at, live, gateway)?;
            }
            wanted.push(Wanted { at, object: with_digest(part.object), live });
        }
        // Every object was looked at before the first is written: half a waypoint serves nobody.
        for wanted in &wanted {
            self.apply(wanted).await?;
        }
        let kept: Vec<_> = wanted.iter().map(|wanted| wanted.at.clone()).collect();
        self.remove_others(&kept, owned).await
    }

    /// The objects with the labels of a Gateway that this controller has made, by kind and name.
    async fn owned(&self, gateway: &Gateway) -> Result<HashMap<(PartKind, String), Value>, Stop> {
        let (namespace, name) = (&gateway.metadata.namespace, &gateway.metadata.name);
        let labels = format!("{GATEWAY_MANAGED_LABEL}={GATEWAY_MANAGED_MESH},{GATEWAY_NAME_LABEL}={name}");
        let mut owned = HashMap::new();
        for kind in PartKind::ALL {
            let of = Collection::namespaced(kind.api_version(), kind.plural(), namespace);
            for mut object in self.objects.list(&of, None, Some(&labels)).await? {
                // Elements of a list do not say what they are.
                object["apiVersion"] = json!(kind.api_version());
                object["kind"] = json!(kind.name());
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if version(&object).is_some() {
                    owned.insert((kind, name), object);
                }
            }
        }
        Ok(owned)
    }

    async fn apply(&mut self, wanted: &Wanted) -> Result<(), Stop> {
        let Wanted { at, object, live } = wanted;
        let Some(live) = live else { return self.create(at, object).await };
        let (uid, seen) = (text(live, "uid"), text(live, "resourceVersion"));
        if digest_of(live) == digest_of(object) && (contains(live, object) || self.settled.get(&uid) == Some(&seen)) {
            return Ok(());
        }
        self.lead()?;
        let mut object = object.clone();
        // Somebody may have changed it, or made another of its name, since it was read.
        object["metadata"]["resourceVersion"] = json!(seen);
        let answer = self.objects.apply(at, &object, MANAGER).await?;
        tracing::info!(%at, "object of a waypoint changed");
        self.settled.insert(uid, text(&answer, "resourceVersion"));
        sleep(WRITE_PAUSE).await;
        Ok(())
    }

    /// Makes an object that was not there. The API has no apply that only makes: one that appeared since is left as it was.
    async fn create(&mut self, at: &Location, object: &Value) -> Result<(), Stop> {
        self.lead()?;
        let answer = match self.objects.apply_gently(at, object, MANAGER).await {
            Ok(answer) => answer,
            Err(error) if error.is_conflict() => return Err(foreign(at)),
            Err(error) => return Err(error.into()),
        };
        let managers = answer["metadata"]["managedFields"].as_array();
        if managers.into_iter().flatten().any(|entry| entry["manager"] != MANAGER) {
            let metadata = json!({"name": at.name, "namespace": at.collection.namespace});
            let nothing = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata});
            // An apply without fields gives back those that only this manager has.
            self.objects.apply_gently(at, &nothing, MANAGER).await?;
            return Err(foreign(at));
        }
        tracing::info!(%at, "object of a waypoint created");
        self.settled.insert(text(&answer, "uid"), text(&answer, "resourceVersion"));
        sleep(WRITE_PAUSE).await;
        Ok(())
    }

    async fn remove_others(
        &mut self,
        kept: &[Location],
        owned: HashMap<(PartKind, String), Value>,
    ) -> Result<(), Stop> {
        for ((kind, name), live) in owned {
            let namespace = text(&live, "namespace");
            let at = location(kind, &namespace, &name);
            if kept.contains(&at) || version(&live) > Some(CONTROLLER_VERSION) {
                continue;
            }
            self.lead()?;
            if self.objects.delete_unchanged(&at, &live).await? {
                tracing::info!(%at, "object of a waypoint removed");
            }
            self.settled.remove(&text(&live, "uid"));
            sleep(WRITE_PAUSE).await;
        }
        Ok(())
    }

    /// Looked at before each write: reading may have taken long.
    fn lead(&self) -> Result<(), Stop> {
        if self.leadership.is_leading() {
            return Ok(());
        }
        Err(Stop::Failed("this replica does not lead any more".to_owned()))
    }
}

/// Returns an error unless the object was made for this Gateway by this controller, and not by a newer one.
fn check(at: &Location, live: &Value, gateway: &Gateway) -> Result<(), Stop> {
    let labels = &live["metadata"]["labels"];
    let is_managed =
        labels[GATEWAY_MANAGED_LABEL] == GATEWAY_MANAGED_MESH && labels[GATEWAY_NAME_LABEL] == gateway.metadata.name;
    let Some(version) = version(live).filter(|_| is_managed) else { return Err(foreign(at)) };
    if version > CONTROLLER_VERSION {
        let text = format!(
            "{at} was made by a newer control plane (version {version}, this one makes {CONTROLLER_VERSION}); it is left alone"
        );
        return Err(Stop::Blocked(text));
    }
    let owners = live["metadata"]["ownerReferences"].as_array();
    let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
    let is_of_another = owner.is_some_and(|owner| owner["uid"] != gateway.metadata.uid);
    if is_of_another || live["metadata"]["deletionTimestamp"].is_string() {
        return Err(Stop::Failed(format!("{at} of an earlier Gateway of this name is still being removed")));
    }
    Ok(())
}

fn foreign(at: &Location) -> Stop {
    Stop::Blocked(format!(
        "{at} exists and was not made for this Gateway; remove it, or choose another name with the annotation {}",
        contract::labels::GATEWAY_NAME_OVERRIDE_ANNOTATION
    ))
}

fn location(kind: PartKind, namespace: &str, name: &str) -> Location {
    Collection::namespaced(kind.api_version(), kind.plural(), namespace).named(name)
}

/// Version of the controller that has made an object; `None`: another one has made it, or a user.
fn version(object: &Value) -> Option<u32> {
    object["metadata"]["annotations"][CONTROLLER_VERSION_ANNOTATION].as_str()?.parse().ok()
}

fn config_map(object: Value) -> Result<ConfigMap, Stop> {
    serde_json::from_value(object).map_err(|error| Stop::Failed(format!("failed to read a ConfigMap: {error}")))
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

/// The object with the digest of what it is: fields that are rendered no more are removed once the digest differs.
fn with_digest(mut object: Value) -> Value {
    // Maps of JSON are sorted by key, so that equal objects have equal text.
    let digest = xxh64(object.to_string().as_bytes(), 0);
    object["metadata"]["annotations"][DIGEST_ANNOTATION] = json!(format!("{digest:016x}"));
    object
}

fn digest_of(object: &Value) -> &Value {
    &object["metadata"]["annotations"][DIGEST_ANNOTATION]
}

/// Returns true if every field of `part` is in `whole` with the same value; the API server adds fields, also to elements of
/// lists.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (whole, part) => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_an_api_server_adds_are_no_difference() {
        let part = json!({"spec": {"ports": [{"port": 1}], "type": "ClusterIP"}});

        assert!(contains(
            &json!({"spec": {"ports": [{"port": 1, "nodePort": 2}], "type": "ClusterIP", "x": 1}}),
            &part
        ));
        assert!(!contains(&json!({"spec": {"ports": [{"port": 1}, {"port": 3}], "type": "ClusterIP"}}), &part));
        assert!(!contains(&json!({"spec": {"ports": [{"port": 1}]}}), &part));
    }
}
