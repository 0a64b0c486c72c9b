//! Objects that a program reads: a kind, and which objects of it.

use kube_types::Kind;

/// Objects of one kind. Selectors are the API server's: what they leave out never reaches this process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watched {
    pub kind: Kind,
    /// `None`: all namespaces, or a kind that lives in none.
    pub namespace: Option<String>,
    /// A field selector, for instance `spec.nodeName=node-1`.
    pub fields: Option<String>,
    /// A label selector, for instance `app=web`.
    pub labels: Option<String>,
}

impl Watched {
    /// Every object of a kind.
    pub const fn all(kind: Kind) -> Self {
        Self { kind, namespace: None, fields: None, labels: None }
    }

    /// The objects of one namespace.
    #[must_use]
    pub fn in_namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    /// The objects that a field selector admits.
    #[must_use]
    pub fn with_fields(self, selector: impl Into<String>) -> Self {
        Self { fields: Some(selector.into()), ..self }
    }

    /// The objects that a label selector admits.
    #[must_use]
    pub fn with_labels(self, selector: impl Into<String>) -> Self {
        Self { labels: Some(selector.into()), ..self }
    }
}
