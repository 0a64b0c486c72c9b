//! Mesh configuration: key `mesh` of the ConfigMap `istio` in the root namespace, as Istio's installers write it. What is
//! not read, and what differs from the flags of the program, is a finding.

use std::collections::BTreeMap;

use contract::Unsupported;
use kube_types::core::ConfigMap;
use kube_types::similar::nearest;
use kube_types::{LabelSelector, ObjectRef, StringMap};
use serde::Deserialize;
use serde_json::Value;

use crate::finding::{Finding, Reason, Severity};
use crate::mesh::Mesh;
use crate::resolved::Visibility;

/// Name of the ConfigMap.
pub const MESH_CONFIG_MAP: &str = "istio";

/// Key of the configuration in the ConfigMap.
const KEY: &str = "mesh";

/// Keys that are read.
const READ: [&str; 5] =
    ["discoverySelectors", "rootNamespace", "serviceEntryVisibility", "trustDomain", "trustDomainAliases"];

/// Keys of Istio that have no effect here; others are typing errors.
const KNOWN: [&str; 43] = [
    "accessLogEncoding",
    "accessLogFile",
    "accessLogFormat",
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "connectTimeout",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultHttpRetryPolicy",
    "defaultProviders",
    "defaultServiceExportTo",
    "defaultTrafficPolicy",
    "defaultVirtualServiceExportTo",
    "disableEnvoyListenerLog",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "localityLbSetting",
    "meshMTLS",
    "outboundClusterStatName",
    "outboundTrafficPolicy",
    "pathNormalization",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceScopeConfigs",
    "serviceSettings",
    "tcpKeepalive",
    "tlsDefaults",
];

/// Key of the ConfigMap for the gateways of networks.
const NETWORKS_KEY: &str = "meshNetworks";

/// Operators of a label selector. Others would select nothing, and hide the whole mesh.
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// The part of the mesh configuration that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MeshConfig {
    /// Any of them admits a namespace; all are admitted when there is none.
    discovery_selectors: Vec<LabelSelector>,
    visibility: EntryVisibility,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(default)]
    // The first two are compared with the flags only. Identities and resource names follow from the flags, so they
    // cannot change while the program runs.
    trust_domain: Option<String>,
    #[serde(default)]
    trust_domain_aliases: Vec<String>,
    #[serde(default)]
    root_namespace: Option<String>,
    #[serde(default)]
    discovery_selectors: Vec<LabelSelector>,
    #[serde(default)]
    service_entry_visibility: EntryVisibility,
}

/// Visibility of ServiceEntries by the labels of their namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct EntryVisibility {
    default_visibility: EntryScope,
    policies: Vec<VisibilityPolicy>,
    /// For sidecars, which are not of this mesh.
    // It is read so that a valid configuration passes `deny_unknown_fields`.
    apply_to_sidecars: bool,
}

