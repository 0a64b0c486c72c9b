//! A client's connection to the control plane, from the end of its handshake on.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::admission::{Admission, Notice};

/// TLS over TCP. Reading fails when the connection has lost its place, see [`Admission`].
#[derive(Debug)]
pub struct ServerStream {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    notice: Notice,
}

impl ServerStream {
    pub(super) fn new(stream: TlsStream<TcpStream>, peer: SocketAddr, mut notice: Notice) -> Self {
        notice.begin();
        Self { stream, peer, notice }
    }

    /// Address of the client, and the connection's place.
    pub fn info(&self) -> ConnectionInfo {
        ConnectionInfo { peer: self.peer, admission: self.notice.admission() }
    }
}

/// A connection, as extension of each of its requests.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Address of the client.
    pub peer: SocketAddr,
    /// To be told when the client has proved who it is.
    pub admission: Admission,
}

impl AsyncRead for ServerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 reads as long as the connection lives, so this is polled whenever the client is quiet, and a reader's
        // error closes the connection.
        if let Poll::Ready(lost) = self.notice.poll_lost(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, lost)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        // A lost place is noticed by the reader alone: its error ends the connection for both.
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
