//! Waypoints: the objects that a cluster's control plane makes for a Gateway, made by the lab from the same description.

use std::collections::BTreeSet;

use kube_types::core::ConfigMap;
use kube_types::gateway::{Gateway, GatewayClass};
use kube_types::{Kind, ObjectRef, Resource};
use serde_json::{Value, json};
use waypoint_manifests::{
    CLASS, CONTROLLER_NAME, ISTIO_CLASS, ISTIO_CONTROLLER_NAME, Overlays, PROGRAM, Part, PartKind, Settings,
    is_unmanaged, names, render,
};

use super::{Mesh, SYSTEM_NAMESPACE, differences::with_variable, manifests};
use crate::{validate, workloads::Objects};

/// Objects of all waypoints of a lab.
#[derive(Debug, Default)]
pub(crate) struct Waypoints {
    pub(crate) objects: Objects,
    /// Namespace and name of the ServiceAccounts of their pods: each has a token.
    pub(crate) accounts: BTreeSet<(String, String)>,
    pub(crate) problems: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Mesh {
    /// The objects of the waypoints that the manifests have Gateways for.
    pub(crate) fn waypoints(&self, objects: &Objects) -> Waypoints {
        let mut waypoints = Waypoints::default();
        let gateways = objects.values().filter_map(|resource| match resource {
            Resource::Gateway(gateway) => Some(gateway.as_ref()),
            _ => None,
        });
        for gateway in gateways.filter(|gateway| is_ours(gateway, objects) && !is_unmanaged(gateway)) {
            if let Err(problems) = self.add_waypoint(gateway, objects, &mut waypoints) {
                let (namespace, name) = (&gateway.metadata.namespace, &gateway.metadata.name);
                waypoints.problems.extend(problems.iter().map(|text| format!("Gateway {namespace}/{name}: {text}")));
            }
        }
        waypoints
    }

    /// Adds all objects of a waypoint, or none.
    fn add_waypoint(&self, gateway: &Gateway, objects: &Objects, waypoints: &mut Waypoints) -> Result<(), Vec<String>> {
        let texts = |problems: Vec<waypoint_manifests::Problem>| -> Vec<String> {
            problems.iter().map(ToString::to_string).collect()
        };
        let overlays = overlays(gateway, objects).map_err(texts)?;
        let parts = render(gateway, &overlays, &self.waypoint_settings()).map_err(texts)?;
        let (mut made, mut problems) = (Vec::new(), Vec::new());
        for Part { kind, object } in parts {
            let document = match kind {
                PartKind::ServiceAccount | PartKind::Service => object,
                PartKind::Deployment => self.waypoint_in_lab(object, gateway),
                // Nodes of a lab are not drained.
                PartKind::PodDisruptionBudget => continue,
                PartKind::HorizontalPodAutoscaler => {
                    let (namespace, name) = (&gateway.metadata.namespace, &gateway.metadata.name);
                    let text = "horizontalPodAutoscaler is not supported in the lab: the number of pods is that of the Deployment";
                    waypoints.notes.push(format!("Gateway {namespace}/{name}: {text}"));
                    continue;
                }
            };
            let resource = manifests::read(document).map_err(|err| vec![err.to_string()])?;
            let key = resource.key();
            if objects.contains_key(&key) || waypoints.objects.contains_key(&key) {
                problems.push(format!("{key} exists and was not made for this Gateway"));
            }
            problems.extend(validate::mistakes(&resource).into_iter().map(|mistake| format!("{key}: {mistake}")));
            made.push(resource);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        waypoints.objects.extend(made.into_iter().map(|resource| (resource.key(), resource)));
        waypoints.accounts.insert((gateway.metadata.namespace.clone(), names(gateway).account));
        Ok(())
    }

    fn waypoint_settings(&self) -> Settings {
        Settings {
            // There are no images: the program is the one of `--bin-dir`.
            image: PROGRAM.to_owned(),
            image_pull_policy: "Never".to_owned(),
            image_pull_secrets: Vec::new(),
            control_address: format!("https://strake-control.{SYSTEM_NAMESPACE}.svc:{}", contract::ports::CONTROL_GRPC),
            // The defaults of the control plane's flags.
            cluster_id: "Kubernetes".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            env: Vec::new(),
        }
    }

    /// A waypoint's Deployment with the paths of the lab; as for the mesh's other programs (`differences`).
    fn waypoint_in_lab(&self, mut deployment: Value, gateway: &Gateway) -> Value {
        let account = names(gateway).account;
        let own = self.options.program_env.get(PROGRAM).into_iter().flatten();
        let given: Vec<_> = self.options.env.iter().chain(own).collect();
        let root = self.authority().join("root-cert.pem").display().to_string();
        let token = self.waypoint_token(&gateway.metadata.namespace, &account).display().to_string();
        let Some(pod) = deployment.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut) else {
            return deployment;
        };
        // Files are this machine's, and root's.
        for field in ["securityContext", "automountServiceAccountToken", "nodeSelector"] {
            pod.remove(field);
        }
        pod.insert("terminationGracePeriodSeconds".to_owned(), json!(5));
        if let Some(Value::Array(volumes)) = pod.get_mut("volumes") {
            volumes.retain(|volume| !OWN_VOLUMES.iter().any(|own| volume["name"] == *own));
        }
        for container in pod.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
            if container["name"] != PROGRAM {
                continue;
            }
            container["command"] = json!([self.program(PROGRAM)]);
            container["readinessProbe"]["periodSeconds"] = json!(1);
            if let Some(Value::Array(mounts)) = container.get_mut("volumeMounts") {
                mounts.retain(|mount| !OWN_VOLUMES.iter().any(|own| mount["name"] == *own));
            }
            if let Some(fields) = container.as_object_mut() {
                fields.remove("securityContext");
            }
            let paths = [("AUTH_TOKEN", &token), ("XDS_ROOT_CA", &root), ("CA_ROOT_CA", &root)];
            for (name, value) in given.iter().map(|(name, value)| (name.as_str(), *value)).chain(paths) {
                *container = with_variable(container.take(), name, value);
            }
            *container = with_variable(container.take(), "TERMINATION_GRACE_PERIOD_SECONDS", "5");
        }
        deployment
    }
}

