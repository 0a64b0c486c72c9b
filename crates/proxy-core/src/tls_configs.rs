//! TLS configurations of one pod on one worker, kept as long as its certificate is.

use identity::Identity;
use rustls::{ClientConfig, ServerConfig};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use tls::{TlsError, WorkloadCertificate};

/// Sets of expected identities that are remembered. More of them than this are made anew now and then.
const CLIENTS: usize = 256;

/// Makes configurations once per certificate.
#[derive(Debug, Default)]
pub struct TlsConfigs(RefCell<Known>);

#[derive(Debug, Default)]
struct Known {
    certificate: Option<Arc<WorkloadCertificate>>,
    server: Option<Arc<ServerConfig>>,
    clients: HashMap<Arc<[Identity]>, Arc<ClientConfig>>,
}

impl Known {
    /// Forgets what was made from another certificate.
    fn renew(&mut self, certificate: &Arc<WorkloadCertificate>) {
        if self.certificate.as_ref().is_none_or(|known| !Arc::ptr_eq(known, certificate)) {
            *self = Self { certificate: Some(certificate.clone()), ..Self::default() };
        }
    }
}

impl TlsConfigs {
    /// For accepting tunnels.
    pub fn server(&self, certificate: &Arc<WorkloadCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut known = self.0.borrow_mut();
        known.renew(certificate);
        if let Some(made) = &known.server {
            return Ok(made.clone());
        }
        let made = tls::server_config(certificate)?;
        known.server = Some(made.clone());
        Ok(made)
    }

    /// For opening tunnels to one of `expected`.
    pub fn client(
        &self,
        certificate: &Arc<WorkloadCertificate>,
        expected: &Arc<[Identity]>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let mut known = self.0.borrow_mut();
        known.renew(certificate);
        if let Some(made) = known.clients.get(expected) {
            return Ok(made.clone());
        }
        let made = tls::client_config(certificate, expected)?;
        // All at once: there are as many sets as there are services that the pod calls, so this is rare, and a list of
        // ages would have to be kept for every dial.
        if known.clients.len() >= CLIENTS {
            known.clients.clear();
        }
        known.clients.insert(expected.clone(), made.clone());
        Ok(made)
    }
}
