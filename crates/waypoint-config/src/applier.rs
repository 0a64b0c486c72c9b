//! Responses of discovery to the configuration in force.

use std::sync::Arc;

use proto::waypoint as wire;

use crate::codec::{Content, decode};
use crate::handle::Handle;
use crate::name::Name;

/// A resource that was refused. What was in force under its name stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Name of the resource, as the control plane gave it.
    pub name: String,
    /// The field, what is wrong with it, and what happens now.
    pub reason: String,
}

/// Takes resources over into a [`Handle`]. There must be one for each handle.
#[derive(Debug)]
pub struct Applier {
    handle: Handle,
}

impl Applier {
    pub const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Applies one response: first the resources in order, then the removals; readers see all of it or nothing. Returns the
    /// resources that were refused. A removed name may be unknown.
    pub fn apply(
        &mut self,
        resources: impl IntoIterator<Item = (String, wire::Resource)>,
        removed: &[String],
    ) -> Vec<Refused> {
        let mut config = (*self.handle.load()).clone();
        let mut refused = Vec::new();
        for (text, resource) in resources {
            let content = text.parse::<Name>().map_err(|error| error.to_string());
            match content.and_then(|name| decode(&name, &resource).map_err(|error| error.to_string())) {
                Ok(Content::Service(name, service)) => {
                    config.services.insert(name, Arc::new(service));
                }
                Ok(Content::Gateway(gateway)) => config.gateway = Arc::new(gateway),
                Err(error) => {
                    refused.push(Refused { name: text, reason: format!("{error}; keeping the last version") })
                }
            }
        }
        for name in removed.iter().filter_map(|name| name.parse::<Name>().ok()) {
            match name.as_service() {
                Some(service) => drop(config.services.remove(&service)),
                None => config.gateway = Arc::default(),
            }
        }
        self.handle.store(config);
        refused
    }
}
