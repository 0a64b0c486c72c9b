//! Mistakes of a Gateway or of its overlays: nothing is made of it until they are gone.

/// Reason of the condition `Accepted`, of the Gateway API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemReason {
    /// The Gateway itself.
    Invalid,
    /// Its listeners.
    Listeners,
    /// `spec.infrastructure` or a ConfigMap with overlays.
    Parameters,
}

/// A mistake, with the field that it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {text}")]
pub struct Problem {
    pub reason: ProblemReason,
    /// Path of the field; of an overlay with the ConfigMap before it.
    pub field: String,
    /// Found and expected value.
    pub text: String,
}

impl ProblemReason {
    /// Stable: reason of the condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::Listeners => "ListenersNotValid",
            Self::Parameters => "InvalidParameters",
        }
    }
}

impl Problem {
    pub(crate) fn new(reason: ProblemReason, field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { reason, field: field.into(), text: text.into() }
    }
}
