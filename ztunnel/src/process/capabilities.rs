//! Tries, at start, what the proxy cannot work without.

use runtime::sys::{Netns, socket};
use std::io;
use std::sync::Arc;

/// The process lacks a right.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// Entering namespaces of pods.
    #[error("cannot enter network namespaces: {0}. The capability SYS_ADMIN is needed")]
    Enter(io::Error),
    /// Marking sockets.
    #[error("cannot mark sockets: {0}. The capability NET_ADMIN or NET_RAW is needed")]
    Mark(io::Error),
}

/// Enters its own namespace and marks a socket, as it will do with pods. Returns the namespace.
pub(super) fn test(mark: Option<u32>) -> Result<Arc<Netns>, CapabilityError> {
    let home = Netns::current().map_err(CapabilityError::Enter)?;
    let made = home.run_from(&home, || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None));
    let scratch = made.map_err(CapabilityError::Enter)?;
    if let Some(mark) = mark {
        socket::set_mark(&scratch, mark).map_err(CapabilityError::Mark)?;
    }
    Ok(Arc::new(home))
}
