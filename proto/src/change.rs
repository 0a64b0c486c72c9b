//! One difference between two states of what discovery serves: what the graph computes and the discovery server takes.

use prost::bytes::Bytes;

/// A resource that differs from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Upsert {
        name: String,
        /// Equal versions mean equal contents.
        version: String,
        /// The encoded message.
        value: Bytes,
    },
    Remove {
        name: String,
    },
}

impl Change {
    pub fn name(&self) -> &str {
        match self {
            Self::Upsert { name, .. } | Self::Remove { name } => name,
        }
    }
}
