//! A socket whose peer must not take a cut for an end. It opens and carries nothing; see `dial` and `relay`.

use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::net::TcpStream;

/// Owns an application's connection. Dropped before [`settle`](Self::settle) it is reset, else closed in order:
/// a task that is cut (drain, pod gone, permission withdrawn) has no chance to say so itself.
#[derive(Debug)]
pub struct Guarded {
    socket: TcpStream,
    settled: bool,
}

impl Guarded {
    /// From now on a cut resets it.
    pub(super) const fn new(socket: TcpStream) -> Self {
        Self { socket, settled: false }
    }

    /// What had to be said has been said.
    pub(super) const fn settle(&mut self) {
        self.settled = true;
    }
}

/// The next close resets the connection, and throws away what was not sent.
pub(super) fn reset_on_close(socket: &TcpStream) {
    // Fails only on a socket that is gone.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

impl Deref for Guarded {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.settled {
            reset_on_close(&self.socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, Guarded) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, Guarded::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn a_cut_resets_and_a_settled_end_does_not() {
        let (mut cut, guarded) = pair().await;
        drop(guarded);
        assert_eq!(cut.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let (mut ended, mut guarded) = pair().await;
        guarded.settle();
        drop(guarded);
        assert_eq!(ended.read(&mut [0]).await.unwrap(), 0);
    }
}
