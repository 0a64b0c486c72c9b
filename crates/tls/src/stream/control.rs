//! Records without application data: handshake messages after the handshake, and alerts.

use super::record::Fault;
use rustls::AlertDescription;
use std::io;

/// Handshake messages that come after the handshake.
const NEW_SESSION_TICKET: u8 = 4;
pub(super) const KEY_UPDATE: u8 = 24;
/// Longest message after the handshake: more than any ticket needs, bytes.
const MESSAGE_BYTES: usize = 64 << 10;

/// Handshake messages, put together from the records that carry them (RFC 8446, section 5.1).
#[derive(Debug)]
pub(super) struct Messages {
    /// First part of a message whose rest is in the next record.
    partial: Vec<u8>,
    /// The peer may send session tickets, as servers do. They are not used.
    tickets: bool,
}

impl Messages {
    pub(super) fn new(tickets: bool) -> Self {
        Self { partial: Vec::new(), tickets }
    }

    /// Returns whether the next record must continue a message.
    pub(super) fn is_open(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Processes the payload of one handshake record. Returns the peer's KeyUpdate, if there is one: whether it requests
    /// one from us (section 4.6.3).
    pub(super) fn recv(&mut self, payload: &[u8]) -> Result<Option<bool>, Fault> {
        if payload.is_empty() {
            return Err(unexpected("received an empty handshake record"));
        }
        self.partial.extend_from_slice(payload);
        let joined = std::mem::take(&mut self.partial);
        let mut rest = joined.as_slice();
        let mut update = None;
        while let Some(message) = Message::first_of(rest)? {
            match (message.kind, message.body) {
                (NEW_SESSION_TICKET, _) if self.tickets => {}
                // The key changes with the next record, so nothing may follow in this one.
                (KEY_UPDATE, [request @ (0 | 1)]) if message.next.is_empty() => update = Some(*request == 1),
                _ => return Err(unexpected("received an unexpected handshake message")),
            }
            rest = message.next;
        }
        self.partial = rest.to_vec();
        Ok(update)
    }
}

struct Message<'a> {
    kind: u8,
    body: &'a [u8],
    /// Bytes behind it.
    next: &'a [u8],
}

impl<'a> Message<'a> {
    /// Returns the first message in `bytes`, or `None` while it is not whole.
    fn first_of(bytes: &'a [u8]) -> Result<Option<Self>, Fault> {
        let [kind, a, b, c, rest @ ..] = bytes else { return Ok(None) };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length > MESSAGE_BYTES {
            return Err(unexpected("received a handshake message that is too long"));
        }
        Ok(rest.split_at_checked(length).map(|(body, next)| Self { kind: *kind, body, next }))
    }
}

fn unexpected(what: &'static str) -> Fault {
    Fault { what, alert: AlertDescription::UnexpectedMessage }
}

/// Effect of an alert on the peer's direction.
#[derive(Debug)]
pub(super) enum Alert {
    /// No more data (`close_notify`).
    End,
    /// Nothing yet: `user_canceled`, which `close_notify` follows (section 6.1).
    Notice,
    /// The peer has given up. All others are, whatever level they are sent with (section 6).
    Fatal(io::Error),
}

/// Reads the payload of an alert record.
pub(super) fn alert(payload: &[u8]) -> Result<Alert, Fault> {
    let [_, code] = payload else {
        return Err(Fault { what: "received a malformed alert", alert: AlertDescription::DecodeError });
    };
    Ok(match AlertDescription::from(*code) {
        AlertDescription::CloseNotify => Alert::End,
        AlertDescription::UserCanceled => Alert::Notice,
        other => Alert::Fatal(io::Error::new(io::ErrorKind::ConnectionAborted, rustls::Error::AlertReceived(other))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind], &length[1..], body].concat()
    }

    #[test]
    fn messages_are_put_together_however_records_cut_them() {
        let both = [message(NEW_SESSION_TICKET, &[9; 300]), message(KEY_UPDATE, &[1])].concat();
        for at in 1..both.len() {
            let mut messages = Messages::new(true);

            assert_eq!(messages.recv(&both[..at]).unwrap(), None, "{at}");
            assert_eq!(messages.recv(&both[at..]).unwrap(), Some(true), "{at}");
            assert!(!messages.is_open());
        }
    }

    #[test]
    fn what_has_no_place_after_a_handshake_is_refused() {
        let ticket = message(NEW_SESSION_TICKET, b"ticket");
        let update = message(KEY_UPDATE, &[0]);
        let cases = [
            ("empty", Vec::new(), true),
            ("a client's ticket", ticket.clone(), false),
            ("something behind a new key", [update, ticket].concat(), true),
            ("neither yes nor no", message(KEY_UPDATE, &[2]), true),
            ("a Finished", message(20, &[0; 32]), true),
            ("longer than any", vec![NEW_SESSION_TICKET, 1, 0, 1], true),
        ];
        for (what, payload, tickets) in cases {
            assert!(Messages::new(tickets).recv(&payload).is_err(), "{what}");
        }
    }

    #[test]
    fn alerts_end_warn_or_fail() {
        assert!(matches!(alert(&[1, 0]), Ok(Alert::End)));
        assert!(matches!(alert(&[1, 90]), Ok(Alert::Notice)));
        // Unknown, and known ones sent as a warning.
        assert!(matches!(alert(&[1, 48]), Ok(Alert::Fatal(_))));
        assert!(matches!(alert(&[2, 200]), Ok(Alert::Fatal(_))));
        assert!(alert(&[2]).is_err());
    }

    proptest! {
        #[test]
        fn any_records_are_messages_or_refused(records in vec(vec(any::<u8>(), 0..40), 0..10), tickets: bool) {
            let mut messages = Messages::new(tickets);
            for record in &records {
                if messages.recv(record).is_err() {
                    break;
                }
                prop_assert!(messages.partial.len() < 4 + MESSAGE_BYTES);
            }
            let _ = records.first().map(|record| alert(record));
        }

        #[test]
        fn messages_mean_the_same_however_records_cut_them(lengths in vec(0..300_usize, 1..6), size in 1..500_usize) {
            let all: Vec<u8> = lengths.iter().flat_map(|n| message(NEW_SESSION_TICKET, &vec![7; *n])).collect();
            let all = [all, message(KEY_UPDATE, &[0])].concat();
            let mut messages = Messages::new(true);

            let updates: Vec<_> = all.chunks(size).filter_map(|record| messages.recv(record).unwrap()).collect();

            prop_assert_eq!(updates, vec![false]);
            prop_assert!(!messages.is_open());
        }
    }
}
