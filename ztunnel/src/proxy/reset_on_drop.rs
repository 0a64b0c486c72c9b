//! A socket that is reset when its task is cut, so that its peer does not mistake a cut for an orderly end. It opens and
//! carries nothing; see `dial` and `relay`.

use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::net::TcpStream;

/// Owns an application's connection. Dropped before [`finish`](Self::finish) it is reset, else closed in order: a task
/// that is cut (drain, pod gone, permission withdrawn) runs no more code that could reset it.
#[derive(Debug)]
pub struct ResetOnDrop {
    socket: TcpStream,
    is_finished: bool,
}

impl ResetOnDrop {
    /// Resets `socket` when dropped.
    pub(super) const fn new(socket: TcpStream) -> Self {
        Self { socket, is_finished: false }
    }

    /// Marks the connection as cleanly finished; Drop then sends FIN instead of RST.
    pub(super) const fn finish(&mut self) {
        self.is_finished = true;
    }
}

/// Makes the next close reset the connection, and discard what was not sent.
pub(super) fn reset_on_close(socket: &TcpStream) {
    // Fails only on a socket that is gone.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

impl Deref for ResetOnDrop {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

impl DerefMut for ResetOnDrop {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.is_finished {
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

    async fn pair() -> (TcpStream, ResetOnDrop) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, ResetOnDrop::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn a_cut_resets_and_a_finished_connection_ends_in_order() {
        let (mut cut, guarded) = pair().await;
        drop(guarded);
        assert_eq!(cut.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let (mut ended, mut guarded) = pair().await;
        guarded.finish();
        drop(guarded);
        assert_eq!(ended.read(&mut [0]).await.unwrap(), 0);
    }
}
