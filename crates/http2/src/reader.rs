//! Finds frames in a byte stream that comes in pieces of any length. The payload of DATA is handed on as it comes, all
//! other frames are handed on whole.

use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFACE, flag, kind};
use crate::{Error, Flood};

/// Part of the byte stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A frame that is not DATA.
    Frame(FrameHeader, &'a [u8]),
    /// Header of a DATA frame. Its length includes the padding.
    DataHeader(FrameHeader),
    /// Some of the payload of a DATA frame.
    DataPayload(&'a [u8]),
    /// End of a DATA frame.
    DataEnd,
}

#[derive(Debug)]
enum Position {
    /// In the client's connection preface, after so many bytes.
    Preface(usize),
    /// In a frame header, after so many bytes.
    Header(usize),
    /// In a frame that is collected: `left` bytes are to come, and the first `keep` of all are kept.
    Frame {
        header: FrameHeader,
        left: usize,
        keep: usize,
    },
    /// Before the pad length of a DATA frame of `length` bytes.
    PadLength {
        length: usize,
    },
    Data {
        left: usize,
        padding: usize,
    },
    Padding {
        left: usize,
    },
}

/// Position in the peer's bytes, and the part of a frame that has come.
#[derive(Debug)]
pub(super) struct Reader {
    position: Position,
    head: [u8; FRAME_HEADER_BYTES],
    /// Payload of a frame whose rest has not come.
    partial: Vec<u8>,
    limits: Limits,
}

/// Lengths of the longest frames that are accepted, bytes of payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// SETTINGS_MAX_FRAME_SIZE as we announce it.
    pub(super) frame: usize,
    /// Of HEADERS and CONTINUATION, which are collected before they are decoded.
    pub(super) header_block: usize,
}

/// Bytes that are kept of a frame that is neither SETTINGS nor a header block. All that has a meaning is in them.
const KEPT_BYTES: usize = 16;
/// Length of the longest SETTINGS that are accepted, bytes: far more settings than are defined.
const SETTINGS_BYTES: usize = 16 << 10;

impl Reader {
    /// Accepts frames within `limits`, behind a client's connection preface if `preface` is set.
    pub(super) const fn new(preface: bool, limits: Limits) -> Self {
        let position = if preface { Position::Preface(0) } else { Position::Header(0) };
        Self { position, head: [0; FRAME_HEADER_BYTES], partial: Vec::new(), limits }
    }

    /// Returns whether the connection preface has come.
    pub(super) const fn has_begun(&self) -> bool {
        !matches!(self.position, Position::Preface(_))
    }

