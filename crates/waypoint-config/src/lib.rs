//! Configuration of a waypoint: routes and policies of the services that are bound to it, as one immutable value, and its
//! encoding as resources of `strake.waypoint.v1`. Workloads, services and endpoints are not in it: see `model`.
//!
//! ```ignore
//! let handle = Handle::default();
//! let mut applier = Applier::new(handle.clone());        // discovery's side: takes responses, refuses what it cannot read
//! let config = handle.load();                            // a request's side: read once, kept until the request ends
//! if let Some((service, port)) = config.port(&name, 80) { port.routes.find(&request) .. }
//! ```
//!
//! A resource that is not understood as a whole is refused: the one before it stays in force. A service whose first resource
//! is refused is in no [`Config`], so its requests are refused too, not routed past rules that nobody could read.

mod applier;
mod codec;
mod config;
mod handle;
mod name;

pub use applier::{Applier, Refused};
pub use codec::{Content, Invalid, decode, encode_gateway, encode_service};
pub use config::{AppProtocol, Config, GatewayConfig, Policies, PortConfig, ServiceConfig};
pub use handle::Handle;
pub use name::{Name, NoName};
