//! Something that a node proxy did or was sent, as far as conditions depend on it. Replicas tell each other the same.

use std::sync::Arc;

use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use xds_server::{Report, Versions};

/// The two types of resources that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Type {
    Authorization,
    Address,
}

impl Type {
    fn of(type_url: &str) -> Option<Self> {
        match type_url {
            AUTHORIZATION_TYPE_URL => Some(Self::Authorization),
            ADDRESS_TYPE_URL => Some(Self::Address),
            _ => None,
        }
    }
}

/// Replica that a proxy is connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// This one.
    Here,
    /// Another one, by its name.
    Replica(Arc<str>),
}

/// Something that happened on the connection of a node proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Node of the proxy's token.
    pub(crate) node: String,
    /// Number of the connection, unique in its replica; later connections have larger ones.
    pub(crate) connection: u64,
    pub(crate) action: Action,
}

/// See [`Event`]; as the reports of discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connected,
    Holds { kind: Type, resources: Versions },
    Sent { kind: Type, nonce: String, resources: Versions, removed: Vec<Arc<str>> },
    Acked { kind: Type, nonce: String },
    Nacked { kind: Type, nonce: String, error: String },
    Disconnected,
}

impl Event {
    /// The part of a report that matters: resources for which `matters` is true. `None`: nothing of it does.
    pub(super) fn of(report: &Report, matters: impl Fn(Type, &str) -> bool) -> Option<Self> {
        let pick = |kind, resources: &Versions| -> Versions {
            resources.iter().filter(|(name, _)| matters(kind, name)).cloned().collect()
        };
        let action = match report {
            Report::Connected { .. } => Action::Connected,
            Report::Holds { type_url, resources, .. } => {
                let kind = Type::of(type_url)?;
                let resources = Some(pick(kind, resources)).filter(|resources| !resources.is_empty())?;
                Action::Holds { kind, resources }
            }
            Report::Sent { type_url, nonce, resources, removed, .. } => {
                let kind = Type::of(type_url)?;
                let resources = pick(kind, resources);
                let removed: Vec<_> = removed.iter().filter(|name| matters(kind, name)).cloned().collect();
                if resources.is_empty() && removed.is_empty() {
                    return None;
                }
                Action::Sent { kind, nonce: nonce.clone(), resources, removed }
            }
            Report::Acked { type_url, nonce, .. } => Action::Acked { kind: Type::of(type_url)?, nonce: nonce.clone() },
            Report::Nacked { type_url, nonce, error, .. } => {
                Action::Nacked { kind: Type::of(type_url)?, nonce: nonce.clone(), error: error.clone() }
            }
            Report::Disconnected { .. } => Action::Disconnected,
        };
        let peer = report.peer();
        Some(Self { node: peer.caller.node.clone(), connection: peer.connection, action })
    }
}
