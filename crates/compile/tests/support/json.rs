//! Discovery messages as canonical protobuf JSON: defaults left out, enums by name, bytes in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::security::string_match::MatchType;
use proto::security::{self, Authorization, Match, StringMatch};
use proto::workload::address::Type;
use proto::workload::gateway_address::Destination;
use proto::workload::{self, Address, GatewayAddress, NetworkAddress, Port, PortList, Service, Workload};
use serde_json::{Map, Value, json};

/// Fields that are not defaults.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, name: &str, value: Value) -> &mut Self {
        let is_default = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(value) => value.as_u64() == Some(0),
            Value::String(value) => value.is_empty(),
            Value::Array(value) => value.is_empty(),
            Value::Object(_) => false,
        };
        if !is_default {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    /// An enum: the first name is the default.
    fn name(&mut self, field: &str, name: &str, default: &str) -> &mut Self {
        if name != default {
            self.set(field, name.into());
        }
        self
    }

    fn value(&mut self) -> Value {
        Value::Object(std::mem::take(&mut self.0))
    }
}

pub(crate) fn address(bytes: &[u8]) -> Value {
    match Address::decode(bytes).unwrap().r#type.unwrap() {
        Type::Workload(workload) => json!({"workload": from_workload(&workload)}),
        Type::Service(service) => json!({"service": from_service(&service)}),
    }
}

