//! The objects of a waypoint before overlays.

use contract::labels::{
    CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL, CONTROLLER_VERSION_ANNOTATION, DATAPLANE_MODE_LABEL,
    DATAPLANE_MODE_NONE, GATEWAY_CLASS_LABEL, GATEWAY_MANAGED_LABEL, GATEWAY_MANAGED_MESH, GATEWAY_NAME_LABEL,
    SIDECAR_INJECT, TRAFFIC_DISTRIBUTION_ANNOTATION,
};
use contract::manifests::{ROOTS_CONFIG_MAP, ROOTS_KEY};
use contract::ports;
use kube_types::StringMap;
use kube_types::gateway::Gateway;
use serde_json::{Map, Value, json};

use crate::render::Names;
use crate::settings::{SECURITY_ID, Settings};
use crate::{CONTROLLER_VERSION, PROGRAM};

/// Time from the request to end until the container is killed, in seconds. Connections may go on for 5 s less.
const GRACE_SECONDS: u32 = 30;

/// Kind of an object that a waypoint consists of, in the order in which they are applied: a pod needs its account first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartKind {
    ServiceAccount,
    Service,
    Deployment,
    PodDisruptionBudget,
    HorizontalPodAutoscaler,
}

/// An object of a waypoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub kind: PartKind,
    /// The whole object, with `apiVersion` and `kind`.
    pub object: Value,
}

impl PartKind {
    /// Every kind, in order.
    pub const ALL: [Self; 5] = [
        Self::ServiceAccount,
        Self::Service,
        Self::Deployment,
        Self::PodDisruptionBudget,
        Self::HorizontalPodAutoscaler,
    ];

    /// The name as in the `kind` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
        }
    }

    /// The `apiVersion` of the objects.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::ServiceAccount | Self::Service => "v1",
            Self::Deployment => "apps/v1",
            Self::PodDisruptionBudget => "policy/v1",
            Self::HorizontalPodAutoscaler => "autoscaling/v2",
        }
    }

    /// The name in the paths of the API.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceaccounts",
            Self::Service => "services",
            Self::Deployment => "deployments",
            Self::PodDisruptionBudget => "poddisruptionbudgets",
            Self::HorizontalPodAutoscaler => "horizontalpodautoscalers",
        }
    }

    /// The kind that the overlay of this key is about.
    pub(crate) fn of_overlay(key: &str) -> Option<Self> {
        Some(match key {
            "serviceAccount" => Self::ServiceAccount,
            "service" => Self::Service,
            "deployment" => Self::Deployment,
            "podDisruptionBudget" => Self::PodDisruptionBudget,
            "horizontalPodAutoscaler" => Self::HorizontalPodAutoscaler,
            _ => return None,
        })
    }
}

impl Part {
    /// Name of the object.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Labels of every object that is made for a Gateway, by which its controller knows it as its own.
pub fn owner_labels(gateway: &Gateway) -> StringMap {
    let (name, class) = (&gateway.metadata.name, &gateway.spec.gateway_class_name);
    [(GATEWAY_MANAGED_LABEL, GATEWAY_MANAGED_MESH), (GATEWAY_NAME_LABEL, name), (GATEWAY_CLASS_LABEL, class)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Inputs that all parts share.
pub(crate) struct Base<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) names: &'a Names,
    pub(crate) settings: &'a Settings,
    pub(crate) service_type: &'a str,
}

impl Base<'_> {
    pub(crate) fn part(&self, kind: PartKind) -> Value {
        match kind {
            PartKind::ServiceAccount => self.service_account(),
            PartKind::Service => self.service(),
            PartKind::Deployment => self.deployment(),
            PartKind::PodDisruptionBudget => self.disruption_budget(),
            PartKind::HorizontalPodAutoscaler => self.autoscaler(),
        }
    }

