//! Delta xDS, the control plane's side: a cache of resources and the service that keeps every connection up to date with it.
//! What the resources mean is not known here: see `graph`.
//!
//! ```ignore
//! let cache = Cache::new();
//! cache.apply(proto::ADDRESS_TYPE_URL, changes);
//! cache.mark_synced();            // before this nothing is sent: an empty cache would delete everything at the clients
//! let discovery = service(cache.clone(), Options::new(Arc::new(|report| ..), drain));
//! Server::builder().layer(ca_server::authenticate(tokens)).add_service(discovery).serve_with_incoming(incoming(acceptor, listener, limits))
//! ```

mod addresses;
mod age;
mod cache;
mod debug;
mod index;
mod report;
mod scope;
mod service;
mod stream;
mod subscription;
mod subscriptions;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod withdrawals;

pub use age::Ages;
pub use cache::Cache;
pub use debug::{Debug, Pages, Question};
pub use report::{Peer, Report, Versions};
pub use scope::waypoint_type;
pub use service::{Discovery, Options, service};
pub use transport::{Connection, incoming};
