//! Metadata that every object has, and the selectors that refer to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Labels or annotations.
pub type StringMap = BTreeMap<String, String>;

/// The part of `metadata` that is read. `namespace` is empty for cluster-scoped objects and filled
/// with `default` where a manifest leaves it out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    // Empty in manifests that no API server has stored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: StringMap,
    /// RFC 3339 in UTC, so that text order is time order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set while the object is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    // Rises with each change of the specification, not of the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

impl ObjectMeta {
    /// The owner that manages this object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        // The API allows one controller at most.
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: bool,
}

/// A label selector of workload kinds. An empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: StringMap,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelSelectorRequirement {
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl LabelSelector {
    /// Returns true if the selector admits these labels. A requirement with an unknown operator admits nothing.
    pub fn matches(&self, labels: &StringMap) -> bool {
        is_subset(&self.match_labels, labels)
            && self.match_expressions.iter().all(|want| {
                let have = labels.get(&want.key);
                match want.operator.as_str() {
                    "In" => have.is_some_and(|value| want.values.contains(value)),
                    // As in the API: an object without the label is not in the list either.
                    "NotIn" => have.is_none_or(|value| !want.values.contains(value)),
                    "Exists" => have.is_some(),
                    "DoesNotExist" => have.is_none(),
                    _ => false,
                }
            })
    }
}

/// Returns true if all pairs of `wanted` are among `labels`.
pub fn is_subset(wanted: &StringMap, labels: &StringMap) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
