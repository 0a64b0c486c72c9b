//! Accepts connections that no runtime knows yet: who will carry one is the first to watch it.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::{Interest, unix::AsyncFd};

use super::socket;

/// A listener that a runtime watches. Owns its descriptor; connections that wait in it when it is dropped are reset.
#[derive(Debug)]
pub struct Listener(AsyncFd<TcpListener>);

impl Listener {
    /// Of a listener that does not block. Must be called inside the runtime that is to watch it.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        // SAFETY: the listener owns its descriptor, has no other for life, and is dropped with the `AsyncFd`.
        let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Leaves new connections to a successor's listener on the same port, if there is one; see
    /// [`socket::leave_reuseport_group`]. Those that the kernel has begun to take still come here.
    pub fn leave_group(&self) {
        // Fails for a listener without `SO_REUSEPORT`, which has no successor beside it.
        let _ = socket::leave_reuseport_group(self.0.get_ref());
    }

    /// The next connection, not blocking, and who opened it. Dropping the future loses none.
    ///
    /// # Errors
    /// Those of accept4(2); `ConnectionAborted` when the kernel does not say who it is.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.async_io(Interest::READABLE, accept).await
    }
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn connections_come_with_their_peer_and_do_not_block() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(loopback) else { continue };
            listener.set_nonblocking(true).unwrap();
            let to = listener.local_addr().unwrap();
            let listener = Listener::new(listener).unwrap();
            for _ in 0..3 {
                let client = TcpStream::connect(to).unwrap();

                let (mut socket, peer) = listener.accept().await.unwrap();

                assert_eq!(peer, client.local_addr().unwrap());
                assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            }
        }
    }
}
