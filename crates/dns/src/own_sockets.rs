//! The sockets on which this proxy asks nameservers at the moment, by address: a question that comes from one of them is the
//! proxy's own, and answering it by asking again would go on without end.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;

/// Addresses of one pod's sockets towards nameservers.
#[derive(Debug, Default)]
pub(crate) struct OwnSockets(RefCell<HashSet<SocketAddr>>);

/// Keeps an address known.
#[derive(Debug)]
pub(crate) struct OwnSocket<'a> {
    sockets: &'a OwnSockets,
    address: SocketAddr,
}

impl OwnSockets {
    /// Knows `address` until the result is dropped.
    pub(crate) fn add(&self, address: SocketAddr) -> OwnSocket<'_> {
        self.0.borrow_mut().insert(address);
        OwnSocket { sockets: self, address }
    }

    /// Returns whether the proxy asks from `address`.
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.0.borrow().contains(&address)
    }
}

impl Drop for OwnSocket<'_> {
    fn drop(&mut self) {
        self.sockets.0.borrow_mut().remove(&self.address);
    }
}
