//! One packet in, one packet out, with file descriptors, on a `SOCK_SEQPACKET` unix socket.
//! It knows nothing of the messages inside; see `message`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net as std_unix;
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::ZdsError;

/// Longest packet of the protocol; both sides of Istio use a buffer of this size.
pub const PACKET_BYTES: usize = 1024;

/// Descriptors one packet may carry before it counts as cut off. One is legal; room for more lets the error name the number.
const MAX_DESCRIPTORS: usize = 4;

/// Connections that wait in the kernel until the agent accepts them.
const BACKLOG: i32 = 16;

/// One packet and the descriptors on it; descriptors nobody takes are closed with it.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A connected `SOCK_SEQPACKET` socket. Owns the descriptor; dropping it tells the other side.
///
/// tokio's stream type is only the registration with the reactor here: every read and write is one direct `recvmsg` or `sendmsg`.
pub(crate) struct PacketSocket(UnixStream);

impl PacketSocket {
    /// Connects at once or fails: a unix socket has no handshake to wait for.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let fd = socket()?;
        // With a full backlog a socket that does not block gets EAGAIN; the caller pauses and tries again.
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self(UnixStream::from_std(std_unix::UnixStream::from(fd))?))
    }

    /// The process that connected: `None` as pid when it lives in a pid namespace we cannot see.
    pub(crate) fn peer(&self) -> io::Result<(Option<u32>, u32)> {
        let peer = self.0.peer_cred()?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        Ok((pid, peer.uid()))
    }

    /// The next packet. Cancel-safe: a packet that was read is returned in the same poll, so dropping the future loses neither bytes nor descriptors.
    pub(crate) async fn recv(&self) -> Result<Received, ZdsError> {
        let read = self.0.async_io(Interest::READABLE, || receive(&self.0)).await;
        let (received, flags) = read.map_err(|source| match source.kind() {
            // A unix socket that is closed while packets wait in it reads as a reset at the other end.
            io::ErrorKind::ConnectionReset => ZdsError::Closed,
            _ => ZdsError::Io { action: "read from", source },
        })?;
        if flags.contains(ReturnFlags::TRUNC) {
            return Err(ZdsError::Truncated { what: "longer than 1024 bytes" });
        }
        if flags.contains(ReturnFlags::CTRUNC) {
            return Err(ZdsError::Truncated { what: "more file descriptors than any message has" });
        }
        // No message of the protocol is empty, so an empty packet is the end of the connection.
        if received.bytes.is_empty() {
            return Err(ZdsError::Closed);
        }
        Ok(received)
    }

    /// Sends one whole packet. Cancel-safe: it is sent in the poll that finishes, or not at all.
    pub(crate) async fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), ZdsError> {
        let sent = self.0.async_io(Interest::WRITABLE, || transmit(&self.0, bytes, descriptor)).await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Err(ZdsError::Closed)
            }
            Err(source) => Err(ZdsError::Io { action: "write to", source }),
        }
    }

    /// True when a packet, or the end of the connection, waits to be read. Nothing is taken.
    pub(crate) fn has_unread(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        // The end of the connection reads as 0 bytes, which is a success; EAGAIN means that nothing is there.
        rustix::net::recv(&self.0, &mut [0_u8; 1][..], flags).is_ok()
    }

    /// Sends one packet if the socket takes it at once, for the last word on a connection that ends.
    pub(crate) fn send_now(&self, bytes: &[u8]) {
        // The reason is only for the agent's log, and the connection ends in any case.
        let _: io::Result<usize> = transmit(&self.0, bytes, None);
    }
}

/// A listening socket at `path`; a socket file left by a predecessor is replaced. Mode 0600: only root enrols.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    // bind(2) fails on an existing file, also when its listener is gone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let fd = socket()?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    // Between bind and listen: nobody can connect before.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&fd, BACKLOG)?;
    UnixListener::from_std(std_unix::UnixListener::from(fd))
}

pub(crate) async fn accept(listener: &UnixListener) -> io::Result<PacketSocket> {
    Ok(PacketSocket(listener.accept().await?.0))
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

fn receive(socket: &UnixStream) -> io::Result<(Received, ReturnFlags)> {
    let mut bytes = vec![0_u8; PACKET_BYTES];
    // Room for more descriptors than any message has, so that surplus ones arrive, are noticed and are closed.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    // Owned from here on: whatever becomes of the message, they are closed.
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(read.bytes);
    Ok((Received { bytes, descriptors }, read.flags))
}

fn transmit(socket: &UnixStream, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &descriptor {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
    }
    // Without NOSIGNAL a peer that is gone would raise SIGPIPE.
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}
