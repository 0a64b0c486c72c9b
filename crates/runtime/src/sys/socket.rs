//! Socket options that steering and the proxies need. Each function says which kernel
//! knows the option and what the caller must be allowed to do.

use std::{
    io,
    mem::size_of,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};

/// `SO_MARK`. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    SockRef::from(socket).set_mark(mark)
}

/// `IP_TRANSPARENT` and `IP_FREEBIND`, of both families on an IPv6 socket: the socket may be
/// bound to, and accept connections for, addresses that are not the host's. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_transparent(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.domain()? == socket2::Domain::IPV6 {
        socket.set_freebind_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_freebind_v4(true)?;
    socket.set_ip_transparent_v4(true)
}

/// Lets a socket of the family of `address` bind to it, whoever's it is: `IP_TRANSPARENT` alone, which also has replies
/// routed as its own (ip(7)), in one call. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_transparent_for(socket: &impl AsFd, address: IpAddr) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match address {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// `IP_BIND_ADDRESS_NO_PORT`: bind(2) with port 0 leaves the choice of the port to connect(2),
/// so that ports are shared between destinations. Needs Linux 4.2.
///
/// # Errors
/// Those of setsockopt(2).
pub fn bind_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a live c_int and the length is its size; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Destination of a connection before netfilter redirected it (`SO_ORIGINAL_DST`); `None` when netfilter knows nothing
/// of it. `peer` is who connects, and tells the family: an IPv4 client of a dual-stack listener is one of IPv4.
/// IPv4-mapped addresses come back as IPv4.
#[must_use]
pub fn original_dst(socket: &impl AsFd, peer: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(socket);
    let found = if canonical(peer).is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    found.ok()?.as_socket().map(canonical)
}

/// An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) as the IPv4 address that it is.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// TCP keepalive: first probe after `idle`, then every `interval`, dead after `retries`.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_keepalive(socket: &impl AsFd, idle: Duration, interval: Duration, retries: u32) -> io::Result<()> {
    let params = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    SockRef::from(socket).set_tcp_keepalive(&params)
}

/// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_user_timeout(socket: &impl AsFd, timeout: Duration) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(timeout))
}

/// Bytes that were written to a TCP socket and that its peer has not acknowledged (`SIOCOUTQ`, tcp(7)). Says nothing of
/// use about a socket that was reset.
///
/// # Errors
/// Those of ioctl(2).
pub fn unacknowledged_bytes(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the pointer is to a live c_int, which is what the kernel writes for this request (`SIOCOUTQ`).
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Gives new connections of a `SO_REUSEPORT` group to its second member, for a listener that is about to close: the
/// first is the older one. Without a second member nothing changes, and what waits for the first stays with it. Needs
/// Linux 4.5 (`SO_ATTACH_REUSEPORT_CBPF`).
///
/// # Errors
/// Those of setsockopt(2), so when the socket is in no group.
pub fn leave_reuseport_group(listener: &impl AsFd) -> io::Result<()> {
    // `BPF_RET | BPF_K`: the index of the member.
    let mut program = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 1 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: both pointers are to live values, the lengths are theirs, and the kernel copies the program.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The cookie of the network namespace that a socket was made in. Needs Linux 5.14.
///
/// # Errors
/// Those of getsockopt(2).
pub fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both pointers are to live variables, and `length` says how much the first may take.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();

        assert_eq!(canonical(mapped), SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 80)));
    }

    #[test]
    fn a_socket_that_nobody_redirected_has_no_original_destination() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(loopback) else { continue };

            assert_eq!(original_dst(&listener, loopback.parse().unwrap()), None);
        }
    }

    #[test]
    fn what_a_peer_has_not_read_counts_as_unacknowledged_only_until_its_kernel_has_it() {
        use std::io::Write;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let far = listener.accept().unwrap();

        // Until neither kernel takes more.
        let chunk = [7; 65536];
        while near.write(&chunk).is_ok() {}

        assert!(unacknowledged_bytes(&near).unwrap() > 0);
        assert_eq!(unacknowledged_bytes(&far.0).unwrap(), 0);
    }

    #[test]
    fn a_listener_that_leaves_its_group_gets_no_new_connection() {
        let member = |address: SocketAddr| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(128).unwrap();
            socket.set_nonblocking(true).unwrap();
            TcpListener::from(socket)
        };
        let first = member("127.0.0.1:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let second = member(address);

        leave_reuseport_group(&first).unwrap();

        let clients: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        assert!(first.accept().is_err());
        let mut taken = 0;
        while second.accept().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, clients.len());
        // A group of one goes on as it was.
        drop(first);
        std::net::TcpStream::connect(address).unwrap();
        assert!(second.accept().is_ok());
    }

    #[test]
    fn a_datagram_socket_that_leaves_its_group_gets_no_new_datagram() {
        let member = |address: SocketAddr| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            std::net::UdpSocket::from(socket)
        };
        let first = member("127.0.0.1:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let client = member("127.0.0.1:0".parse().unwrap());
        client.send_to(b"before", address).unwrap();
        let second = member(address);

        leave_reuseport_group(&first).unwrap();

        let clients: Vec<_> = (0..50).map(|_| member("127.0.0.1:0".parse().unwrap())).collect();
        for client in &clients {
            client.send_to(b"after", address).unwrap();
        }
        let mut buffer = [0; 16];
        assert_eq!(first.recv(&mut buffer).unwrap(), b"before".len());
        assert!(first.recv(&mut buffer).is_err());
        for _ in &clients {
            assert_eq!(second.recv(&mut buffer).unwrap(), b"after".len());
        }
    }

    #[test]
    fn two_sockets_of_one_namespace_have_its_cookie() {
        let (a, b) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());

        assert_ne!(netns_cookie(&a).unwrap(), 0);
        assert_eq!(netns_cookie(&a).unwrap(), netns_cookie(&b).unwrap());
    }
}
