//! HTTP: requests of clients, and what becomes of them. The model that decides is `route`'s; connections to endpoints are
//! `upstream`'s.

mod authorise;
pub mod body;
mod connection;
mod deadline;
mod exchange;
mod failure;
mod forward;
mod head;
mod headers;
mod mirror;
mod outgoing;
mod reply;
mod tokens;

pub use authorise::authorise_connection;
pub use connection::HttpConnection;
pub use tokens::Authenticators;
