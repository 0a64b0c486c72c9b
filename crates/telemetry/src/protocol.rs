//! Protocol of a connection between two proxies, or between a proxy and an application.

use serde::{Serialize, Serializer};

/// Protocol of a connection, as the dump names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain TCP.
    Tcp,
    /// A stream of a tunnel.
    Hbone,
    /// A stream of a tunnel within a tunnel, through the gateway of another network.
    DoubleHbone,
}

impl Protocol {
    /// Name in the dump.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Hbone => "HBONE",
            Self::DoubleHbone => "DOUBLEHBONE",
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
