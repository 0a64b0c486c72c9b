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

/// Where a connection was going before netfilter redirected it (`SO_ORIGINAL_DST`); `None` when netfilter knows nothing
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
    fn two_sockets_of_one_namespace_have_its_cookie() {
        let (a, b) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());

        assert_ne!(netns_cookie(&a).unwrap(), 0);
        assert_eq!(netns_cookie(&a).unwrap(), netns_cookie(&b).unwrap());
    }
}
