//! Istio's kinds. Every field of them is here: one that is not is an error in a manifest.

mod authorization_policy;
mod condition_key;
mod destination_rule;
mod extension_provider;
mod http_policy;
mod load_balancer;
mod peer_authentication;
mod request_authentication;
mod service_entry;
mod virtual_service;
mod workload_entry;

pub use authorization_policy::{
    Action, AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule, Condition as When, ExtensionProvider,
    From as RuleFrom, Operation, PolicyTargetReference, Source as RuleSource, To as RuleTo, WorkloadSelector,
};
pub use condition_key::{Attribute, CONDITION_KEYS, ConditionKey, KeySyntax, ValueForm};
pub use destination_rule::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule, DestinationRuleSpec, H2UpgradePolicy,
    Http2KeepAlive, HttpSettings, OutlierDetection, PortTrafficPolicy, ProxyProtocol, ProxyProtocolVersion,
    RetryBudget, Subset, TcpKeepalive, TcpSettings, TrafficPolicy, TunnelSettings,
};
pub use extension_provider::{ExtAuthzBody, ExtAuthzGrpc, ExtAuthzHttp, MeshExtensionProvider};
pub use http_policy::{
    CorsPolicy, FaultAbort, FaultDelay, HttpFaultInjection, HttpRetry, Percent, Percentage, UnmatchedPreflights,
};
pub use load_balancer::{
    ConsistentHash, CookieAttribute, HashCookie, LoadBalancerSettings, LocalityDistribution, LocalityFailover,
    LocalityLoadBalancer, Maglev, RingHash, SimpleLoadBalancer, Warmup, ZoneAwareLoadBalancer,
};
pub use peer_authentication::{MutualTls, PeerAuthentication, PeerAuthenticationSpec, TlsMode};
pub use request_authentication::{ClaimToHeader, JwtHeader, JwtRule, RequestAuthentication, RequestAuthenticationSpec};
pub use service_entry::{
    EntryPort, EntrySelector, HostAddress, Location, Resolution, ServiceEntry, ServiceEntrySpec, ServiceEntryStatus,
};
pub use virtual_service::{
    Delegate, Destination, HeaderOperations, Headers, HttpBody, HttpDirectResponse, HttpMatchRequest, HttpMirrorPolicy,
    HttpRedirect, HttpRewrite, HttpRoute, HttpRouteDestination, L4MatchAttributes, PortSelector, RedirectPortSelection,
    RegexRewrite, RouteDestination, StringMatch, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService,
    VirtualServiceSpec,
};
pub use workload_entry::{WorkloadEntry, WorkloadEntrySpec};

use serde::{Deserialize, Serialize};

use crate::core::Condition;

/// Status of Istio's kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
