//! Istio's kinds. Every field of them is here: one that is not is an error in a manifest.

mod authorization_policy;
mod condition_key;
mod peer_authentication;
mod service_entry;
mod workload_entry;

pub use authorization_policy::{
    Action, AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule, Condition as When, ExtensionProvider,
    From as RuleFrom, Operation, PolicyTargetReference, Source as RuleSource, To as RuleTo, WorkloadSelector,
};
pub use condition_key::{Attribute, CONDITION_KEYS, ConditionKey, KeySyntax, ValueForm};
pub use peer_authentication::{MutualTls, PeerAuthentication, PeerAuthenticationSpec, TlsMode};
pub use service_entry::{
    EntryPort, EntrySelector, HostAddress, Location, Resolution, ServiceEntry, ServiceEntrySpec, ServiceEntryStatus,
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