    /// An object of a kind with everything that all parts have.
    fn object(&self, kind: PartKind, name: &str) -> Value {
        let meta = &self.gateway.metadata;
        let infrastructure = self.gateway.spec.infrastructure.clone().unwrap_or_default();
        let mut labels = infrastructure.labels;
        labels.extend(owner_labels(self.gateway));
        let mut annotations = infrastructure.annotations;
        annotations.insert(CONTROLLER_VERSION_ANNOTATION.to_owned(), CONTROLLER_VERSION.to_string());
        let mut object = json!({
            "apiVersion": kind.api_version(), "kind": kind.name(),
            "metadata": {"name": name, "namespace": meta.namespace, "labels": labels, "annotations": annotations},
        });
        // A manifest in a directory has no uid, and nothing collects garbage there.
        if !meta.uid.is_empty() {
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": meta.name, "uid": meta.uid,
                "controller": true, "blockOwnerDeletion": false,
            }]);
        }
        object
    }

    fn selector(&self) -> Value {
        json!({GATEWAY_NAME_LABEL: self.gateway.metadata.name})
    }

    fn service_account(&self) -> Value {
        let mut account = self.object(PartKind::ServiceAccount, &self.names.account);
        // The token for the control plane is projected; one for the API server is not needed.
        account["automountServiceAccountToken"] = json!(false);
        account
    }

    fn service(&self) -> Value {
        let mut service = self.object(PartKind::Service, &self.names.workload);
        service["metadata"]["annotations"][TRAFFIC_DISTRIBUTION_ANNOTATION] = json!("PreferClose");
        let status = json!({
            "name": "status-port", "port": ports::PROXY_READINESS, "protocol": "TCP", "appProtocol": "tcp",
        });
        let listeners = self.gateway.spec.listeners.iter().map(|listener| {
            let protocol = listener.protocol.to_lowercase();
            json!({"name": listener.name, "port": listener.port, "protocol": "TCP", "appProtocol": protocol})
        });
        let ports: Vec<_> = [status].into_iter().chain(listeners).collect();
        service["spec"] = json!({
            "type": self.service_type,
            "ipFamilyPolicy": "PreferDualStack",
            "selector": self.selector(),
            "ports": ports,
        });
        service
    }

    fn deployment(&self) -> Value {
        let mut deployment = self.object(PartKind::Deployment, &self.names.workload);
        let infrastructure = self.gateway.spec.infrastructure.clone().unwrap_or_default();
        let mut labels = infrastructure.labels;
        labels.extend(owner_labels(self.gateway));
        for (key, value) in [
            // A node proxy in front of it would send its connections to itself.
            (DATAPLANE_MODE_LABEL, DATAPLANE_MODE_NONE),
            (SIDECAR_INJECT, "false"),
            (CANONICAL_NAME_LABEL, &self.names.workload),
            (CANONICAL_REVISION_LABEL, "latest"),
        ] {
            labels.insert(key.to_owned(), value.to_owned());
        }
        let mut annotations = infrastructure.annotations;
        annotations.insert("prometheus.io/scrape".to_owned(), "true".to_owned());
        annotations.insert("prometheus.io/port".to_owned(), ports::PROXY_METRICS.to_string());
        // No `replicas`: it would undo `kubectl scale` and an autoscaler. The API server's default is 1.
        deployment["spec"] = json!({
            "selector": {"matchLabels": self.selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": self.pod()},
        });
        deployment
    }

    fn pod(&self) -> Value {
        let mut pod = json!({
            "serviceAccountName": self.names.account,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "securityContext": {
                "runAsUser": SECURITY_ID, "runAsGroup": SECURITY_ID, "runAsNonRoot": true, "fsGroup": SECURITY_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self.container()],
            "volumes": [
                {"name": "root-certificate", "configMap": {"name": ROOTS_CONFIG_MAP}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                    "path": "istio-token", "audience": "istio-ca", "expirationSeconds": 43200,
                }}]}},
            ],
        });
        if !self.settings.image_pull_secrets.is_empty() {
            let secrets = self.settings.image_pull_secrets.iter().map(|name| json!({"name": name}));
            pod["imagePullSecrets"] = secrets.collect();
        }
        pod
    }

    fn container(&self) -> Value {
        let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
        let ready = json!({"path": "/healthz/ready", "port": ports::PROXY_READINESS});
        json!({
            "name": PROGRAM,
            "image": self.settings.image,
            "imagePullPolicy": self.settings.image_pull_policy,
            "command": [format!("/usr/local/bin/{PROGRAM}")],
            "env": self.environment(),
            "ports": [
                port("mesh", ports::HBONE), port("metrics", ports::PROXY_METRICS), port("status-port", ports::PROXY_READINESS),
            ],
            "readinessProbe": {"httpGet": ready, "periodSeconds": 5},
            // A new waypoint is in use as soon as it can be.
            "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": 60},
            "resources": {
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "2", "memory": "1Gi"},
            },
            "securityContext": {
                "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "root-certificate", "mountPath": "/var/run/secrets/istio", "readOnly": true},
                {"name": "token", "mountPath": "/var/run/secrets/tokens", "readOnly": true},
            ],
        })
    }

    fn environment(&self) -> Vec<Value> {
        let Settings { control_address, cluster_id, trust_domain, .. } = self.settings;
        let roots = format!("/var/run/secrets/istio/{ROOTS_KEY}");
        let grace = GRACE_SECONDS.to_string();
        let texts = [
            ("XDS_ADDRESS", control_address.as_str()),
            ("CA_ADDRESS", control_address),
            ("XDS_ROOT_CA", &roots),
            ("CA_ROOT_CA", &roots),
            ("AUTH_TOKEN", "/var/run/secrets/tokens/istio-token"),
            ("ISTIO_META_CLUSTER_ID", cluster_id),
            ("TRUST_DOMAIN", trust_domain),
            (GRACE_VARIABLE, &grace),
        ];
        let fields = [
            ("NODE_NAME", "spec.nodeName"),
            ("POD_NAME", "metadata.name"),
            ("POD_NAMESPACE", "metadata.namespace"),
            ("INSTANCE_IP", "status.podIP"),
            ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ];
        let mut env: Vec<Value> = texts.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        env.extend(fields.map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})));
        // Threads as processors, rounded up.
        let limit = json!({"resourceFieldRef": {"resource": "limits.cpu"}});
        env.push(json!({"name": "WAYPOINT_CPU_LIMIT", "valueFrom": limit}));
        for (name, value) in &self.settings.env {
            env.retain(|variable| variable["name"] != name.as_str());
            env.push(json!({"name": name, "value": value}));
        }
        env
    }

    fn disruption_budget(&self) -> Value {
        let mut budget = self.object(PartKind::PodDisruptionBudget, &self.names.workload);
        budget["spec"] = json!({
            "maxUnavailable": 1,
            // A pod that is not ready serves nobody: it does not keep its node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": self.selector()},
        });
        budget
    }

    fn autoscaler(&self) -> Value {
        let mut scaler = self.object(PartKind::HorizontalPodAutoscaler, &self.names.workload);
        scaler["spec"] =
            json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.names.workload}});
        scaler
    }
}

