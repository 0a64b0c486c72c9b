//! Rules for tokens, prepared once for each configuration of a service and kept by the worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use jwt::{Authenticator, KeyStore};
use waypoint_config::{GatewayConfig, ServiceConfig};

/// Authenticators that are kept; beyond it, all are made anew.
const MOST: usize = 1024;

/// Authenticators of one worker.
#[derive(Debug, Default)]
pub struct Authenticators(RefCell<HashMap<(usize, usize), Prepared>>);

/// Keeps the configurations, so that no other gets their addresses.
#[derive(Debug)]
struct Prepared {
    authenticator: Rc<Authenticator>,
    _gateway: Arc<GatewayConfig>,
    _service: Option<Arc<ServiceConfig>>,
}

impl Authenticators {
    /// Returns the rules of the waypoint, then those of the service.
    pub fn get(
        &self,
        gateway: &Arc<GatewayConfig>,
        service: Option<&Arc<ServiceConfig>>,
        store: &KeyStore,
    ) -> Rc<Authenticator> {
        let key = (Arc::as_ptr(gateway) as usize, service.map_or(0, |service| Arc::as_ptr(service) as usize));
        let mut all = self.0.borrow_mut();
        if let Some(prepared) = all.get(&key) {
            return prepared.authenticator.clone();
        }
        if all.len() >= MOST {
            all.clear();
        }
        let of_service = service.into_iter().flat_map(|service| &service.policies.jwt);
        let rules = gateway.policies.jwt.iter().chain(of_service).cloned().collect();
        let authenticator = Rc::new(Authenticator::new(rules, store));
        let prepared =
            Prepared { authenticator: authenticator.clone(), _gateway: gateway.clone(), _service: service.cloned() };
        all.insert(key, prepared);
        authenticator
    }
}
