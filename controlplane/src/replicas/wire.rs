//! Events as messages, and back.

use std::sync::Arc;

use proto::replica::event::Action as Message;
use proto::replica::{self, ResourceType};
use xds_server::Versions;

use crate::acks::{Action, Event, Type};

/// A message that this version does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("expected an event of a known kind: the replica may be of another version")]
    Action,
    #[error("expected a known type of resource, found {0}: the replica may be of another version")]
    Type(i32),
}

pub(super) fn to_message(event: Event) -> replica::Event {
    let Event { node, connection, action } = event;
    let action = match action {
        Action::Connected => Message::Connected(replica::Connected {}),
        Action::Holds { kind, resources } => {
            Message::Holds(replica::Holds { r#type: number(kind), resources: named(&resources) })
        }
        Action::Sent { kind, nonce, resources, removed } => Message::Sent(replica::Sent {
            r#type: number(kind),
            nonce,
            resources: named(&resources),
            removed: removed.iter().map(|name| name.as_ref().to_owned()).collect(),
        }),
        Action::Acked { kind, nonce } => Message::Acked(replica::Acked { r#type: number(kind), nonce }),
        Action::Nacked { kind, nonce, error } => {
            Message::Nacked(replica::Nacked { r#type: number(kind), nonce, error })
        }
        Action::Disconnected => Message::Disconnected(replica::Disconnected {}),
    };
    replica::Event { node, connection, action: Some(action) }
}

pub(super) fn from_message(message: replica::Event) -> Result<Event, WireError> {
    let replica::Event { node, connection, action } = message;
    let action = match action.ok_or(WireError::Action)? {
        Message::Connected(replica::Connected {}) => Action::Connected,
        Message::Holds(replica::Holds { r#type, resources }) => {
            Action::Holds { kind: kind(r#type)?, resources: versions(resources) }
        }
        Message::Sent(replica::Sent { r#type, nonce, resources, removed }) => Action::Sent {
            kind: kind(r#type)?,
            nonce,
            resources: versions(resources),
            removed: removed.into_iter().map(Arc::from).collect(),
        },
        Message::Acked(replica::Acked { r#type, nonce }) => Action::Acked { kind: kind(r#type)?, nonce },
        Message::Nacked(replica::Nacked { r#type, nonce, error }) => {
            Action::Nacked { kind: kind(r#type)?, nonce, error }
        }
        Message::Disconnected(replica::Disconnected {}) => Action::Disconnected,
    };
    Ok(Event { node, connection, action })
}

fn number(kind: Type) -> i32 {
    match kind {
        Type::Authorization => ResourceType::Authorization.into(),
        Type::Address => ResourceType::Address.into(),
    }
}

fn kind(number: i32) -> Result<Type, WireError> {
    match ResourceType::try_from(number) {
        Ok(ResourceType::Authorization) => Ok(Type::Authorization),
        Ok(ResourceType::Address) => Ok(Type::Address),
        Ok(ResourceType::Unspecified) | Err(_) => Err(WireError::Type(number)),
    }
}

fn named(versions: &Versions) -> Vec<replica::Resource> {
    let one = |(name, version): &(Arc<str>, Arc<str>)| replica::Resource {
        name: name.as_ref().to_owned(),
        version: version.as_ref().to_owned(),
    };
    versions.iter().map(one).collect()
}

fn versions(resources: Vec<replica::Resource>) -> Versions {
    resources.into_iter().map(|replica::Resource { name, version }| (name.into(), version.into())).collect()
}