    /// Returns the next event and removes it from the front of `input`; `None` when the input is used up.
    pub(super) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Event<'s>>, Error> {
        loop {
            match self.position {
                Position::Preface(have) => {
                    self.recv_preface(have, input)?;
                    if !self.has_begun() {
                        return Ok(None);
                    }
                }
                Position::Header(have) => {
                    // The frame that was collected has been handled by now.
                    // Freed, not cleared: an idle connection keeps no buffer. Few frames come in two pieces, so this is
                    // rare.
                    if self.partial.capacity() > 0 {
                        self.partial = Vec::new();
                    }
                    // A header may be split anywhere between two reads.
                    let n = input.len().min(FRAME_HEADER_BYTES - have);
                    let (now, later) = input.split_at(n);
                    self.head[have..have + n].copy_from_slice(now);
                    *input = later;
                    if have + n < FRAME_HEADER_BYTES {
                        self.position = Position::Header(have + n);
                        return Ok(None);
                    }
                    if let Some(begin) = self.begin(FrameHeader::parse(self.head))? {
                        return Ok(Some(begin));
                    }
                }
                Position::Frame { header, left, keep } => return Ok(self.recv_payload(header, left, keep, input)),
                Position::PadLength { length } => {
                    let Some((padding, later)) = input.split_first() else { return Ok(None) };
                    let padding = usize::from(*padding);
                    // The pad length counts itself: a frame of 10 bytes with 3 of padding has 6 bytes of data (section
                    // 6.1).
                    let left = length.checked_sub(1 + padding);
                    let left = left.ok_or(Error::protocol("received DATA with more padding than payload"))?;
                    *input = later;
                    self.position = Position::Data { left, padding };
                }
                // Padding is skipped without a look at it: section 6.1 allows to ignore its content.
                Position::Data { left: 0, padding: left } | Position::Padding { left } => {
                    let n = input.len().min(left);
                    *input = &input[n..];
                    if n < left {
                        self.position = Position::Padding { left: left - n };
                        return Ok(None);
                    }
                    self.position = Position::Header(0);
                    return Ok(Some(Event::DataEnd));
                }
                Position::Data { left, padding } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    // Borrowed from the input: the stream's queue copies it, once.
                    let (now, later) = input.split_at(input.len().min(left));
                    *input = later;
                    self.position = Position::Data { left: left - now.len(), padding };
                    return Ok(Some(Event::DataPayload(now)));
                }
            }
        }
    }

    /// Compares the front of `input` with the connection preface, of which `have` bytes have come.
    fn recv_preface(&mut self, have: usize, input: &mut &[u8]) -> Result<(), Error> {
        let n = input.len().min(PREFACE.len() - have);
        let (now, later) = input.split_at(n);
        // Compared as they come, so HTTP/1.1 on this port is noticed at once and not after 24 bytes.
        if now != &PREFACE[have..have + n] {
            return Err(Error::protocol("received no HTTP/2 connection preface"));
        }
        *input = later;
        let is_whole = have + n == PREFACE.len();
        self.position = if is_whole { Position::Header(0) } else { Position::Preface(have + n) };
        Ok(())
    }

    /// Collects the payload of a frame that is not DATA. Returns the frame when it is whole; one that came in one piece
    /// is not copied.
    fn recv_payload<'s, 'i: 's>(
        &'s mut self,
        header: FrameHeader,
        left: usize,
        keep: usize,
        input: &mut &'i [u8],
    ) -> Option<Event<'s>> {
        let (now, later) = input.split_at(left.min(input.len()));
        let left = left - now.len();
        // Beyond `keep` bytes the payload is counted and discarded: GOAWAY may carry debug data as long as a frame.
        let kept = &now[..now.len().min(keep - self.partial.len())];
        *input = later;
        if left > 0 {
            self.partial.extend_from_slice(kept);
            self.position = Position::Frame { header, left, keep };
            return None;
        }
        self.position = Position::Header(0);
        if self.partial.is_empty() {
            return Some(Event::Frame(header, kept));
        }
        self.partial.extend_from_slice(kept);
        Some(Event::Frame(header, &self.partial))
    }

    /// Begins a frame whose header has come.
    fn begin(&mut self, header: FrameHeader) -> Result<Option<Event<'static>>, Error> {
        // Checked before anything is buffered.
        if header.length > self.limits.frame {
            return Err(Error::frame_size("received a frame longer than SETTINGS_MAX_FRAME_SIZE"));
        }
        if header.kind != kind::DATA {
            let keep = self.kept(header)?;
            self.position = Position::Frame { header, left: header.length, keep };
            return Ok(None);
        }
        self.position = if header.has(flag::PADDED) {
            if header.length == 0 {
                return Err(Error::frame_size("received padded DATA without a pad length"));
            }
            Position::PadLength { length: header.length }
        } else {
            Position::Data { left: header.length, padding: 0 }
        };
        Ok(Some(Event::DataHeader(header)))
    }

    /// Number of bytes that have to be kept of a frame that is not DATA.
    const fn kept(&self, header: FrameHeader) -> Result<usize, Error> {
        match header.kind {
            kind::HEADERS | kind::CONTINUATION if header.length > self.limits.header_block => {
                Err(Error::Flood(Flood::HeaderBytes))
            }
            // 6 bytes each: some 2 700 settings, of which a handful is defined.
            kind::SETTINGS if header.length > SETTINGS_BYTES => Err(Error::Flood(Flood::Settings)),
            kind::HEADERS | kind::CONTINUATION | kind::SETTINGS => Ok(header.length),
            _ if header.length > KEPT_BYTES => Ok(KEPT_BYTES),
            _ => Ok(header.length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::code;
    use super::super::frame::encode;
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { frame: 100, header_block: 50 };

    /// Everything that is found in `bytes`, fed in pieces of `size`; the pieces of DATA put together.
    fn found(bytes: &[u8], size: usize) -> Vec<(FrameHeader, Vec<u8>)> {
        let mut reader = Reader::new(true, LIMITS);
        let mut all = Vec::new();
        for mut piece in bytes.chunks(size) {
            while let Some(event) = reader.next(&mut piece).unwrap() {
                match event {
                    Event::Frame(head, payload) => all.push((head, payload.to_vec())),
                    Event::DataHeader(head) => all.push((head, Vec::new())),
                    Event::DataPayload(data) => all.last_mut().unwrap().1.extend_from_slice(data),
                    Event::DataEnd => all.last_mut().unwrap().1.push(b'.'),
                }
            }
        }
        all
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut bytes = PREFACE.to_vec();
        encode(&mut bytes, kind::SETTINGS, 0, 0, &[]);
        encode(&mut bytes, kind::DATA, 0, 1, b"payload");
        encode(&mut bytes, kind::DATA, flag::PADDED, 1, b"\x03padded\0\0\0");
        encode(&mut bytes, kind::DATA, flag::PADDED, 1, b"\x00x");
        encode(&mut bytes, kind::DATA, flag::END_STREAM, 1, b"");
        encode(&mut bytes, kind::PING, 0, 0, b"12345678");
        encode(&mut bytes, kind::HEADERS, 0, 1, &[7; 40]);
        encode(&mut bytes, kind::GOAWAY, 0, 0, &[8; 90]);
        encode(&mut bytes, 0xee, 0, 0, &[9; 90]);

        let whole = found(&bytes, bytes.len());

        let payloads: Vec<_> = whole.iter().map(|(_, payload)| payload.as_slice()).collect();
        let data = [b"" as &[u8], b"payload.", b"padded.", b"x.", b".", b"12345678"];
        // Of frames whose end means nothing only the begin is kept.
        assert_eq!(payloads, [&data[..], &[&[7; 40], &[8; KEPT_BYTES], &[9; KEPT_BYTES]]].concat());
        for size in 1..bytes.len() {
            assert_eq!(found(&bytes, size), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn what_cannot_be_a_frame_is_refused() {
        let refused = |preface: bool, bytes: &[u8]| {
            let mut reader = Reader::new(preface, LIMITS);
            let mut input = bytes;
            loop {
                match reader.next(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(fault) => return fault.code(),
                }
            }
        };

        assert_eq!(refused(true, b"GET / HTTP/1.1\r\n"), Some(code::PROTOCOL_ERROR));
        assert_eq!(refused(true, b"PRI * HT"), None);
        assert_eq!(refused(false, &[0, 0, 101, 0, 0, 0, 0, 0, 1]), Some(code::FRAME_SIZE_ERROR));
        assert_eq!(refused(false, &[0, 0, 51, 1, 4, 0, 0, 0, 1]), Some(code::ENHANCE_YOUR_CALM));
        assert_eq!(refused(false, &[0, 0, 51, 9, 4, 0, 0, 0, 1]), Some(code::ENHANCE_YOUR_CALM));
        assert_eq!(refused(false, &[0, 0, 0, 0, 8, 0, 0, 0, 1]), Some(code::FRAME_SIZE_ERROR));
        assert_eq!(refused(false, &[0, 0, 2, 0, 8, 0, 0, 0, 1, 2, 0]), Some(code::PROTOCOL_ERROR));
    }

    /// Everything that a reader finds in `pieces`, with the payload of DATA joined, and the code of the error at its
    /// end.
    fn read_all<'a>(
        preface: bool,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> (Vec<(FrameHeader, Vec<u8>)>, Option<u32>) {
        let mut reader = Reader::new(preface, LIMITS);
        let mut all: Vec<(FrameHeader, Vec<u8>)> = Vec::new();
        for mut piece in pieces {
            loop {
                match reader.next(&mut piece) {
                    Ok(Some(Event::Frame(header, payload))) => all.push((header, payload.to_vec())),
                    Ok(Some(Event::DataHeader(header))) => all.push((header, Vec::new())),
                    Ok(Some(Event::DataPayload(data))) => all.last_mut().unwrap().1.extend_from_slice(data),
                    Ok(Some(Event::DataEnd)) => {}
                    Ok(None) => break,
                    Err(error) => return (all, error.code()),
                }
            }
        }
        (all, None)
    }

    /// Frames of any type whose lengths are mostly true.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let frame = (0..11_u8, any::<u8>(), 0..4_u32, proptest::collection::vec(any::<u8>(), 0..60)).prop_map(
            |(kind, flags, stream_id, payload)| {
                let mut out = Vec::new();
                encode(&mut out, kind, flags, stream_id, &payload);
                out
            },
        );
        let noise = proptest::collection::vec(any::<u8>(), 0..20);
        proptest::collection::vec(prop_oneof![8 => frame, 1 => noise], 0..12).prop_map(|all| all.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_mean_the_same_however_they_are_cut(bytes in bytes(), size in 1..40_usize, preface: bool) {
            let bytes = if preface { [PREFACE, &bytes].concat() } else { bytes };

            prop_assert_eq!(read_all(preface, bytes.chunks(size)), read_all(preface, std::iter::once(&bytes[..])));
        }
    }
}
