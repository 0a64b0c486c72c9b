//! Kubernetes' own kinds, as far as a mesh or the lab reads them. Fields that are not here are skipped.

mod config_map;
mod endpoint_slice;
mod namespace;
mod node;
mod pod;
mod probe;
mod service;
mod workloads;

pub use config_map::{ConfigMap, ServiceAccount};
pub use endpoint_slice::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL, TargetRef};
pub use namespace::Namespace;
pub use node::{Node, NodeAddress, NodeSpec, NodeStatus};
pub use pod::{
    Condition, ConfigMapVolume, Container, ContainerPort, EnvVar, EnvVarSource, FieldRef, HostIp, KeyToPath, Pod,
    PodIp, PodSpec, PodStatus, SecretVolume, SecurityContext, Volume, VolumeMount,
};
pub use probe::{ExecAction, HttpGetAction, HttpHeader, Probe, TcpSocketAction};
pub use service::{IntOrString, Service, ServicePort, ServiceSpec};
pub use workloads::{DaemonSet, Deployment, Job, JobSpec, PodTemplate, ScaledSpec, StatefulSet};
