//! The issuer in use, which is replaced when its certificate is.

use std::sync::Arc;

use tokio::sync::watch;

use crate::issuer::Issuer;

/// Reader of the issuer in use. Clones share it.
#[derive(Clone, Debug)]
pub struct CurrentIssuer(watch::Receiver<Arc<Issuer>>);

/// Writer of the issuer in use.
#[derive(Debug)]
pub struct IssuerSlot(watch::Sender<Arc<Issuer>>);

impl IssuerSlot {
    /// A slot with its first issuer.
    pub fn new(issuer: Issuer) -> Self {
        Self(watch::Sender::new(Arc::new(issuer)))
    }

    /// Everything from now on is signed by `issuer`. Certificates that others have stay as they are.
    pub fn replace(&self, issuer: Issuer) {
        self.0.send_replace(Arc::new(issuer));
    }

    /// A reader of this slot.
    pub fn reader(&self) -> CurrentIssuer {
        CurrentIssuer(self.0.subscribe())
    }
}

impl CurrentIssuer {
    /// The issuer in use now.
    pub fn get(&self) -> Arc<Issuer> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for another issuer than the last time; for ever once its slot is gone. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<Issuer> for CurrentIssuer {
    /// An issuer that is never replaced.
    fn from(issuer: Issuer) -> Self {
        IssuerSlot::new(issuer).reader()
    }
}
