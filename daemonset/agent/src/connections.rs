//! Counts the connections of a network namespace that go through the proxy, by `sock_diag`.
//! It closes none.

use std::io;

use ebpf_common::{LOOP_MARK, LOOP_MARK_MASK};
use runtime::sys::Netns;
use rustix::net::AddressFamily;
use rustix::net::netlink::SOCK_DIAG;

use crate::raw_netlink::{self, attribute, word};

/// `SOCK_DIAG_BY_FAMILY`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `INET_DIAG_MARK`; the kernel tells it to `CAP_NET_ADMIN` only.
const INET_DIAG_MARK: u16 = 15;
/// `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;
/// `struct inet_diag_req_v2`.
const REQUEST_BYTES: usize = 56;

/// ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: whatever may still carry
/// a byte. Neither LISTEN nor TIME_WAIT.
const LIVE_STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Number of live TCP sockets of the namespace that carry the mark of proxied connections. Each such connection has up to four
/// sockets here, so only zero is a number to act on. Blocks for a few microseconds per socket.
///
/// # Errors
/// When the namespace cannot be entered or the kernel does not answer.
pub fn proxied(netns: &Netns) -> io::Result<usize> {
    let socket = raw_netlink::open(netns, SOCK_DIAG)?;
    let mut count = 0;
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        count += raw_netlink::dump(
            &socket,
            SOCK_DIAG_BY_FAMILY,
            &request(family),
            || 0,
            |count, message| {
                *count += usize::from(mark(message).is_some_and(|mark| mark & LOOP_MARK_MASK == LOOP_MARK));
            },
        )?;
    }
    Ok(count)
}

/// `struct inet_diag_req_v2` with everything else zero: any address, any port.
fn request(family: AddressFamily) -> Vec<u8> {
    const TCP: u8 = 6;
    let mut bytes = vec![u8::try_from(family.as_raw()).unwrap_or_default(), TCP, 0, 0];
    bytes.extend(LIVE_STATES.to_ne_bytes());
    bytes.resize(REQUEST_BYTES, 0);
    bytes
}

fn mark(message: &[u8]) -> Option<u32> {
    word(attribute(message.get(MESSAGE_BYTES..)?, INET_DIAG_MARK)?, 0)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use runtime::sys::socket::set_mark;

    use super::*;

    #[tokio::test]
    async fn only_live_connections_with_the_mark_count() {
        let Some(netns) = crate::testing::netns() else { return };
        crate::testing::loopback_up(&netns).await;
        let (listener, plain, _accepted) = netns
            .run(|| {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let plain = TcpStream::connect(listener.local_addr()?)?;
                let accepted = listener.accept()?;
                Ok((listener, plain, accepted))
            })
            .unwrap();

        assert_eq!(proxied(&netns).unwrap(), 0);
        set_mark(&plain, 0x7_0111).unwrap();
        set_mark(&listener, LOOP_MARK).unwrap();
        assert_eq!(proxied(&netns).unwrap(), 1);
        set_mark(&plain, 0x539).unwrap();
        assert_eq!(proxied(&netns).unwrap(), 0);
    }
}
