//! Delta xDS, the node proxy's side: keeps a stream to the control plane open and hands resources to one handler per type.
//! What the resources mean is not known here: see `model`.
//!
//! ```ignore
//! let client = Client::new(config)
//!     .with::<Authorization>(AUTHORIZATION_TYPE_URL, Interest::All, policies)
//!     .with::<Address>(ADDRESS_TYPE_URL, Interest::All, addresses);
//! let synced = client.synced();                // true once every type has arrived as a whole
//! tokio::spawn(client.run(drain));
//! ```

mod config;
mod demand;
mod dial;
mod handler;
mod link;
mod metrics;
mod progress;
mod questions;
mod retry;
mod session;
mod watched;

pub use config::{Config, Node};
pub use demand::{DemandError, Demander};
pub use handler::{Handler, Rejection, Resource};
pub use link::{Client, Interest, Link};
pub use questions::Names;