fn bytes(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

fn from_workload(w: &Workload) -> Value {
    let services: Map<_, _> = w.services.iter().map(|(name, ports)| (name.clone(), port_list(ports))).collect();
    let locality = w.locality.as_ref().map(|locality| {
        Fields::default()
            .set("region", locality.region.as_str().into())
            .set("zone", locality.zone.as_str().into())
            .set("subzone", locality.subzone.as_str().into())
            .value()
    });
    let mut fields = Fields::default();
    fields
        .set("uid", w.uid.as_str().into())
        .set("name", w.name.as_str().into())
        .set("namespace", w.namespace.as_str().into())
        .set("addresses", w.addresses.iter().map(|address| bytes(address)).collect())
        .set("hostname", w.hostname.as_str().into())
        .set("network", w.network.as_str().into())
        .name("tunnelProtocol", w.tunnel_protocol().as_str_name(), "NONE")
        .set("trustDomain", w.trust_domain.as_str().into())
        .set("serviceAccount", w.service_account.as_str().into())
        .set("node", w.node.as_str().into())
        .set("canonicalName", w.canonical_name.as_str().into())
        .set("canonicalRevision", w.canonical_revision.as_str().into())
        .name("workloadType", w.workload_type().as_str_name(), "DEPLOYMENT")
        .set("workloadName", w.workload_name.as_str().into())
        .set("authorizationPolicies", json!(w.authorization_policies))
        .name("status", w.status().as_str_name(), "HEALTHY")
        .set("clusterId", w.cluster_id.as_str().into())
        .set("locality", locality.unwrap_or_default())
        .name("networkMode", w.network_mode().as_str_name(), "STANDARD");
    if !services.is_empty() {
        fields.set("services", Value::Object(services));
    }
    fields
        .set("nativeTunnel", w.native_tunnel.into())
        .set("waypoint", w.waypoint.as_ref().map(gateway).unwrap_or_default())
        .set("capacity", w.capacity.map(Value::from).unwrap_or_default());
    assert!(w.network_gateway.is_none() && w.application_tunnel.is_none());
    fields.value()
}

fn from_service(s: &Service) -> Value {
    let weighted = s.weighted_waypoints.iter().map(|weighted| {
        Fields::default()
            .set("destination", weighted.destination.as_ref().map(gateway).unwrap_or_default())
            .set("weight", weighted.weight.into())
            .value()
    });
    let balancing = s.load_balancing.as_ref().map(|balancing| {
        Fields::default()
            .set("routingPreference", balancing.routing_preference().map(|scope| scope.as_str_name()).collect())
            .name("mode", balancing.mode().as_str_name(), "UNSPECIFIED_MODE")
            .name("healthPolicy", balancing.health_policy().as_str_name(), "ONLY_HEALTHY")
            .value()
    });
    Fields::default()
        .set("name", s.name.as_str().into())
        .set("namespace", s.namespace.as_str().into())
        .set("hostname", s.hostname.as_str().into())
        .set("addresses", s.addresses.iter().map(network_address).collect())
        .set("ports", s.ports.iter().map(port).collect())
        .set("loadBalancing", balancing.unwrap_or_default())
        .name("ipFamilies", s.ip_families().as_str_name(), "AUTOMATIC")
        .set("subjectAltNames", json!(s.subject_alt_names))
        .set("waypoint", s.waypoint.as_ref().map(gateway).unwrap_or_default())
        .set("canonical", s.canonical.into())
        .set("ingressUseWaypoint", s.ingress_use_waypoint.into())
        .set("weightedWaypoints", weighted.collect())
        .name("visibility", s.visibility().as_str_name(), "PUBLIC")
        .value()
}

fn network_address(address: &NetworkAddress) -> Value {
    Fields::default()
        .set("network", address.network.as_str().into())
        .set("address", bytes(&address.address))
        .set("length", address.length.map(Value::from).unwrap_or_default())
        .value()
}

fn gateway(gateway: &GatewayAddress) -> Value {
    let mut fields = Fields::default();
    match gateway.destination.as_ref().unwrap() {
        Destination::Hostname(name) => {
            fields.set("hostname", json!({"namespace": name.namespace, "hostname": name.hostname}))
        }
        Destination::Address(address) => fields.set("address", network_address(address)),
    };
    fields.set("hboneMtlsPort", gateway.hbone_mtls_port.into()).value()
}

fn port_list(ports: &PortList) -> Value {
    Fields::default().set("ports", ports.ports.iter().map(port).collect()).value()
}

fn port(port: &Port) -> Value {
    Fields::default()
        .set("servicePort", port.service_port.into())
        .set("targetPort", port.target_port.into())
        .name("appProtocol", port.app_protocol().as_str_name(), workload::AppProtocol::Unknown.as_str_name())
        .value()
}

/// Rules are called groups and clauses rules, as in Istio's copy of the message.
pub(crate) fn authorization(bytes: &[u8]) -> Value {
    let policy = Authorization::decode(bytes).unwrap();
    let groups = policy.rules.iter().map(|rule| {
        let clauses = rule.clauses.iter().map(|clause| {
            let matches = clause.matches.iter().map(from_match).collect();
            Fields::default().set("matches", matches).value()
        });
        Fields::default().set("rules", clauses.collect()).value()
    });
    Fields::default()
        .set("name", policy.name.as_str().into())
        .set("namespace", policy.namespace.as_str().into())
        .name("scope", policy.scope().as_str_name(), "GLOBAL")
        .name("action", policy.action().as_str_name(), "ALLOW")
        .set("groups", groups.collect())
        .set("dryRun", policy.dry_run.into())
        .value()
}

fn from_match(part: &Match) -> Value {
    let texts = |list: &[StringMatch]| list.iter().map(text).collect::<Value>();
    let blocks = |list: &[security::Address]| list.iter().map(block).collect::<Value>();
    let accounts = |list: &[security::ServiceAccountMatch]| {
        list.iter()
            .map(|account| json!({"namespace": account.namespace, "serviceAccount": account.service_account}))
            .collect::<Value>()
    };
    Fields::default()
        .set("namespaces", texts(&part.namespaces))
        .set("notNamespaces", texts(&part.not_namespaces))
        .set("principals", texts(&part.principals))
        .set("notPrincipals", texts(&part.not_principals))
        .set("sourceIps", blocks(&part.source_ips))
        .set("notSourceIps", blocks(&part.not_source_ips))
        .set("destinationIps", blocks(&part.destination_ips))
        .set("notDestinationIps", blocks(&part.not_destination_ips))
        .set("destinationPorts", json!(part.destination_ports))
        .set("notDestinationPorts", json!(part.not_destination_ports))
        .set("serviceAccounts", accounts(&part.service_accounts))
        .set("notServiceAccounts", accounts(&part.not_service_accounts))
        .value()
}

fn text(text: &StringMatch) -> Value {
    match text.match_type.as_ref().unwrap() {
        MatchType::Exact(text) => json!({"exact": text}),
        MatchType::Prefix(text) => json!({"prefix": text}),
        MatchType::Suffix(text) => json!({"suffix": text}),
        MatchType::Presence(()) => json!({"presence": {}}),
    }
}

fn block(block: &security::Address) -> Value {
    Fields::default().set("address", bytes(&block.address)).set("length", block.length.into()).value()
}
