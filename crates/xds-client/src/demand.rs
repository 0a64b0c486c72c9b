//! Asks for single resources of a type that is not subscribed as a whole.

use tokio::sync::{mpsc, oneshot};

/// Demands that wait for the client's task.
pub(crate) const QUEUE: usize = 256;

/// One resource that somebody waits for.
pub(crate) struct Demand {
    pub(crate) type_url: String,
    pub(crate) name: String,
    pub(crate) waiter: oneshot::Sender<()>,
}

/// Reason for a demand without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// The client has ended.
    #[error("discovery has ended")]
    Ended,
}

impl DemandError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ended => "discovery_ended",
        }
    }
}

/// Handle for demands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Demander(pub(crate) mpsc::Sender<Demand>);

impl Demander {
    /// Waits until the control plane has sent `name` or said that there is no such resource; either way the handler has
    /// seen it. Has no deadline of its own: the control plane may be away. Dropping it is safe.
    pub async fn demand(&self, type_url: &str, name: &str) -> Result<(), DemandError> {
        let (waiter, answered) = oneshot::channel();
        let demand = Demand { type_url: type_url.to_owned(), name: name.to_owned(), waiter };
        self.0.send(demand).await.map_err(|_| DemandError::Ended)?;
        answered.await.map_err(|_| DemandError::Ended)
    }
}
