//! Netlink dumps for which there is no crate here: requests in bytes, answers message by message. What they mean is the
//! business of `connections` and `hooks`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use runtime::sys::Netns;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: objects came or went in a way that makes the list incomplete.
const DUMP_INTERRUPTED: u16 = 0x10;
const HEADER_BYTES: usize = 16;

/// Longest wait for a part of the kernel's answer, which takes microseconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Lists that may be interrupted in a row.
const DUMPS: usize = 3;

/// A netlink socket in a network namespace, which gives up waiting after two seconds.
///
/// # Errors
/// When the namespace cannot be entered or no descriptor is left.
pub(crate) fn open(netns: &Netns, protocol: Protocol) -> io::Result<OwnedFd> {
    let made =
        || rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol));
    let socket = netns.run(|| Ok(made()?))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_DEADLINE))?;
    Ok(socket)
}

/// Folds every message of this kind of a whole list, which is begun anew when it was interrupted.
///
/// # Errors
/// Those of the kernel; when the list changes faster than it can be read.
pub(crate) fn dump<T>(
    socket: &OwnedFd,
    kind: u16,
    payload: &[u8],
    start: impl Fn() -> T,
    fold: impl Fn(&mut T, &[u8]),
) -> io::Result<T> {
    uninterrupted(|| {
        rustix::net::sendto(socket, &request(kind, payload)?, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        // The kernel caps the datagrams of a dump at 32 KiB.
        let mut buffer = vec![0_u8; 1 << 16];
        let mut list = List { folded: start(), interrupted: false };
        loop {
            let (read, _) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            if list.add(&buffer[..read], &fold)? {
                return Ok((!list.interrupted).then_some(list.folded));
            }
        }
    })
}

/// Asks again when an answer was interrupted (`None`).
fn uninterrupted<T>(mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..DUMPS {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the list changes faster than it can be read"))
}

/// Part of an answer that was read so far. It is read to its end also when it was interrupted: the next one follows it.
struct List<T> {
    folded: T,
    interrupted: bool,
}

impl<T> List<T> {
    /// Takes one datagram in; true when it was the last.
    fn add(&mut self, datagram: &[u8], fold: impl Fn(&mut T, &[u8])) -> io::Result<bool> {
        for message in Messages(datagram) {
            self.interrupted |= message.flags & DUMP_INTERRUPTED != 0;
            match message.kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return Err(refused(message.payload)),
                _ => fold(&mut self.folded, message.payload),
            }
        }
        Ok(false)
    }
}

fn request(kind: u16, payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(HEADER_BYTES + payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    // Sequence number and port stay 0: one request at a time is under way.
    bytes.extend([0; 8]);
    bytes.extend(payload);
    Ok(bytes)
}

fn refused(payload: &[u8]) -> io::Error {
    match word(payload, 0) {
        Some(code) => io::Error::from_raw_os_error((code as i32).wrapping_neg()),
        None => io::ErrorKind::InvalidData.into(),
    }
}

/// The payload of the first attribute of this kind. Flags of nesting and byte order are no part of the kind.
pub(crate) fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(half(attributes, 0)?), half(attributes, 2)? & 0x3fff);
        if kind == wanted {
            return attributes.get(4..length);
        }
        // At least 4, so that a length of 0 cannot loop for ever.
        attributes = attributes.get(aligned(length).max(4)..)?;
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

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message without payload.
    fn message(kind: u16, flags: u16) -> Vec<u8> {
        [&16_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat()
    }

    #[test]
    fn an_interrupted_answer_is_read_to_its_end_and_does_not_count() {
        let count = |count: &mut usize, _: &[u8]| *count += 1;
        let mut list = List { folded: 0, interrupted: false };
        let datagram = [message(20, DUMP_INTERRUPTED), message(20, 0)].concat();

        assert!(!list.add(&datagram, count).unwrap());
        assert!(list.add(&message(NLMSG_DONE, 0), count).unwrap());
        assert!(list.interrupted && list.folded == 2);
        let mut calm = List { folded: 0, interrupted: false };
        assert!(calm.add(&message(NLMSG_DONE, 2), count).unwrap() && !calm.interrupted);
    }

    #[test]
    fn an_interrupted_list_is_asked_for_again_and_not_for_ever() {
        let mut answers = [None, Some(3), Some(4)].into_iter();

        assert_eq!(uninterrupted(|| Ok(answers.next().unwrap())).unwrap(), 3);
        assert_eq!(uninterrupted(|| Ok(None::<()>)).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn nobody_waits_for_a_kernel_that_does_not_answer() {
        let Some(netns) = crate::testing::netns() else { return };

        let socket = open(&netns, rustix::net::netlink::SOCK_DIAG).unwrap();

        let timeout = rustix::net::sockopt::socket_timeout(&socket, Timeout::Recv).unwrap();
        assert_eq!(timeout, Some(ANSWER_DEADLINE));
    }

    #[test]
    fn a_datagram_that_was_cut_off_ends_the_list() {
        assert_eq!(Messages(&[1, 0, 0]).count(), 0);
        assert_eq!(Messages(&[255; 32]).count(), 0);
        assert!(attribute(&[0; 80], 15).is_none());
        assert!(attribute(&[8, 0, 15, 0, 1], 15).is_none());
    }
}
