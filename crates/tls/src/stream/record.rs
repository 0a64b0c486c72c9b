//! TLS 1.3 records (RFC 8446, section 5) sealed and opened in place, in large batches.
//! Keys come from a handshake that rustls has done; see `handshake`.

use super::buffers::{self, INPUT_BYTES};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{AlertDescription, ConnectionTrafficSecrets};
use std::io::{self, IoSlice};
use std::mem;
use std::ops::Range;

/// Content types.
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

const HEADER_BYTES: usize = 5;
/// Largest payload of one record, bytes (section 5.1).
const PAYLOAD_BYTES: usize = 1 << 14;
/// Largest difference between the lengths of a sealed record and of its payload, bytes (section 5.2).
const EXPANSION_BYTES: usize = 256;
/// Number of records under one key before it is renewed. AES-GCM allows 2^24.5 of full size (section 5.5).
const RECORDS_PER_KEY: u64 = 1 << 23;

/// Fault of a peer's bytes, and the alert that tells the peer (RFC 8446, section 6.2).
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) alert: AlertDescription,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// One direction's key.
struct Key {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Key {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> io::Result<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(invalid("cannot use the traffic keys: unknown cipher suite")),
        };
        let unbound = UnboundKey::new(algorithm, key.as_ref())
            .map_err(|_| invalid("cannot use the traffic key: wrong length"))?;
        let iv = iv.as_ref().try_into().map_err(|_| invalid("cannot use the traffic IV: wrong length"))?;
        Ok(Self { key: LessSafeKey::new(unbound), iv, sequence })
    }

    /// Returns the next nonce. None is used twice with one key: the sequence number only grows, and the key is renewed
    /// long before it wraps.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        // Section 5.3: the IV, with the sequence number in network order over its last eight bytes.
        for (byte, sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Sending direction, with the records that wait for the socket.
pub(super) struct Sealer {
    key: Key,
    out: Vec<u8>,
    sent: usize,
}

impl Sealer {
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> io::Result<Self> {
        Ok(Self { key: Key::new(sequence, secrets)?, out: Vec::new(), sent: 0 })
    }

    /// Returns whether the key must be renewed before more is sealed.
    pub(super) fn wants_new_key(&self) -> bool {
        self.key.sequence >= RECORDS_PER_KEY
    }

    /// Uses another key from here on.
    pub(super) fn renew(&mut self, sequence: u64, secrets: &ConnectionTrafficSecrets) -> io::Result<()> {
        self.key = Key::new(sequence, secrets)?;
        Ok(())
    }

    /// Seals all of `parts`, in as few records as possible.
    pub(super) fn seal(&mut self, content: u8, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // A buffer of the thread, while there is something to send; an idle tunnel holds none.
        if self.out.capacity() == 0 {
            self.out = buffers::output();
        }
        let total: usize = parts.iter().map(|p| p.len()).sum();
        // Reserve once for all records: growing the buffer would copy what is sealed already.
        let records = total.div_ceil(PAYLOAD_BYTES);
        self.out.reserve(total + records * (HEADER_BYTES + 1 + self.key.key.algorithm().tag_len()));
        let mut begin = self.out.len();
        let mut room = 0;
        for part in parts {
            let mut part: &[u8] = part;
            while !part.is_empty() {
                if room == 0 {
                    begin = self.out.len();
                    // Version 1.2, as section 5.1 requires; the length is filled in once it is known.
                    self.out.extend_from_slice(&[DATA, 3, 3, 0, 0]);
                    room = PAYLOAD_BYTES;
                }
                let (now, later) = part.split_at(part.len().min(room));
                // The one copy of the payload; encryption is in place.
                self.out.extend_from_slice(now);
                room -= now.len();
                part = later;
                if room == 0 {
                    self.close_record(begin, content)?;
                }
            }
        }
        if room > 0 {
            self.close_record(begin, content)?;
        }
        Ok(total)
    }

    /// Seals the record whose header is at `begin` and whose payload is all that follows.
    fn close_record(&mut self, begin: usize, content: u8) -> io::Result<()> {
        // The real content type is inside the encryption; the header always says application data (section 5.2).
        self.out.push(content);
        let sealed = self.out.len() - begin - HEADER_BYTES + self.key.key.algorithm().tag_len();
        // At most 2^14 + 256.
        let length = u16::try_from(sealed).map_err(|_| invalid("cannot seal a record: it is too long"))?;
        self.out[begin + 3..begin + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        let nonce = self.key.nonce();
        let (header, body) = self.out[begin..].split_at_mut(HEADER_BYTES);
        let tag = self.key.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
        let tag = tag.map_err(|_| invalid("cannot seal a record"))?;
        self.out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Returns the bytes that are sealed and not sent.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// Notes that the first `n` bytes of [`waiting`](Self::waiting) are sent.
    pub(super) fn advance(&mut self, n: usize) {
        self.sent += n;
        // Compacted only when all is sent: moving the rest would cost more than the room that it frees.
        if self.sent == self.out.len() {
            self.sent = 0;
            buffers::recycle_output(mem::take(&mut self.out));
        }
    }
}

/// Receiving direction, with the bytes of the socket.
pub(super) struct Opener {
    key: Key,
    /// A buffer of the thread while the socket has bytes; between times one that just holds a record's begin.
    input: Vec<u8>,
    start: usize,
    end: usize,
}

/// A record, opened: its content type and where its payload is.
pub(super) struct Opened {
    pub(super) content: u8,
    pub(super) payload: Range<usize>,
}

impl Opener {
    /// Begins with `received`, which followed the handshake and is not opened yet.
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets, received: &[u8]) -> io::Result<Self> {
        let end = received.len();
        Ok(Self { key: Key::new(sequence, secrets)?, input: received.to_vec(), start: 0, end })
    }

    /// Uses another key from here on.
    pub(super) fn renew(&mut self, sequence: u64, secrets: &ConnectionTrafficSecrets) -> io::Result<()> {
        self.key = Key::new(sequence, secrets)?;
        Ok(())
    }

    /// Returns room for the next read, more than a record. Payloads of records opened before are overwritten.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let left = self.end - self.start;
        // At most a record is left over, so moving it to the front costs little.
        if self.input.len() == INPUT_BYTES {
            self.input.copy_within(self.start..self.end, 0);
        } else {
            // Holds only the begin of a record, at most 16 KiB, or nothing.
            let mut next = buffers::input();
            next[..left].copy_from_slice(&self.input[self.start..self.end]);
            self.input = next;
        }
        (self.start, self.end) = (0, left);
        &mut self.input[left..]
    }

    /// Returns the buffer to the thread, as nothing comes for now, and keeps what is not opened yet.
    pub(super) fn rest(&mut self) {
        if self.input.len() == INPUT_BYTES {
            let left = self.input[self.start..self.end].to_vec();
            (self.start, self.end) = (0, left.len());
            buffers::recycle_input(mem::replace(&mut self.input, left));
        }
    }

    /// Notes that `n` bytes were read into [`room`](Self::room).
    pub(super) fn filled(&mut self, n: usize) {
        self.end += n;
    }

    /// Opens the next whole record, if there is one.
    ///
    /// All records are encrypted: the `change_cipher_spec` that appendix D.4 allows comes before the peer's
    /// Finished, so the handshake has processed it.
    pub(super) fn open(&mut self) -> Result<Option<Opened>, Fault> {
        let input = &mut self.input[self.start..self.end];
        let Some((header, rest)) = input.split_at_mut_checked(HEADER_BYTES) else { return Ok(None) };
        if header[0] != DATA {
            return Err(Fault {
                what: "received a record that is not encrypted",
                alert: AlertDescription::UnexpectedMessage,
            });
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > PAYLOAD_BYTES + EXPANSION_BYTES {
            return Err(Fault { what: "received a record that is too long", alert: AlertDescription::RecordOverflow });
        }
        // The length is checked before the record is whole, so that a wrong one is not waited for.
        let Some(body) = rest.get_mut(..length) else { return Ok(None) };
        let at = self.start + HEADER_BYTES;
        // Past this record whatever becomes of it: a fault ends the connection anyway.
        self.start = at + length;
        let nonce = self.key.nonce();
        let plain = self.key.key.open_in_place(nonce, Aad::from(&*header), body);
        let forged =
            |_| Fault { what: "received a record that is not authentic", alert: AlertDescription::BadRecordMac };
        let plain = plain.map_err(forged)?;
        // The content type comes last, before padding of zeros.
        let Some(last) = plain.iter().rposition(|b| *b != 0) else {
            return Err(Fault {
                what: "received a record without content type",
                alert: AlertDescription::UnexpectedMessage,
            });
        };
        if last > PAYLOAD_BYTES {
            return Err(Fault {
                what: "received a record that carries more than 2^14 bytes",
                alert: AlertDescription::RecordOverflow,
            });
        }
        Ok(Some(Opened { content: plain[last], payload: at..at + last }))
    }

    /// The bytes of an opened record.
    pub(super) fn payload(&self, range: Range<usize>) -> &[u8] {
        &self.input[range]
    }
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn secrets(seed: u8) -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([seed; 32]), iv: Iv::from([seed; 12]) }
    }

    fn pair() -> (Sealer, Opener) {
        (Sealer::new(5, &secrets(1)).unwrap(), Opener::new(5, &secrets(1), &[]).unwrap())
    }

    fn receive(opener: &mut Opener, bytes: &[u8]) {
        opener.room()[..bytes.len()].copy_from_slice(bytes);
        opener.filled(bytes.len());
    }

    fn open_all(opener: &mut Opener) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(opened) = opener.open().unwrap() {
            assert_eq!(opened.content, DATA);
            all.extend_from_slice(opener.payload(opened.payload));
        }
        all
    }

    #[test]
    fn bytes_of_all_sizes_come_back_in_full_records() {
        for size in [0, 1, 9, 16_383, 16_384, 16_385, 100_000] {
            let (mut sealer, mut opener) = pair();
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();

            sealer.seal(DATA, &[IoSlice::new(&data[..size / 3]), IoSlice::new(&data[size / 3..])]).unwrap();

            let expected = size + size.div_ceil(16_384) * (5 + 1 + 16);
            assert_eq!(sealer.waiting().len(), expected);
            receive(&mut opener, sealer.waiting());
            assert!(open_all(&mut opener) == data, "{size}");
        }
    }

    #[test]
    fn records_may_arrive_in_any_pieces() {
        let (mut sealer, mut opener) = pair();
        sealer.seal(DATA, &[IoSlice::new(&[7; 40_000])]).unwrap();

        let mut got = Vec::new();
        for piece in sealer.waiting().chunks(977) {
            receive(&mut opener, piece);
            got.extend(open_all(&mut opener));
            opener.rest();
        }

        assert!(got == [7; 40_000]);
    }

    #[test]
    fn a_changed_replayed_or_reordered_record_is_refused() {
        let (mut sealer, _) = pair();
        sealer.seal(DATA, &[IoSlice::new(b"first")]).unwrap();
        let first = sealer.waiting().to_vec();
        sealer.advance(first.len());
        sealer.seal(DATA, &[IoSlice::new(b"second")]).unwrap();
        let second = sealer.waiting().to_vec();
        let refused = |records: &[&[u8]]| {
            let (_, mut opener) = pair();
            receive(&mut opener, &records.concat());
            (0..records.len()).any(|_| opener.open().is_err())
        };

        assert!(!refused(&[&first, &second]));
        assert!(refused(&[&first, &first]));
        assert!(refused(&[&second]));
        for at in 0..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 1;
            let (_, mut opener) = pair();
            receive(&mut opener, &changed);
            assert!(!matches!(opener.open(), Ok(Some(_))), "byte {at}");
        }
    }

    #[test]
    fn a_record_longer_than_allowed_is_refused_before_it_is_there() {
        let (_, mut opener) = pair();
        receive(&mut opener, &[DATA, 3, 3, 0x41, 0x01]);

        assert!(opener.open().is_err());
    }

    #[test]
    fn a_record_that_is_not_encrypted_is_refused() {
        for content in [20, ALERT, HANDSHAKE, 0] {
            let (_, mut opener) = pair();
            receive(&mut opener, &[content, 3, 3, 0, 1, 1]);

            assert!(opener.open().is_err(), "{content}");
        }
    }

    #[test]
    fn an_idle_stream_holds_no_buffer() {
        let (mut sealer, mut opener) = pair();
        sealer.seal(DATA, &[IoSlice::new(&[7; 100_000])]).unwrap();
        let bytes = sealer.waiting().to_vec();
        sealer.advance(bytes.len());
        receive(&mut opener, &bytes[..bytes.len() - 7]);
        let mut got = open_all(&mut opener);

        opener.rest();

        assert_eq!(sealer.out.capacity(), 0);
        assert!(opener.input.capacity() < 20_000, "{}", opener.input.capacity());
        receive(&mut opener, &bytes[bytes.len() - 7..]);
        got.extend(open_all(&mut opener));
        assert!(got == [7; 100_000]);
        opener.rest();
        assert_eq!(opener.input.capacity(), 0);
    }

    #[test]
    fn both_sides_go_on_with_a_new_key() {
        let (mut sealer, mut opener) = pair();
        sealer.renew(0, &secrets(2)).unwrap();
        opener.renew(0, &secrets(2)).unwrap();
        sealer.seal(DATA, &[IoSlice::new(b"x")]).unwrap();

        receive(&mut opener, sealer.waiting());

        assert_eq!(open_all(&mut opener), b"x");
    }

    proptest! {
        #[test]
        fn bytes_without_the_key_open_no_record(bytes: Vec<u8>, header in 0..3_u8, claimed in 0..80_u16) {
            let (_, mut opener) = pair();
            let mut record = bytes;
            if header > 0 {
                record.splice(0..0, [[DATA, 3, 3].as_slice(), &claimed.to_be_bytes()].concat());
            }
            receive(&mut opener, &record);

            prop_assert!(!matches!(opener.open(), Ok(Some(_))));
        }

        #[test]
        fn sealed_bytes_come_back_however_they_are_cut(parts in vec(vec(any::<u8>(), 0..40_000), 0..4), size in 1..50_000_usize) {
            let (mut sealer, mut opener) = pair();
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            sealer.seal(DATA, &slices).unwrap();

            let mut got = Vec::new();
            for piece in sealer.waiting().chunks(size) {
                receive(&mut opener, piece);
                got.extend(open_all(&mut opener));
                opener.rest();
            }

            prop_assert!(got == parts.concat());
        }
    }
}
