//! Counts the connections of a network namespace that go through the proxy, by `sock_diag`.
//! It closes none.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ebpf_common::{LOOP_MARK, LOOP_MARK_MASK};
use runtime::sys::Netns;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `SOCK_DIAG_BY_FAMILY`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `INET_DIAG_MARK`; the kernel tells it to `CAP_NET_ADMIN` only.
const INET_DIAG_MARK: u16 = 15;
/// `NLM_F_DUMP_INTR`: sockets came or went in a way that makes the list incomplete.
const DUMP_INTERRUPTED: u16 = 0x10;
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;

/// ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: whatever may still carry
/// a byte. Neither LISTEN nor TIME_WAIT.
const LIVE_STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Longest wait for a part of the kernel's answer, which takes microseconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Counts of one family that may be interrupted in a row.
const COUNTS: usize = 3;

/// How many live TCP sockets of the namespace carry the mark of proxied connections. Each such connection has up to four
/// sockets here, so only zero is a number to act on. Blocks for a few microseconds per socket.
///
/// # Errors
/// When the namespace cannot be entered or the kernel does not answer.
pub fn proxied(netns: &Netns) -> io::Result<usize> {
    let socket = open(netns)?;
    let mut count = 0;
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        count += uninterrupted(|| dump(&socket, family))?;
    }
    Ok(count)
}

fn open(netns: &Netns) -> io::Result<OwnedFd> {
    let protocol = rustix::net::netlink::SOCK_DIAG;
    let made =
        || rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol));
    let socket = netns.run(|| Ok(made()?))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_DEADLINE))?;
    Ok(socket)
}

/// Counts again when a count was interrupted (`None`).
fn uninterrupted(mut count: impl FnMut() -> io::Result<Option<usize>>) -> io::Result<usize> {
    for _ in 0..COUNTS {
        if let Some(count) = count()? {
            return Ok(count);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the list of sockets changes faster than it can be read"))
}

/// `None` when the answer was interrupted. It is read to its end all the same: the next one follows it.
fn dump(socket: &OwnedFd, family: AddressFamily) -> io::Result<Option<usize>> {
    rustix::net::sendto(socket, &request(family), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0_u8; 1 << 16];
    let mut tally = Tally::default();
    loop {
        let (read, _) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if tally.add(&buffer[..read])? {
            return Ok((!tally.interrupted).then_some(tally.count));
        }
    }
}

/// What an answer has told so far.
#[derive(Debug, Default)]
struct Tally {
    count: usize,
    interrupted: bool,
}

impl Tally {
    /// Takes one datagram in; true when it was the last.
    fn add(&mut self, datagram: &[u8]) -> io::Result<bool> {
        for message in Messages(datagram) {
            self.interrupted |= message.flags & DUMP_INTERRUPTED != 0;
            match message.kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return Err(refused(message.payload)),
                SOCK_DIAG_BY_FAMILY if mark(message.payload).is_some_and(|mark| mark & LOOP_MARK_MASK == LOOP_MARK) => {
                    self.count += 1;
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// A header and `struct inet_diag_req_v2` with everything else zero: any address, any port.
fn request(family: AddressFamily) -> Vec<u8> {
    const TCP: u8 = 6;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 56);
    bytes.extend(u32::try_from(HEADER_BYTES + 56).unwrap_or_default().to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([u8::try_from(family.as_raw()).unwrap_or_default(), TCP, 0, 0]);
    bytes.extend(LIVE_STATES.to_ne_bytes());
    bytes.resize(HEADER_BYTES + 56, 0);
    bytes
}

fn refused(payload: &[u8]) -> io::Error {
    match word(payload, 0) {
        Some(code) => io::Error::from_raw_os_error((code as i32).wrapping_neg()),
        None => io::ErrorKind::InvalidData.into(),
    }
}

fn mark(payload: &[u8]) -> Option<u32> {
    let mut attributes = payload.get(MESSAGE_BYTES..)?;
    loop {
        let (length, kind) = (half(attributes, 0)?, half(attributes, 2)?);
        if kind == INET_DIAG_MARK {
            return word(attributes, 4);
        }
        attributes = attributes.get(aligned(usize::from(length)).max(4)..)?;
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    payload: &'a [u8],
}

/// The netlink messages of one datagram; ends at the first that does not fit.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = word(self.0, 0)? as usize;
        let payload = self.0.get(HEADER_BYTES..length)?;
        let message = Message { kind: half(self.0, 4)?, flags: half(self.0, 6)?, payload };
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(message)
    }
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
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

    /// A message without payload.
    fn message(kind: u16, flags: u16) -> Vec<u8> {
        [&16_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat()
    }

    #[test]
    fn an_interrupted_answer_is_read_to_its_end_and_does_not_count() {
        let mut tally = Tally::default();
        let datagram = [message(SOCK_DIAG_BY_FAMILY, DUMP_INTERRUPTED), message(SOCK_DIAG_BY_FAMILY, 0)].concat();

        assert!(!tally.add(&datagram).unwrap());
        assert!(tally.add(&message(NLMSG_DONE, 0)).unwrap());
        assert!(tally.interrupted);
        let mut calm = Tally::default();
        assert!(calm.add(&message(NLMSG_DONE, 2)).unwrap() && !calm.interrupted);
    }

    #[test]
    fn an_interrupted_count_is_made_again_and_not_for_ever() {
        let mut answers = [None, Some(3), Some(4)].into_iter();

        assert_eq!(uninterrupted(|| Ok(answers.next().unwrap())).unwrap(), 3);
        assert_eq!(uninterrupted(|| Ok(None)).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn nobody_waits_for_a_kernel_that_does_not_answer() {
        let Some(netns) = crate::testing::netns() else { return };

        let socket = open(&netns).unwrap();

        let timeout = rustix::net::sockopt::socket_timeout(&socket, Timeout::Recv).unwrap();
        assert_eq!(timeout, Some(ANSWER_DEADLINE));
    }

    #[test]
    fn a_datagram_that_was_cut_off_ends_the_list() {
        assert_eq!(Messages(&[1, 0, 0]).count(), 0);
        assert_eq!(Messages(&[255; 32]).count(), 0);
        assert!(mark(&[0; 80]).is_none());
    }
}
