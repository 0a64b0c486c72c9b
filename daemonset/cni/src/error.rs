//! Errors as a container runtime reads them.

use serde_json::{Value, json};

/// An error with a code of the CNI specification 1.1.0, section "Error".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CniError {
    #[error("cniVersion {0:?} is not supported, expected one of 0.3.0 to 1.1.0")]
    Version(String),
    #[error("{name} is {value:?}, expected {expected}")]
    Environment { name: &'static str, value: String, expected: &'static str },
    #[error("failed to read the configuration from standard input: {0}")]
    Input(String),
    #[error("the configuration is not valid: {0}")]
    Configuration(String),
    /// The pod does not start now. The kubelet tries again.
    #[error("{0}")]
    TryAgain(String),
    #[error("{0}")]
    NotAvailable(String),
}

impl CniError {
    /// Code of the specification.
    pub const fn number(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment { .. } => 4,
            Self::Input(_) => 6,
            Self::Configuration(_) => 7,
            // "Try again later" of the specification; the numbers from 100 on are for plugins, and mean nothing to a
            // runtime.
            Self::TryAgain(_) => 11,
            Self::NotAvailable(_) => 50,
        }
    }

    /// The error as it is printed, in the version of the configuration.
    pub fn to_json(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "code": self.number(), "msg": self.to_string() })
    }
}
