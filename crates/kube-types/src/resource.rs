//! One object of any kind that is read.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::address;
use crate::core::{
    ConfigMap, DaemonSet, Deployment, EndpointSlice, Job, Namespace, Node, PersistentVolumeClaim, Pod, ReplicaSet,
    Secret, Service, ServiceAccount, StatefulSet,
};
use crate::istio::{AuthorizationPolicy, PeerAuthentication};
use crate::kind::{Kind, ObjectRef};
use crate::meta::ObjectMeta;

/// A typed object, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    ServiceAccount(Arc<ServiceAccount>),
    ConfigMap(Arc<ConfigMap>),
    Secret(Arc<Secret>),
    PersistentVolumeClaim(Arc<PersistentVolumeClaim>),
    PeerAuthentication(Arc<PeerAuthentication>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    Service(Arc<Service>),
    Deployment(Arc<Deployment>),
    ReplicaSet(Arc<ReplicaSet>),
    StatefulSet(Arc<StatefulSet>),
    DaemonSet(Arc<DaemonSet>),
    Job(Arc<Job>),
    Pod(Arc<Pod>),
    EndpointSlice(Arc<EndpointSlice>),
}

/// Runs one expression on the object of whatever kind.
macro_rules! each {
    ($resource:expr, $object:ident => $expression:expr) => {
        match $resource {
            Resource::Namespace($object) => $expression,
            Resource::Node($object) => $expression,
            Resource::ServiceAccount($object) => $expression,
            Resource::ConfigMap($object) => $expression,
            Resource::Secret($object) => $expression,
            Resource::PersistentVolumeClaim($object) => $expression,
            Resource::PeerAuthentication($object) => $expression,
            Resource::AuthorizationPolicy($object) => $expression,
            Resource::Service($object) => $expression,
            Resource::Deployment($object) => $expression,
            Resource::ReplicaSet($object) => $expression,
            Resource::StatefulSet($object) => $expression,
            Resource::DaemonSet($object) => $expression,
            Resource::Job($object) => $expression,
            Resource::Pod($object) => $expression,
            Resource::EndpointSlice($object) => $expression,
        }
    };
}

impl Resource {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Secret(_) => Kind::Secret,
            Self::PersistentVolumeClaim(_) => Kind::PersistentVolumeClaim,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::Service(_) => Kind::Service,
            Self::Deployment(_) => Kind::Deployment,
            Self::ReplicaSet(_) => Kind::ReplicaSet,
            Self::StatefulSet(_) => Kind::StatefulSet,
            Self::DaemonSet(_) => Kind::DaemonSet,
            Self::Job(_) => Kind::Job,
            Self::Pod(_) => Kind::Pod,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
        }
    }

    pub fn meta(&self) -> &ObjectMeta {
        each!(self, object => &object.metadata)
    }

    pub fn key(&self) -> ObjectRef {
        let meta = self.meta();
        ObjectRef::new(self.kind(), meta.namespace.clone(), meta.name.clone())
    }

    /// The object as a manifest, with `apiVersion` and `kind`: only the fields that are read.
    pub fn to_value(&self) -> Value {
        let kind = self.kind();
        let mut value = each!(self, object => serde_json::to_value(object.as_ref())).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.insert("apiVersion".to_owned(), kind.api_version().into());
            fields.insert("kind".to_owned(), kind.name().into());
        }
        value
    }

    /// Reads an object of a kind that is known. Fields that nobody reads are skipped, those that are
    /// `null` count as absent. `manifests` names mistakes better.
    pub fn from_value(kind: Kind, mut value: Value) -> Result<Self, serde_json::Error> {
        strip_nulls(&mut value);
        Self::complete(kind, &mut value);
        Self::read(kind, &value)
    }

    /// Fills in what an API server fills in before it stores an object, as far as it is read here: `serviceAccountName`
    /// from its former name `serviceAccount`. Addresses become canonical.
    pub fn complete(kind: Kind, value: &mut Value) {
        let pod = kind.pod_spec().and_then(|path| path.iter().try_fold(&mut *value, |value, name| value.get_mut(name)));
        if let Some(Value::Object(spec)) = pod
            && let Some(former) = spec.remove("serviceAccount")
            && spec.get("serviceAccountName").is_none_or(|name| name == "")
        {
            spec.insert("serviceAccountName".to_owned(), former);
        }
        address::canonicalise(kind, value);
    }

    /// Reads an object from any deserializer.
    pub fn read<'de, D: Deserializer<'de>>(kind: Kind, from: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Kind::Namespace => Self::Namespace(Deserialize::deserialize(from)?),
            Kind::Node => Self::Node(Deserialize::deserialize(from)?),
            Kind::ServiceAccount => Self::ServiceAccount(Deserialize::deserialize(from)?),
            Kind::ConfigMap => Self::ConfigMap(Deserialize::deserialize(from)?),
            Kind::Secret => Self::Secret(Deserialize::deserialize(from)?),
            Kind::PersistentVolumeClaim => Self::PersistentVolumeClaim(Deserialize::deserialize(from)?),
            Kind::PeerAuthentication => Self::PeerAuthentication(Deserialize::deserialize(from)?),
            Kind::AuthorizationPolicy => Self::AuthorizationPolicy(Deserialize::deserialize(from)?),
            Kind::Service => Self::Service(Deserialize::deserialize(from)?),
            Kind::Deployment => Self::Deployment(Deserialize::deserialize(from)?),
            Kind::ReplicaSet => Self::ReplicaSet(Deserialize::deserialize(from)?),
            Kind::StatefulSet => Self::StatefulSet(Deserialize::deserialize(from)?),
            Kind::DaemonSet => Self::DaemonSet(Deserialize::deserialize(from)?),
            Kind::Job => Self::Job(Deserialize::deserialize(from)?),
            Kind::Pod => Self::Pod(Deserialize::deserialize(from)?),
            Kind::EndpointSlice => Self::EndpointSlice(Deserialize::deserialize(from)?),
        })
    }
}

/// Removes entries that are `null`: Kubernetes treats them as absent.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
