//! Asks for single resources: of a type that is not subscribed as a whole, or before the control plane has sent one that
//! is.

use tokio::sync::{mpsc, oneshot};

/// Demands that wait for the client's task.
pub(crate) const QUEUE: usize = 256;

/// Hears the outcome of a demand. One that is closed has given up.
pub(crate) type Waiter = oneshot::Sender<Result<(), DemandError>>;

/// One resource that somebody waits for.
pub(crate) struct Demand {
    pub(crate) type_url: String,
    pub(crate) name: String,
    pub(crate) waiter: Waiter,
}

/// Reason for a demand without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// The client has ended, or does not know the type.
    #[error("discovery has ended")]
    Ended,
    /// The type is subscribed as a whole, and this control plane is not asked for single names besides; see
    /// [`Names::Unsupported`](crate::Names::Unsupported).
    #[error("the control plane does not answer for single names")]
    Unsupported,
    /// There is such a resource, and the handler has refused it.
    #[error("the resource cannot be read")]
    Unreadable,
    /// Too many names wait for an answer.
    #[error("too many names wait for an answer")]
    TooMany,
}

impl DemandError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ended => "discovery_ended",
            Self::Unsupported => "names_unsupported",
            Self::Unreadable => "resource_unreadable",
            Self::TooMany => "too_many_names",
        }
    }
}

/// Handle for demands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Demander(pub(crate) mpsc::Sender<Demand>);

impl Demander {
    /// Waits until the control plane has sent `name`, or a resource with that alias, or has said that there is none; either
    /// way the handler has seen the answer. Demands of one name are one question, and are asked again on a new stream.
    /// Has no deadline of its own: the control plane may be away. Dropping it is safe, and takes the question back.
    ///
    /// # Errors
    /// When there will be no answer.
    pub async fn demand(&self, type_url: &str, name: &str) -> Result<(), DemandError> {
        let (waiter, answered) = oneshot::channel();
        let demand = Demand { type_url: type_url.to_owned(), name: name.to_owned(), waiter };
        self.0.send(demand).await.map_err(|_| DemandError::Ended)?;
        answered.await.map_err(|_| DemandError::Ended)?
    }
}
