//! Kubernetes' own kinds, as far as a mesh or the lab reads them. Fields that are not here are skipped.

mod config_map;
mod container;
mod endpoint_slice;
mod namespace;
mod node;
mod pod;
mod probe;
mod scheduling;
mod service;
mod volume;
mod workloads;

pub use config_map::{ConfigMap, PersistentVolumeClaim, Secret, SecretMap, SecretText, ServiceAccount};
pub use container::{
    ClaimTemplate, ClaimTemplateMeta, EnvFromRef, EnvFromSource, HostAlias, KeySelector, Lifecycle, LifecycleHandler,
    PodDnsConfig, PodDnsOption, Quantity, ResourceFieldRef, ResourceRequirements, SleepAction,
};
pub use endpoint_slice::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice, TargetRef};
pub use namespace::Namespace;
pub use node::{Node, NodeAddress, NodeSpec, NodeStatus};
pub use pod::{
    Condition, ConditionStatus, Container, ContainerPort, EnvVar, EnvVarSource, FieldRef, HostIp, Pod, PodIp, PodSpec,
    PodStatus, SecurityContext,
};
pub use probe::{ExecAction, GrpcAction, HttpGetAction, HttpHeader, Probe, TcpSocketAction};
pub use scheduling::{Affinity, NodeAffinity, NodeSelector, NodeSelectorTerm, PodAffinity, Taint, Toleration};
pub use service::{IntOrString, Service, ServicePort, ServiceSpec, ServiceStatus};
pub use volume::{
    ClaimVolume, ConfigMapVolume, DownwardApiFile, DownwardApiVolume, EmptyDirVolume, EphemeralVolume, HostPathVolume,
    KeyToPath, ProjectedKeys, ProjectedVolume, Projection, SecretVolume, ServiceAccountToken, Volume, VolumeMount,
};
pub use workloads::{DaemonSet, Deployment, Job, JobSpec, PodTemplate, ReplicaSet, ScaledSpec, StatefulSet};
