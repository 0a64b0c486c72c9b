//! Checks of pods and their makers that go beyond the type of one field: what an API server refuses, and what decides a
//! pod's identity, network or steering and is not supported.

use serde_json::Value;

use crate::document::Step;
use crate::mistake::Mistake;
use kube_types::{Kind, LabelSelector, StringMap};

/// Mistakes of an object that is a pod or makes pods.
pub(crate) fn mistakes(kind: Kind, value: &Value) -> Vec<Mistake> {
    let Some(path) = kind.pod_spec() else {
        return Vec::new();
    };
    let mut mistakes = Vec::new();
    mistakes.extend(of_runtime(value, path));
    // A Job's selector is generated (`controller-uid`), so that manifests have none.
    if kind != Kind::Pod && kind != Kind::Job {
        mistakes.extend(of_selector(value));
    }
    mistakes
}

fn field(path: &[&str], name: &str) -> Vec<Step> {
    path.iter().copied().chain([name]).map(|name| Step::Field(name.to_owned())).collect()
}

/// A runtime with a kernel or a network of its own opens sockets that the node's kernel programs never see.
fn of_runtime(value: &Value, path: &[&str]) -> Option<Mistake> {
    let spec = path.iter().try_fold(value, |value, name| value.get(name))?;
    let class = spec.get("runtimeClassName")?.as_str().filter(|class| !class.is_empty())?;
    let message = format!("runtime class {class:?} is not supported: connections of its pods may bypass the mesh");
    Some(Mistake::value(field(path, "runtimeClassName"), message))
}

fn of_selector(value: &Value) -> Option<Mistake> {
    let part = |pointer| value.pointer(pointer).cloned();
    let labels =
        part("/spec/template/metadata/labels").and_then(|labels| serde_json::from_value::<StringMap>(labels).ok());
    let selector = part("/spec/selector").and_then(|selector| serde_json::from_value::<LabelSelector>(selector).ok());
    // Wrong types were refused by the schema before.
    let (labels, selector) = (labels.unwrap_or_default(), selector.unwrap_or_default());
    let path = field(&["spec"], "selector");
    if selector == LabelSelector::default() {
        return Some(Mistake::value(path, "missing: it has to select the labels of the template"));
    }
    (!selector.matches(&labels))
        .then(|| Mistake::value(path, "does not select the labels of the template (spec.template.metadata.labels)"))
}
