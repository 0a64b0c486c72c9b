//! Packet sockets: everything that passes an interface, for captures.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::AsRawFd,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

/// An `AF_PACKET` socket (packet(7)) that sees every frame of the interface, in both
/// directions, link header included. The interface is one of the calling thread's netns.
/// Needs `CAP_NET_RAW`.
///
/// # Errors
/// When there is no such interface, or without the capability.
pub fn packet_socket(interface_index: u32) -> io::Result<Socket> {
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(every_protocol))))?;
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every_protocol;
    address.sll_ifindex = i32::try_from(interface_index).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer is to a live sockaddr_ll and the length is its size.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// `SO_RCVBUFFORCE`: how many bytes may wait to be read, whatever the system's limit. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer is to a live c_int and the length is its size; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Frames that a packet socket lost because they were not read in time, since the last call
/// (`PACKET_STATISTICS`, packet(7)).
///
/// # Errors
/// Those of getsockopt(2).
pub fn dropped(socket: &Socket) -> io::Result<u32> {
    // Packets seen, then packets dropped (struct tpacket_stats).
    let mut statistics = [0_u32; 2];
    let mut length = size_of::<[u32; 2]>() as libc::socklen_t;
    // SAFETY: both pointers are to live variables, and `length` says how much the first may take.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(statistics[1]) } else { Err(io::Error::last_os_error()) }
}

/// Takes the socket to the calling task's runtime, which then tells when there is a packet to read.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, always names the same one, and keeps it open until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
