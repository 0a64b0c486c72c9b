//! Kinds that make pods: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job.

use serde::{Deserialize, Serialize};

use super::container::ClaimTemplate;
use super::pod::PodSpec;
use crate::meta::{LabelSelector, ObjectMeta};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Deployment {
    pub metadata: ObjectMeta,
    pub spec: ScaledSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicaSet {
    pub metadata: ObjectMeta,
    pub spec: ScaledSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSet {
    pub metadata: ObjectMeta,
    pub spec: ScaledSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSet {
    pub metadata: ObjectMeta,
    /// `replicas` means nothing here.
    pub spec: ScaledSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Job {
    pub metadata: ObjectMeta,
    pub spec: JobSpec,
}

/// Fields that the kinds which keep pods running have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ScaledSpec {
    /// Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    // Has to match the template (API); immutable in `apps/v1`.
    pub selector: LabelSelector,
    pub template: PodTemplate,
    /// StatefulSet: the headless Service that names its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// StatefulSet: a claim of each pod's own for each of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<ClaimTemplate>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobSpec {
    // Absent: the first pod that succeeds completes the Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions: Option<u32>,
    /// Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// Absent: 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<u32>,
    /// Nothing is started while it is set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    pub template: PodTemplate,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodTemplate {
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
}
