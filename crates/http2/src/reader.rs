//! Finds frames in bytes that come in any pieces. DATA is handed on as it comes, all else whole.

use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFACE, flag, kind};
use crate::{Error, Flood};

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A frame that is not DATA.
    Frame(FrameHeader, &'a [u8]),
    /// DATA begins; its length has the padding in it.
    DataHeader(FrameHeader),
    /// Some of what the DATA carries.
    DataPayload(&'a [u8]),
    /// The DATA is over.
    DataEnd,
}

#[derive(Debug)]
enum Place {
    /// In the client's preface, of which so much has come.
    Preface(usize),
    /// In a head, of which so much has come.
    ResponseHead(usize),
    /// In a frame that is collected, as far as it matters.
    Whole {
        head: FrameHeader,
        left: usize,
        keep: usize,
    },
    /// Before the length of the padding.
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

/// Where the peer's bytes have got to.
#[derive(Debug)]
pub(super) struct Reader {
    place: Place,
    head: [u8; FRAME_HEADER_BYTES],
    /// A frame whose rest has not come.
    partial: Vec<u8>,
    limits: Limits,
}

/// Longest frames that are taken, bytes of payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// SETTINGS_MAX_FRAME_SIZE as we announce it.
    pub(super) frame: usize,
    /// HEADERS and CONTINUATION, which are collected before they are decoded.
    pub(super) header_block: usize,
}

/// Most of a frame that is collected and is neither SETTINGS nor a header block, bytes. What it means is in its begin.
const KEPT_BYTES: usize = 16;
/// Longest SETTINGS that are taken, bytes: more parameters than there are names for.
const SETTINGS_BYTES: usize = 16 << 10;

impl Reader {
    /// Takes frames within `limits`, behind a client's preface if there is to be one.
    pub(super) const fn new(preface: bool, limits: Limits) -> Self {
        let place = if preface { Place::Preface(0) } else { Place::ResponseHead(0) };
        Self { place, head: [0; FRAME_HEADER_BYTES], partial: Vec::new(), limits }
    }

    /// Whether the preface has come.
    pub(super) const fn has_begun(&self) -> bool {
        !matches!(self.place, Place::Preface(_))
    }

    /// The next event, taken from the front of `input`; `None` when all of it is taken.
    pub(super) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Event<'s>>, Error> {
        loop {
            match self.place {
                Place::Preface(have) => {
                    let n = input.len().min(PREFACE.len() - have);
                    let (now, later) = input.split_at(n);
                    if now != &PREFACE[have..have + n] {
                        return Err(Error::protocol("the peer does not begin as an HTTP/2 client"));
                    }
                    *input = later;
                    self.place =
                        if have + n == PREFACE.len() { Place::ResponseHead(0) } else { Place::Preface(have + n) };
                    if !self.has_begun() {
                        return Ok(None);
                    }
                }
                Place::ResponseHead(have) => {
                    // A frame that was collected has been handled by now.
                    if self.partial.capacity() > 0 {
                        self.partial = Vec::new();
                    }
                    let n = input.len().min(FRAME_HEADER_BYTES - have);
                    let (now, later) = input.split_at(n);
                    self.head[have..have + n].copy_from_slice(now);
                    *input = later;
                    if have + n < FRAME_HEADER_BYTES {
                        self.place = Place::ResponseHead(have + n);
                        return Ok(None);
                    }
                    if let Some(begin) = self.begin(FrameHeader::parse(self.head))? {
                        return Ok(Some(begin));
                    }
                }
                Place::Whole { head, left, keep } => {
                    let (now, later) = input.split_at(left.min(input.len()));
                    let left = left - now.len();
                    let kept = &now[..now.len().min(keep - self.partial.len())];
                    *input = later;
                    if left > 0 {
                        self.partial.extend_from_slice(kept);
                        self.place = Place::Whole { head, left, keep };
                        return Ok(None);
                    }
                    self.place = Place::ResponseHead(0);
                    if self.partial.is_empty() {
                        return Ok(Some(Event::Frame(head, kept)));
                    }
                    self.partial.extend_from_slice(kept);
                    return Ok(Some(Event::Frame(head, &self.partial)));
                }
                Place::PadLength { length } => {
                    let Some((padding, later)) = input.split_first() else { return Ok(None) };
                    let padding = usize::from(*padding);
                    let left = length.checked_sub(1 + padding);
                    let left = left.ok_or(Error::protocol("DATA has more padding than payload"))?;
                    *input = later;
                    self.place = Place::Data { left, padding };
                }
                Place::Data { left: 0, padding: left } | Place::Padding { left } => {
                    let n = input.len().min(left);
                    *input = &input[n..];
                    if n < left {
                        self.place = Place::Padding { left: left - n };
                        return Ok(None);
                    }
                    self.place = Place::ResponseHead(0);
                    return Ok(Some(Event::DataEnd));
                }
                Place::Data { left, padding } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let (now, later) = input.split_at(input.len().min(left));
                    *input = later;
                    self.place = Place::Data { left: left - now.len(), padding };
                    return Ok(Some(Event::DataPayload(now)));
                }
            }
        }
    }

    fn begin(&mut self, head: FrameHeader) -> Result<Option<Event<'static>>, Error> {
        if head.length > self.limits.frame {
            return Err(Error::frame_size("a frame is too long"));
        }
        if head.kind != kind::DATA {
            let keep = self.kept(head)?;
            self.place = Place::Whole { head, left: head.length, keep };
            return Ok(None);
        }
        self.place = if head.has(flag::PADDED) {
            if head.length == 0 {
                return Err(Error::frame_size("padded DATA is empty"));
            }
            Place::PadLength { length: head.length }
        } else {
            Place::Data { left: head.length, padding: 0 }
        };
        Ok(Some(Event::DataHeader(head)))
    }

    /// How much of a frame that is not DATA has to be collected, bytes.
    const fn kept(&self, head: FrameHeader) -> Result<usize, Error> {
        match head.kind {
            kind::HEADERS | kind::CONTINUATION if head.length > self.limits.header_block => {
                Err(Error::Flood(Flood::HeaderBytes))
            }
            kind::SETTINGS if head.length > SETTINGS_BYTES => Err(Error::Flood(Flood::Settings)),
            kind::HEADERS | kind::CONTINUATION | kind::SETTINGS => Ok(head.length),
            _ if head.length > KEPT_BYTES => Ok(KEPT_BYTES),
            _ => Ok(head.length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::code;
    use super::super::frame::encode;
    use super::*;

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
}
