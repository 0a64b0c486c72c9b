//! Names of resources: kind, namespace and name. It knows nothing of contents. The facts of each kind are in `kinds`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kinds::{Kind, KindScope};

impl Kind {
    /// The name as in the `kind` field.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// The `apiVersion` written for new objects.
    pub const fn api_version(self) -> &'static str {
        self.facts().api_version
    }

    /// Returns true if objects of this version of the group are read.
    pub fn has_version(self, version: &str) -> bool {
        let preferred = self.api_version().rsplit('/').next();
        // Objects of older versions are read as the newest: the fields that are read are the same in all of them.
        preferred == Some(version) || self.facts().also.contains(&version)
    }

    /// Versions of the group that are read, the one for new objects first.
    pub fn versions(self) -> impl Iterator<Item = &'static str> {
        self.api_version().rsplit('/').take(1).chain(self.facts().also.iter().copied())
    }

    /// The name in the paths of the API, for instance `pods`.
    pub const fn plural(self) -> &'static str {
        self.facts().plural
    }

    /// Path of the specification of the pod that the object is, or of the pods that it makes.
    pub fn pod_spec(self) -> Option<&'static [&'static str]> {
        Some(self.facts().pod_spec).filter(|path| !path.is_empty())
    }

    /// Returns true if objects of this kind live in namespaces.
    pub fn is_namespaced(self) -> bool {
        self.facts().scope == KindScope::Namespaced
    }

    /// Returns true if an empty field of the specification is an error, because it would widen a policy.
    pub const fn is_strict(self) -> bool {
        self.facts().strict
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kind that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported kind {0:?}")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The group is not a part of the text: names of kinds that are read are unique among each other.
        Self::ALL.iter().copied().find(|kind| kind.name() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Key of an object. Ordered by kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    pub name: String,
}

impl ObjectRef {
    /// Key of a namespaced object, or of a cluster-scoped one with `namespace` empty.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// `namespace/name`, or the name alone when cluster-scoped.
    pub fn path(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path())
    }
}

/// Name of the cluster that a resource comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(Arc<str>);

impl ClusterId {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterId {
    /// `Kubernetes`, Istio's default.
    fn default() -> Self {
        Self::new("Kubernetes")
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_name_and_its_versions() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            assert!(kind.has_version("v1") && !kind.has_version("v2"), "{kind}");
        }
        assert_eq!((Kind::Job.group(), Kind::Job.api_version(), Kind::Job.plural()), ("batch", "batch/v1", "jobs"));
        assert_eq!((Kind::Pod.group(), Kind::Pod.api_version()), ("", "v1"));
        assert_eq!(Kind::PeerAuthentication.versions().collect::<Vec<_>>(), ["v1", "v1beta1"]);
        assert_eq!(Kind::Pod.versions().collect::<Vec<_>>(), ["v1"]);
        assert!(Kind::PeerAuthentication.has_version("v1beta1") && !Kind::Pod.has_version("v1beta1"));
        assert!(Kind::Pod.is_namespaced() && !Kind::Node.is_namespaced());
        assert_eq!(Kind::Deployment.pod_spec(), Some(&["spec", "template", "spec"][..]));
        assert_eq!(Kind::Service.pod_spec(), None);
    }
}
