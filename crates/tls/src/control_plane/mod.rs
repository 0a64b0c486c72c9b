//! TLS of the connections to the control plane: only the server proves who it is, by a host name.

mod acceptor;
mod admission;
mod connector;
mod credential;
mod roots;
mod server_stream;
mod token;

pub use acceptor::{Acceptor, HandshakeError, ServingCertificate};
pub use admission::{Admission, Limits, Lost};
pub use connector::{ConnectError, Connector, ControlStream};
pub use credential::{Credential, ShownCredential, Validity};
pub use roots::{RootSource, RootsError};
pub use server_stream::{ConnectionInfo, ServerStream};
pub use token::{Token, TokenFile};
