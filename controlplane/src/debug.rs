//! Pages for tools of Istio: over discovery, as `istioctl proxy-status` asks, and on the admin socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::Caller;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Any, Struct, Timestamp};
use proto::status::client_config::GenericXdsConfig;
use proto::status::{ClientConfig, ConfigStatus, Node};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, CLIENT_CONFIG_TYPE_URL, DEBUG_TYPE};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;
use xds_server::{Debug, Question};

use crate::admin::Pages;
use crate::proxies::{Connected, State, TypeState};

/// Types that discovery serves.
const TYPES: [&str; 2] = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL];

const NO_ENVOY: &str = "node proxies are not Envoy and have no Envoy configuration: ask one with `istioctl ztunnel-config all`, or `strake get`";
const NO_REGISTRY: &str =
    "services and endpoints are in the page `served`, and in `strake get services` and `strake get workloads`";
const NO_OBJECTS: &str = "objects are read from the API server, and findings about them are in the page `findings`";
const NO_PUSH: &str =
    "each proxy gets the differences to what it holds: the pages `syncz` and `connections` have their state";

/// Pages of istiod that have no counterpart: name, path, and where to look instead.
pub(crate) const ABSENT: [(&str, &str, &str); 14] = [
    ("adsz", "/debug/adsz", NO_PUSH),
    ("ambientz", "/debug/ambientz", NO_REGISTRY),
    ("authorizationz", "/debug/authorizationz", "policies are in the page `policies`, and in `strake get policies`"),
    ("cachez", "/debug/cachez", NO_PUSH),
    ("clusterz", "/debug/clusterz", "there is one cluster"),
    ("config_distribution", "/debug/config_distribution", NO_PUSH),
    ("config_dump", "/debug/config_dump", NO_ENVOY),
    ("configz", "/debug/configz", NO_OBJECTS),
    ("endpointShardz", "/debug/endpointShardz", NO_REGISTRY),
    ("endpointz", "/debug/endpointz", NO_REGISTRY),
    ("inject", "/debug/inject", "there are no sidecars"),
    (
        "mesh",
        "/debug/mesh",
        "the mesh configuration is the ConfigMap `istio`; what of it has no effect is in the page `findings`",
    ),
    ("push_status", "/debug/push_status", NO_PUSH),
    ("registryz", "/debug/registryz", NO_REGISTRY),
];

/// The pages, for callers of the namespace of the control plane: they name every node and workload of the mesh.
pub(crate) fn over_discovery(pages: Pages, namespace: String, cluster: String, replica: &str) -> Debug {
    let control_plane = json!({
        "Component": "strake-control",
        "ID": replica,
        "Info": { "version": env!("CARGO_PKG_VERSION") },
    });
    let answer = move |caller: &Caller, question: Question<'_>| {
        if caller.identity.namespace() != namespace {
            return Err(Status::permission_denied(format!("expected a ServiceAccount of namespace {namespace}")));
        }
        match question {
            Question::Typed("syncz") => Ok(syncz(&pages.proxies.all(), &cluster)),
            Question::Typed(page) => Err(Status::not_found(format!("no page {page:?}: expected syncz"))),
            Question::Named(name) => {
                if let Some((.., reason)) = ABSENT.iter().find(|(absent, ..)| *absent == name) {
                    return Err(Status::not_found(*reason));
                }
                let names = || Pages::NAMES.join(", ");
                let page = pages.page(name);
                let page =
                    page.ok_or_else(|| Status::not_found(format!("no page {name:?}: expected one of {}", names())))?;
                Ok(vec![Any { type_url: DEBUG_TYPE.to_owned(), value: page.to_string().into_bytes() }])
            }
        }
    };
    Debug { pages: Arc::new(answer), control_plane: control_plane.to_string() }
}

/// The state of every proxy, as `istioctl proxy-status` reads it.
fn syncz(proxies: &[Connected], cluster: &str) -> Vec<Any> {
    let of = |proxy: &Connected| Any {
        type_url: CLIENT_CONFIG_TYPE_URL.to_owned(),
        value: client_config(proxy, cluster).encode_to_vec(),
    };
    proxies.iter().map(of).collect()
}

fn client_config(proxy: &Connected, cluster: &str) -> ClientConfig {
    let text = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let metadata = [
        ("CLUSTER_ID", text(cluster)),
        ("NAMESPACE", text(namespace_of(&proxy.page.node_id))),
        ("ISTIO_VERSION", text(&proxy.version)),
    ];
    let fields: BTreeMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    let configs = TYPES.map(|type_url| {
        let sync = proxy.types.get(type_url);
        GenericXdsConfig {
            type_url: type_url.to_owned(),
            config_status: status(sync).into(),
            last_updated: sync.map(|sync| Timestamp::from(sync.at)),
        }
    });
    ClientConfig {
        node: Some(Node { id: proxy.page.node_id.clone(), metadata: Some(Struct { fields }) }),
        generic_xds_configs: configs.to_vec(),
    }
}