/// Variable with `terminationGracePeriodSeconds` of the pod.
const GRACE_VARIABLE: &str = "TERMINATION_GRACE_PERIOD_SECONDS";

/// Makes the variable say what an overlay has made of the field.
pub(crate) fn tell_grace(deployment: &mut Value) {
    let Some(grace) = deployment.pointer("/spec/template/spec/terminationGracePeriodSeconds").cloned() else { return };
    let containers = deployment.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    let program = containers.into_iter().flatten().find(|container| container["name"] == PROGRAM);
    let Some(env) = program.and_then(|container| container["env"].as_array_mut()) else { return };
    let own = GRACE_SECONDS.to_string();
    for variable in env.iter_mut().filter(|variable| variable["name"] == GRACE_VARIABLE) {
        // Another value is the user's, who may know better.
        if variable["value"] == own.as_str() {
            variable["value"] = json!(grace.to_string());
        }
    }
}

/// Keys of the labels that an object and its pods have to keep.
pub(crate) fn kept_labels() -> Vec<&'static str> {
    vec![GATEWAY_MANAGED_LABEL, GATEWAY_NAME_LABEL, GATEWAY_CLASS_LABEL, DATAPLANE_MODE_LABEL]
}

/// Removes maps without fields, which the API server would not keep.
pub(crate) fn without_empty(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| value.as_object().is_none_or(|fields: &Map<_, _>| !fields.is_empty()));
    }
    object
}