/// The first policy of which all rules match decides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VisibilityPolicy {
    #[serde(default)]
    visibility: EntryScope,
    #[serde(default)]
    matching_rules: Vec<VisibilityRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VisibilityRule {
    namespace_selector: LabelSelector,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum EntryScope {
    #[default]
    #[serde(alias = "UNSPECIFIED")]
    Public,
    Namespace,
    None,
}

impl MeshConfig {
    /// Returns true if the objects of a namespace with these labels are of the mesh.
    pub(crate) fn discovers(&self, labels: &StringMap) -> bool {
        // As Istio: the selectors are alternatives, the requirements within one must all hold.
        self.discovery_selectors.is_empty() || self.discovery_selectors.iter().any(|selector| selector.matches(labels))
    }

    /// Visibility of the ServiceEntries of a namespace with these labels; `None` for nobody.
    pub(crate) fn visibility(&self, labels: &StringMap) -> Option<Visibility> {
        let matches = |policy: &&VisibilityPolicy| {
            // A policy without rules matches every namespace: `all` of nothing is true.
            policy.matching_rules.iter().all(|rule| rule.namespace_selector.matches(labels))
        };
        let policy = self.visibility.policies.iter().find(matches);
        match policy.map_or(self.visibility.default_visibility, |policy| policy.visibility) {
            EntryScope::Public => Some(Visibility::Public),
            EntryScope::Namespace => Some(Visibility::Namespace),
            EntryScope::None => None,
        }
    }
}

/// Reads the configuration, and says what of it has no effect. `None` when it is invalid: the one before stays in force.
pub(crate) fn read(mesh: &Mesh, key: &ObjectRef, map: &ConfigMap) -> (Option<MeshConfig>, Vec<Finding>) {
    let field = format!("data[{KEY:?}]");
    let finding = |reason, message: String| Finding::warning(key, reason, message).at(&field);
    let mut findings = Vec::new();
    if map.data.get(NETWORKS_KEY).is_some_and(|text| has_networks(text)) {
        let unsupported = Unsupported::new(NETWORKS_KEY, "there are no gateways between networks");
        let at = format!("data[{NETWORKS_KEY:?}]");
        findings.push(Finding::warning(key, Reason::Unsupported, unsupported.to_string()).at(&at));
    }
    // Without the key the defaults hold.
    let Some(text) = map.data.get(KEY) else { return (Some(MeshConfig::default()), findings) };
    let fields = match parse(text) {
        Ok(fields) => fields,
        Err(message) => {
            let message = format!("invalid mesh configuration: {message}; the last valid one stays in force");
            // Defaults in its place would show namespaces that the last configuration hid.
            findings.push(finding(Reason::InvalidValue, message));
            return (None, findings);
        }
    };
    let unmet = fields.unmet.iter().map(|unmet| finding(Reason::Unsupported, unmet.to_string()));
    findings.extend(unmet);
    for (name, found, running, flag) in [
        ("trustDomain", &fields.known.trust_domain, &mesh.trust_domain, "--trust-domain"),
        ("rootNamespace", &fields.known.root_namespace, &mesh.root_namespace, "--root-namespace"),
    ] {
        // An empty string is an unset field: the message is protobuf in Istio.
        if let Some(found) = found.as_ref().filter(|found| *found != running && !found.is_empty()) {
            let instead =
                format!("the control plane was started with {flag}={running}; restart it with {flag}={found}");
            findings
                .push(finding(Reason::Unsupported, Unsupported::new(format!("{name}: {found}"), instead).to_string()));
        }
    }
    if !fields.known.trust_domain_aliases.is_empty() {
        let unsupported = Unsupported::new("trustDomainAliases", "policies match the trust domains that they name");
        findings.push(finding(Reason::Unsupported, unsupported.to_string()));
    }
    for name in &fields.unknown {
        let meant = nearest(name, READ.into_iter().chain(KNOWN)).map(|meant| format!("; did you mean {meant}?"));
        let message = format!("unknown key {name:?} has no effect{}", meant.unwrap_or_default());
        findings.push(finding(Reason::InvalidValue, message));
    }
    if !fields.without_effect.is_empty() {
        let unsupported = Unsupported::new(fields.without_effect.join(", "), "the keys have no effect");
        // One finding for all of them, and no warning: Istio's installers write many of these keys unasked.
        findings.push(Finding::new(key, Severity::Info, Reason::Unsupported, unsupported.to_string()).at(&field));
    }
    let config = MeshConfig {
        discovery_selectors: fields.known.discovery_selectors,
        visibility: fields.known.service_entry_visibility,
    };
    (Some(config), findings)
}

/// Returns true if the text names a network, or cannot be read.
fn has_networks(text: &str) -> bool {
    // Istio's installers write `networks: {}`.
    let Ok(value) = serde_saphyr::from_str::<Value>(text) else { return !text.trim().is_empty() };
    value["networks"].as_object().is_some_and(|networks| !networks.is_empty())
}

/// Wish for more protection than there is, in a key that has no effect: a warning of its own.
fn unmet(name: &str, value: &Value) -> Option<Unsupported> {
    match name {
        "outboundTrafficPolicy" if value["mode"] == "REGISTRY_ONLY" => Some(Unsupported::new(
            "outboundTrafficPolicy.mode: REGISTRY_ONLY",
            "connections to destinations that the mesh does not know are passed through",
        )),
        "caCertificates" if value.as_array().is_some_and(|list| !list.is_empty()) => {
            Some(Unsupported::new("caCertificates", "only the roots of the control plane's own authority are trusted"))
        }
        _ => None,
    }
}

struct Parsed {
    known: Fields,
    /// Keys without effect that ask for protection.
    unmet: Vec<Unsupported>,
    without_effect: Vec<String>,
    unknown: Vec<String>,
}

fn parse(text: &str) -> Result<Parsed, String> {
    // An empty document is YAML's null, which is no map.
    let mut keys: BTreeMap<String, Value> = if text.trim().is_empty() {
        BTreeMap::new()
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?
    };
    let (mut without_effect, mut unknown, mut wishes) = (Vec::new(), Vec::new(), Vec::new());
    // Other keys are taken out before the rest is decoded: a value in them that is invalid must not refuse the keys
    // that are read.
    let others: Vec<_> = keys.keys().filter(|name| !READ.contains(&name.as_str())).cloned().collect();
    for name in others {
        let wish = keys.remove(&name).and_then(|value| unmet(&name, &value));
        match (wish, KNOWN.contains(&name.as_str())) {
            (Some(wish), _) => wishes.push(wish),
            (None, true) => without_effect.push(name),
            (None, false) => unknown.push(name),
        }
    }
    // `key:` without a value means the default, as in Istio; serde would refuse null for a list.
    keys.retain(|_, value| !value.is_null());
    let known = Value::Object(keys.into_iter().collect());
    let known: Fields = serde_json::from_value(known).map_err(|error| error.to_string())?;
    let rules = known.service_entry_visibility.policies.iter().flat_map(|policy| &policy.matching_rules);
    let selectors = known.discovery_selectors.iter().chain(rules.map(|rule| &rule.namespace_selector));
    let mut requirements = selectors.flat_map(|selector| &selector.match_expressions);
    // A manifest in a directory has passed no API server, and text in a ConfigMap is not validated by one.
    if let Some(invalid) = requirements.find(|requirement| !OPERATORS.contains(&requirement.operator.as_str())) {
        return Err(format!(
            "invalid operator {:?} of a selector: expected {}",
            invalid.operator,
            OPERATORS.join(", ")
        ));
    }
    Ok(Parsed { known, unmet: wishes, without_effect, unknown })
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;

    use super::*;

    fn read_text(text: &str) -> (Option<MeshConfig>, Vec<(Reason, Severity, String)>) {
        let key = ObjectRef::new(Kind::ConfigMap, "istio-system", MESH_CONFIG_MAP);
        let mut map = ConfigMap::default();
        map.data.insert(KEY.to_owned(), text.to_owned());
        let (config, findings) = read(&Mesh::default(), &key, &map);
        (config, findings.into_iter().map(|finding| (finding.reason, finding.severity, finding.message)).collect())
    }

    fn labels(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selectors_say_which_namespaces_are_of_the_mesh() {
        let (config, findings) = read_text(
            "discoverySelectors: [{matchLabels: {env: prod}}, {matchExpressions: [{key: team, operator: Exists}]}]",
        );
        let config = config.unwrap();

        assert!(findings.is_empty());
        assert!(config.discovers(&labels(&[("env", "prod")])) && config.discovers(&labels(&[("team", "x")])));
        assert!(!config.discovers(&labels(&[("env", "test")])));
        assert!(MeshConfig::default().discovers(&labels(&[])));
    }

    #[test]
    fn the_first_policy_whose_rules_all_match_decides_who_sees_an_entry() {
        let text = "serviceEntryVisibility: {defaultVisibility: NAMESPACE, policies: [
            {visibility: NONE, matchingRules: [{namespaceSelector: {matchLabels: {a: x}}}, {namespaceSelector: {matchLabels: {b: x}}}]},
            {visibility: PUBLIC, matchingRules: [{namespaceSelector: {matchLabels: {a: x}}}]}]}";
        let config = read_text(text).0.unwrap();

        assert_eq!(config.visibility(&labels(&[("a", "x"), ("b", "x")])), None);
        assert_eq!(config.visibility(&labels(&[("a", "x")])), Some(Visibility::Public));
        assert_eq!(config.visibility(&labels(&[])), Some(Visibility::Namespace));
        assert_eq!(MeshConfig::default().visibility(&labels(&[])), Some(Visibility::Public));
    }

    #[test]
    fn an_invalid_configuration_is_refused_as_a_whole() {
        for text in [
            "discoverySelectors: [{matchExpressions: [{key: team, operator: Exist}]}]",
            "discoverySelectors: x",
            "serviceEntryVisibility: {policies: [{rules: []}]}",
            "serviceEntryVisibility: {defaultVisibility: SECRET}",
            "trustDomain: [",
        ] {
            let (config, findings) = read_text(text);
            assert!(
                config.is_none() && findings.len() == 1 && findings[0].0 == Reason::InvalidValue,
                "{text}: {findings:?}"
            );
        }
        assert!(read_text("").0.is_some());
    }

    #[test]
    fn a_wish_for_protection_that_is_not_met_is_a_warning() {
        let (config, findings) =
            read_text("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}, caCertificates: [{pem: x}], tlsDefaults: {}}");
        let usual = read_text("{outboundTrafficPolicy: {mode: ALLOW_ANY}, caCertificates: []}").1;

        assert!(config.is_some());
        let texts: Vec<_> = findings.iter().map(|(_, severity, text)| (*severity, text.as_str())).collect();
        assert!(
            matches!(&*texts, [(Severity::Warning, a), (Severity::Warning, b), (Severity::Info, c)]
            if a.starts_with("caCertificates") && b.contains("REGISTRY_ONLY") && c.starts_with("tlsDefaults")),
            "{texts:?}"
        );
        assert_eq!(usual.iter().map(|(_, severity, _)| *severity).collect::<Vec<_>>(), [Severity::Info]);
    }

    #[test]
    fn networks_of_the_mesh_are_a_finding_unless_there_are_none() {
        let found = |text: &str| {
            let key = ObjectRef::new(Kind::ConfigMap, "istio-system", MESH_CONFIG_MAP);
            let mut map = ConfigMap::default();
            map.data.insert(NETWORKS_KEY.to_owned(), text.to_owned());
            read(&Mesh::default(), &key, &map).1.len()
        };

        assert_eq!(["networks: {}", "", "networks:"].map(found), [0, 0, 0]);
        assert_eq!(["networks: {a: {gateways: []}}", "networks: ["].map(found), [1, 1]);
    }

    #[test]
    fn what_has_no_effect_is_reported() {
        let (config, findings) = read_text(
            "{trustDomain: td.example, rootNamespace: istio-system, trustDomainAliases: [a], accessLogFile: /dev/stdout, discoverySelector: []}",
        );

        assert!(config.is_some());
        let found: Vec<_> = findings.iter().map(|(reason, severity, _)| (*reason, *severity)).collect();
        assert_eq!(
            found,
            [
                (Reason::Unsupported, Severity::Warning),
                (Reason::Unsupported, Severity::Warning),
                (Reason::InvalidValue, Severity::Warning),
                (Reason::Unsupported, Severity::Info),
            ]
        );
        assert!(findings[0].2.contains("--trust-domain=td.example"), "{findings:?}");
        assert!(findings[2].2.contains("did you mean discoverySelectors?"), "{findings:?}");
    }
}