fn status(sync: Option<&TypeState>) -> ConfigStatus {
    match sync.map(|sync| sync.state) {
        None => ConfigStatus::NotSent,
        Some(State::Sent) => ConfigStatus::Stale,
        Some(State::Synced) => ConfigStatus::Synced,
        Some(State::Rejected) => ConfigStatus::Error,
    }
}

/// Namespace in the name that a proxy gives itself, `ztunnel~10.0.0.1~ztunnel-x.istio-system~istio-system.svc.cluster.local`.
fn namespace_of(node_id: &str) -> &str {
    let pod = node_id.split('~').nth(2).unwrap_or_default();
    pod.rsplit_once('.').map_or("", |(_, namespace)| namespace)
}

/// The state of every proxy, as JSON.
pub(crate) fn syncz_page(proxies: &[Connected]) -> Value {
    let of = |proxy: &Connected| {
        let types: BTreeMap<_, _> = TYPES
            .map(|type_url| {
                let sync = proxy.types.get(type_url);
                (type_url, json!({ "status": status(sync).as_str_name(), "since": sync.map(|sync| text(sync.at)) }))
            })
            .into();
        json!({ "proxy": proxy.page.node_id, "node": proxy.page.node, "version": proxy.version, "types": types })
    };
    proxies.iter().map(of).collect()
}

/// The open connections, as JSON.
pub(crate) fn connections_page(proxies: &[Connected]) -> Value {
    let of = |proxy: &Connected| {
        json!({
            "connectionId": format!("{}-{}", proxy.page.node_id, proxy.page.connection),
            "connectedAt": text(proxy.since),
            "node": proxy.page.node,
            "identity": proxy.page.identity,
            "watches": proxy.types.keys().collect::<Vec<_>>(),
        })
    };
    json!({ "totalClients": proxies.len(), "clients": proxies.iter().map(of).collect::<Vec<_>>() })
}

fn text(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use contract::admin::control::Proxy;

    use super::*;

    fn proxy(states: &[(&str, State)]) -> Connected {
        let types = states
            .iter()
            .map(|(type_url, state)| ((*type_url).to_owned(), TypeState { state: *state, at: UNIX_EPOCH }));
        Connected {
            page: Proxy {
                connection: 7,
                node: "n1".to_owned(),
                identity: "spiffe://cluster.local/ns/istio-system/sa/ztunnel".to_owned(),
                node_id: "ztunnel~10.0.0.1~ztunnel-x.istio-system~istio-system.svc.cluster.local".to_owned(),
                types: BTreeMap::new(),
            },
            version: "1.31".to_owned(),
            since: UNIX_EPOCH,
            types: types.collect(),
        }
    }

    #[test]
    fn the_status_of_a_proxy_is_that_of_its_last_responses() {
        let states = [(ADDRESS_TYPE_URL, State::Synced), (AUTHORIZATION_TYPE_URL, State::Rejected)];

        let resources = syncz(&[proxy(&states), proxy(&[(ADDRESS_TYPE_URL, State::Sent)])], "Kubernetes");

        let read = |any: &Any| ClientConfig::decode(&*any.value).unwrap();
        let statuses = |config: &ClientConfig| {
            config.generic_xds_configs.iter().map(GenericXdsConfig::config_status).collect::<Vec<_>>()
        };
        let [first, second] = [&resources[0], &resources[1]].map(read);
        assert_eq!(statuses(&first), [ConfigStatus::Synced, ConfigStatus::Error]);
        assert_eq!(statuses(&second), [ConfigStatus::Stale, ConfigStatus::NotSent]);
        let metadata = first.node.unwrap().metadata.unwrap();
        let namespace = metadata.fields["NAMESPACE"].kind.clone();
        assert_eq!(namespace, Some(Kind::StringValue("istio-system".to_owned())));
    }

    #[test]
    fn a_page_of_istiod_that_is_not_here_says_where_to_look() {
        for (name, path, reason) in ABSENT {
            assert_eq!(path, format!("/debug/{name}"));
            assert!(!Pages::NAMES.contains(&name) && !reason.is_empty());
            // A page that the text names is there.
            let named = reason.split("page").nth(1).and_then(|text| text.split('`').nth(1));
            assert!(named.is_none_or(|named| Pages::NAMES.contains(&named)), "{name}: {reason}");
        }
    }

    #[test]
    fn pages_name_proxies_and_times() {
        let proxies = [proxy(&[(ADDRESS_TYPE_URL, State::Synced)])];

        assert_eq!(
            syncz_page(&proxies)[0]["types"][ADDRESS_TYPE_URL],
            json!({"status": "SYNCED", "since": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(connections_page(&proxies)["clients"][0]["watches"], json!([ADDRESS_TYPE_URL]));
        assert_eq!(namespace_of("nonsense"), "");
    }
}
