//! ConfigMaps with overlays: class-wide defaults, and those that a Gateway names.

use contract::labels::GATEWAY_DEFAULTS_LABEL;
use kube_types::core::ConfigMap;
use kube_types::gateway::Gateway;
use serde_json::Value;

use crate::merge::{Mistake, merge};
use crate::parts::PartKind;
use crate::problem::{Problem, ProblemReason};

/// Keys of a ConfigMap with overlays. Istio's.
pub const OVERLAY_KINDS: [&str; 5] =
    ["deployment", "service", "serviceAccount", "horizontalPodAutoscaler", "podDisruptionBudget"];

/// Name of the ConfigMap with overlays that a Gateway names, in its namespace.
///
/// # Errors
/// When the Gateway names an object of another kind.
pub fn parameters(gateway: &Gateway) -> Result<Option<&str>, Problem> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|infrastructure| infrastructure.parameters_ref.as_ref()) else {
        return Ok(None);
    };
    if reference.group.is_empty() && reference.kind == "ConfigMap" && !reference.name.is_empty() {
        return Ok(Some(&reference.name));
    }
    let found = format!("{}/{} {}", reference.group, reference.kind, reference.name);
    let text = format!("found {}, expected the name of a ConfigMap with group \"\"", found.trim_start_matches('/'));
    Err(Problem::new(ProblemReason::Parameters, PARAMETERS, text))
}

/// Field of a Gateway that names its overlays.
const PARAMETERS: &str = "spec.infrastructure.parametersRef";

/// Fields that an overlay may not change, besides the labels of the controller: without them the objects would not belong
/// together, or not to their Gateway.
const FIXED: [&str; 8] = [
    "/apiVersion",
    "/kind",
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/ownerReferences",
    "/spec/selector",
    "/spec/scaleTargetRef",
    "/spec/template/spec/serviceAccountName",
];

/// Overlays of one Gateway, in the order in which they are laid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlays(Vec<Overlay>);

#[derive(Clone, Debug, PartialEq)]
struct Overlay {
    /// `ConfigMap NAMESPACE/NAME: KEY`.
    origin: String,
    kind: PartKind,
    value: Value,
}

impl Overlays {
    /// The overlays of a Gateway: those of its class in the order of the ConfigMaps' names, and over these its own. `find`
    /// returns a ConfigMap by its name in the Gateway's namespace.
    ///
    /// # Errors
    /// Every mistake of the ConfigMaps, and one that the Gateway names and that is not there.
    pub fn of<'a>(
        gateway: &Gateway,
        defaults: &[ConfigMap],
        find: impl FnOnce(&str) -> Option<&'a ConfigMap>,
    ) -> Result<Self, Vec<Problem>> {
        let mut defaults: Vec<_> = defaults.iter().filter(|map| is_default(map, gateway)).collect();
        defaults.sort_by_key(|map| &map.metadata.name);
        let own = match parameters(gateway) {
            Err(problem) => return Err(vec![problem]),
            Ok(None) => None,
            Ok(Some(name)) => Some(find(name).ok_or_else(|| {
                let text = format!("ConfigMap {}/{name} not found", gateway.metadata.namespace);
                vec![Problem::new(ProblemReason::Parameters, PARAMETERS, text)]
            })?),
        };
        let (mut overlays, mut problems) = (Self::default(), Vec::new());
        for map in defaults.into_iter().chain(own) {
            problems.extend(overlays.add(map).err().into_iter().flatten());
        }
        if problems.is_empty() { Ok(overlays) } else { Err(problems) }
    }

    /// Adds the overlays of a ConfigMap, which are laid over those that are here already.
    ///
    /// # Errors
    /// Every key that is not among [`OVERLAY_KINDS`], and every value that is not a YAML map.
    pub fn add(&mut self, map: &ConfigMap) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        for (key, text) in &map.data {
            let origin = format!("ConfigMap {}/{}: {key}", map.metadata.namespace, map.metadata.name);
            let wrong = |text: String| Problem::new(ProblemReason::Parameters, &origin, text);
            let Some(kind) = PartKind::of_overlay(key) else {
                problems.push(wrong(format!("unknown key, expected one of {}", OVERLAY_KINDS.join(", "))));
                continue;
            };
            match serde_saphyr::from_str::<Value>(text) {
                Ok(value) if value.is_object() => self.0.push(Overlay { origin, kind, value }),
                // An empty text is an overlay that changes nothing, as an empty map.
                Ok(Value::Null) => self.0.push(Overlay { origin, kind, value: Value::Object(Default::default()) }),
                Ok(_) => problems.push(wrong("expected a YAML map of fields".to_owned())),
                Err(error) => problems.push(wrong(format!("expected YAML: {error}"))),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Returns true if there is an overlay of the kind.
    pub(crate) fn has(&self, kind: PartKind) -> bool {
        self.0.iter().any(|overlay| overlay.kind == kind)
    }

    /// Lays the overlays of a kind over an object; `labels` are those that have to stay.
    pub(crate) fn lay(&self, kind: PartKind, object: &mut Value, labels: &[&str], problems: &mut Vec<Problem>) {
        for overlay in self.0.iter().filter(|overlay| overlay.kind == kind) {
            let before = fixed(object, labels);
            let mut mistakes: Vec<Mistake> = Vec::new();
            merge(object, &overlay.value, &mut mistakes);
            let changed = before.into_iter().filter(|(at, value)| object.pointer(at) != value.as_ref());
            mistakes
                .extend(changed.map(|(at, _)| (readable(&at), "is the controller's and cannot be changed".to_owned())));
            problems.extend(mistakes.into_iter().map(|(field, text)| {
                Problem::new(ProblemReason::Parameters, format!("{}: {field}", overlay.origin), text)
            }));
        }
    }
}

/// Returns true if a ConfigMap has defaults for the class of a Gateway.
fn is_default(map: &ConfigMap, gateway: &Gateway) -> bool {
    map.metadata.labels.get(GATEWAY_DEFAULTS_LABEL) == Some(&gateway.spec.gateway_class_name)
}

/// Values of the fields that have to stay, with their JSON pointers.
fn fixed(object: &Value, labels: &[&str]) -> Vec<(String, Option<Value>)> {
    let label = |place: &str, label: &&str| format!("{place}/{}", label.replace('~', "~0").replace('/', "~1"));
    let of = |place: &'static str| labels.iter().map(move |name| label(place, name));
    let places = FIXED.iter().map(|at| (*at).to_owned());
    let places = places.chain(of("/metadata/labels")).chain(of("/spec/template/metadata/labels"));
    places.map(|at| (at.clone(), object.pointer(&at).cloned())).collect()
}

/// A JSON pointer as a path of fields.
fn readable(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
}