/// Volumes of a waypoint's pod that are files of this machine in a lab.
const OWN_VOLUMES: [&str; 2] = ["root-certificate", "token"];

/// Returns true if the Gateway is a waypoint of the mesh. Nobody but the lab's own control plane reads a directory, so that
/// Istio's class is its, too.
fn is_ours(gateway: &Gateway, objects: &Objects) -> bool {
    let name = &gateway.spec.gateway_class_name;
    match objects.get(&ObjectRef::new(Kind::GatewayClass, "", name)) {
        Some(Resource::GatewayClass(class)) => is_our_class(class),
        _ => [CLASS, ISTIO_CLASS].contains(&name.as_str()),
    }
}

fn is_our_class(class: &GatewayClass) -> bool {
    match class.spec.controller_name.as_str() {
        CONTROLLER_NAME => true,
        ISTIO_CONTROLLER_NAME => class.metadata.name == ISTIO_CLASS,
        _ => false,
    }
}

fn overlays(gateway: &Gateway, objects: &Objects) -> Result<Overlays, Vec<waypoint_manifests::Problem>> {
    let maps = objects.values().filter_map(|resource| match resource {
        Resource::ConfigMap(map) => Some(map.as_ref()),
        _ => None,
    });
    let maps: Vec<&ConfigMap> = maps.collect();
    let defaults = maps.iter().filter(|map| map.metadata.namespace == SYSTEM_NAMESPACE);
    let defaults: Vec<ConfigMap> = defaults.map(|map| (*map).clone()).collect();
    let is_own = |map: &&&ConfigMap, name: &str| {
        map.metadata.namespace == gateway.metadata.namespace && map.metadata.name == name
    };
    Overlays::of(gateway, &defaults, |name| maps.iter().find(|map| is_own(map, name)).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::mesh;

    fn objects(documents: &[(Kind, Value)]) -> Objects {
        let read = |(kind, value): &(Kind, Value)| Resource::from_value(*kind, value.clone()).unwrap();
        documents.iter().map(read).map(|resource| (resource.key(), resource)).collect()
    }

    fn gateway(class: &str) -> (Kind, Value) {
        let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
        let spec = json!({"gatewayClassName": class, "listeners": [listener]});
        (Kind::Gateway, json!({"metadata": {"name": "waypoint", "namespace": "shop"}, "spec": spec}))
    }

    fn keys(waypoints: &Waypoints) -> Vec<String> {
        waypoints.objects.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_gateway_has_the_objects_of_a_cluster_with_paths_of_the_lab() {
        let mesh = mesh();

        let waypoints = mesh.waypoints(&objects(&[gateway("strake-waypoint")]));

        assert_eq!(
            keys(&waypoints),
            ["ServiceAccount shop/waypoint", "Service shop/waypoint", "Deployment shop/waypoint"]
        );
        assert!(waypoints.accounts.contains(&("shop".to_owned(), "waypoint".to_owned())));
        let deployment = &waypoints.objects[&ObjectRef::new(Kind::Deployment, "shop", "waypoint")];
        let spec = &deployment.pod_template().unwrap().spec;
        let container = &spec.containers[0];
        assert_eq!(container.command, ["/bin/waypoint"]);
        assert!(spec.volumes.is_empty() && container.volume_mounts.is_empty());
        let value = |name: &str| {
            let found = container.env.iter().find(|variable| variable.name == name);
            found.and_then(|variable| variable.value.clone()).unwrap_or_default()
        };
        assert_eq!(value("AUTH_TOKEN"), mesh.waypoint_token("shop", "waypoint").display().to_string());
        assert_eq!(value("XDS_ADDRESS"), "https://strake-control.istio-system.svc:15012");
        assert_eq!(value("RUST_LOG"), "debug", "an option of the lab");
    }

    #[test]
    fn classes_of_others_are_left_alone_and_istios_is_the_labs() {
        let class = |controller: &str| {
            (
                Kind::GatewayClass,
                json!({"metadata": {"name": "istio-waypoint"}, "spec": {"controllerName": controller}}),
            )
        };
        let made = |documents: &[(Kind, Value)]| mesh().waypoints(&objects(documents)).objects.len();

        assert_eq!(made(&[gateway("other")]), 0);
        assert_eq!(made(&[gateway("istio-waypoint")]), 3);
        assert_eq!(made(&[gateway("istio-waypoint"), class("istio.io/mesh-controller")]), 3);
        assert_eq!(made(&[gateway("istio-waypoint"), class("example.org/other")]), 0);
    }

    #[test]
    fn an_object_of_the_user_is_not_replaced() {
        let service = (Kind::Service, json!({"metadata": {"name": "waypoint", "namespace": "shop"}, "spec": {}}));

        let waypoints = mesh().waypoints(&objects(&[gateway("strake-waypoint"), service]));

        assert_eq!(keys(&waypoints), [""; 0]);
        assert_eq!(
            waypoints.problems,
            ["Gateway shop/waypoint: Service shop/waypoint exists and was not made for this Gateway"]
        );
    }

    #[test]
    fn overlays_come_from_the_manifests() {
        let (kind, mut value) = gateway("strake-waypoint");
        value["spec"]["infrastructure"] = json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": "own"}});
        let map =
            |data: Value| (Kind::ConfigMap, json!({"metadata": {"name": "own", "namespace": "shop"}, "data": data}));
        let with = |data: Value| mesh().waypoints(&objects(&[(kind, value.clone()), map(data)]));

        let two =
            with(json!({"deployment": "spec: {replicas: 2}", "horizontalPodAutoscaler": "spec: {maxReplicas: 3}"}));
        let wrong = with(
            json!({"deployment": "spec: {template: {spec: {containers: [{name: waypoint, volumeMounts: [{name: x, mountPath: /x}]}]}}}"}),
        );

        assert_eq!((two.objects.len(), two.notes.len(), two.problems.len()), (3, 1, 0));
        assert_eq!(wrong.objects.len(), 0);
        assert!(wrong.problems[0].contains("Deployment shop/waypoint"), "{:?}", wrong.problems);
    }
}
