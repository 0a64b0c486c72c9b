//! Ways of a pod to its nameservers, as the server needs them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpStream, UdpSocket};

/// Makes sockets for one pod: in its network namespace, so that nameservers see the pod's address, and with the mark by
/// which redirection lets them pass.
pub trait PodNetwork: 'static {
    /// Held as long as the socket of it is open.
    type Guard: 'static;

    /// A socket that is connected to `to`: it receives only from there.
    ///
    /// # Errors
    /// When there is no socket for this pod, or no way to `to`.
    fn udp(&self, to: SocketAddr) -> io::Result<(UdpSocket, Self::Guard)>;

    /// A connection to `to`. Its future may be dropped.
    ///
    /// # Errors
    /// As [`udp`](Self::udp), and when nobody accepts.
    fn tcp(&self, to: SocketAddr) -> impl Future<Output = io::Result<(TcpStream, Self::Guard)>>;

    /// Notes that the pod has more than [`FORWARDED_QUESTIONS`](crate::FORWARDED_QUESTIONS) under way: one was refused.
    fn refused(&self);
}
