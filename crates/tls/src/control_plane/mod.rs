//! TLS of the connections to the control plane: only the server proves who it is, by a host name.

mod acceptor;
mod connector;
mod roots;
mod token;

pub use acceptor::{Acceptor, HandshakeError, ServerStream, ServingCertificate};
pub use connector::{ConnectError, Connector, ControlStream};
pub use roots::{RootSource, RootsError};
pub use token::Token;
