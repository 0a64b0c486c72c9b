//! Layout of frames (RFC 9113, sections 4 and 6). Their meaning is in `connection` and `streams`.

use crate::Error;

/// Length of a frame's header, bytes.
pub(crate) const FRAME_HEADER_BYTES: usize = 9;
/// Connection preface of a client (section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Initial value of SETTINGS_MAX_FRAME_SIZE, and the least that may be announced, bytes (section 6.5.2).
pub(crate) const DEFAULT_MAX_FRAME_SIZE: usize = 1 << 14;
/// Largest SETTINGS_MAX_FRAME_SIZE, bytes (section 6.5.2).
pub(crate) const LARGEST_MAX_FRAME_SIZE: usize = (1 << 24) - 1;
/// Initial window of streams and of the connection, bytes (section 6.9.2).
pub(crate) const DEFAULT_INITIAL_WINDOW_SIZE: u32 = 65_535;
/// Largest flow-control window, bytes (section 6.9.1).
pub(crate) const MAX_WINDOW_SIZE: u32 = (1 << 31) - 1;
/// Largest stream identifier (section 5.1.1). The bit above it is reserved wherever there is an identifier.
pub(crate) const MAX_STREAM_ID: u32 = (1 << 31) - 1;

/// Frame types (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags. Their meaning depends on the frame type.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Identifiers of settings (section 6.5.2).
pub(crate) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Header of a frame (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Length of the payload, bytes; below 2^24.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// 0 is the connection.
    pub(crate) stream_id: u32,
}

impl FrameHeader {
    pub(crate) const fn parse(b: [u8; FRAME_HEADER_BYTES]) -> Self {
        Self {
            length: u32::from_be_bytes([0, b[0], b[1], b[2]]) as usize,
            kind: b[3],
            flags: b[4],
            // The reserved bit is ignored (section 4.1).
            stream_id: u32::from_be_bytes([b[5], b[6], b[7], b[8]]) & MAX_STREAM_ID,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a payload is shorter than 2^24 bytes")]
    pub(crate) const fn encode(self) -> [u8; FRAME_HEADER_BYTES] {
        let l = (self.length as u32).to_be_bytes();
        let s = self.stream_id.to_be_bytes();
        [l[1], l[2], l[3], self.kind, self.flags, s[0], s[1], s[2], s[3]]
    }

    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// HEADERS without padding and priority (section 6.2).
#[derive(Debug)]
pub(crate) struct Headers<'a> {
    pub(crate) stream_id: u32,
    pub(crate) end_stream: bool,
    pub(crate) end_headers: bool,
    /// The priority names the stream itself, which makes the message malformed (RFC 7540, section 5.3.1).
    pub(crate) depends_on_itself: bool,
    pub(crate) fragment: &'a [u8],
}

impl<'a> Headers<'a> {
    pub(crate) fn parse(header: FrameHeader, payload: &'a [u8]) -> Result<Self, Error> {
        if header.stream_id == 0 {
            return Err(Error::protocol("received HEADERS on stream 0"));
        }
        let too_short = || Error::frame_size("received HEADERS that is too short for its flags");
        let mut fragment = payload;
        let mut padding = 0;
        let mut depends_on_itself = false;
        // Order on the wire: pad length, priority, fragment, padding (section 6.2).
        if header.has(flag::PADDED) {
            let (first, rest) = fragment.split_first().ok_or_else(too_short)?;
            (padding, fragment) = (usize::from(*first), rest);
        }
        if header.has(flag::PRIORITY) {
            let (priority, rest) = fragment.split_first_chunk::<5>().ok_or_else(too_short)?;
            (depends_on_itself, fragment) = (stream_dependency(*priority) == header.stream_id, rest);
        }
        let length = fragment.len().checked_sub(padding);
        let length = length.ok_or(Error::protocol("received HEADERS with more padding than payload"))?;
        Ok(Self {
            stream_id: header.stream_id,
            end_stream: header.has(flag::END_STREAM),
            end_headers: header.has(flag::END_HEADERS),
            depends_on_itself,
            fragment: &fragment[..length],
        })
    }
}

/// Checks PRIORITY (section 6.3), which has no other effect (section 5.3.2).
pub(crate) fn check_priority(header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
    if header.stream_id == 0 {
        return Err(Error::protocol("received PRIORITY on stream 0"));
    }
    match payload.try_into() {
        Ok(priority) if stream_dependency(priority) != header.stream_id => Ok(()),
        Ok(_) => Err(Error::protocol("received PRIORITY that makes a stream depend on itself")),
        Err(_) => Err(Error::frame_size("received PRIORITY that is not 5 bytes long")),
    }
}

/// Stream that a priority makes another depend on (RFC 7540, section 5.3.1).
fn stream_dependency(priority: [u8; 5]) -> u32 {
    let [a, b, c, d, _] = priority;
    u32::from_be_bytes([a, b, c, d]) & MAX_STREAM_ID
}

/// Returns the settings in a SETTINGS frame that is no acknowledgement (section 6.5.1).
pub(crate) fn parse_settings(payload: &[u8]) -> Result<impl Iterator<Item = (u16, u32)>, Error> {
    // An identifier of two bytes and a value of four.
    let (settings, []) = payload.as_chunks::<6>() else {
        return Err(Error::frame_size("received SETTINGS whose length is not a multiple of 6 bytes"));
    };
    Ok(settings.iter().map(|[a, b, value @ ..]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value))))
}

/// Returns the last stream identifier in GOAWAY (section 6.8).
pub(crate) fn parse_goaway(header: FrameHeader, payload: &[u8]) -> Result<u32, Error> {
    let Some((last, _)) = payload.split_first_chunk::<4>().filter(|_| payload.len() >= 8) else {
        return Err(Error::frame_size("received GOAWAY that is shorter than 8 bytes"));
    };
    if header.stream_id != 0 {
        return Err(Error::protocol("received GOAWAY on a stream"));
    }
    Ok(u32::from_be_bytes(*last) & MAX_STREAM_ID)
}

/// Returns the opaque data of a PING (section 6.7).
pub(crate) fn parse_ping(header: FrameHeader, payload: &[u8]) -> Result<[u8; 8], Error> {
    let data = payload.try_into().map_err(|_| Error::frame_size("received PING that is not 8 bytes long"))?;
    if header.stream_id == 0 { Ok(data) } else { Err(Error::protocol("received PING on a stream")) }
}

/// Returns the only number of a frame: the error code of RST_STREAM, the increment of WINDOW_UPDATE.
pub(crate) fn parse_u32(payload: &[u8]) -> Result<u32, Error> {
    let wrong = |_| Error::frame_size("received RST_STREAM or WINDOW_UPDATE that is not 4 bytes long");
    Ok(u32::from_be_bytes(payload.try_into().map_err(wrong)?))
}

/// Appends a whole frame.
pub(crate) fn encode(out: &mut Vec<u8>, kind: u8, flags: u8, stream_id: u32, payload: &[u8]) {
    out.extend_from_slice(&FrameHeader { length: payload.len(), kind, flags, stream_id }.encode());
    out.extend_from_slice(payload);
}

/// Appends a frame whose payload is one number: WINDOW_UPDATE or RST_STREAM.
pub(crate) fn encode_u32(out: &mut Vec<u8>, kind: u8, stream_id: u32, number: u32) {
    encode(out, kind, 0, stream_id, &number.to_be_bytes());
}

/// Appends SETTINGS.
pub(crate) fn encode_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(settings.len() * 6);
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    encode(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends GOAWAY without debug data.
pub(crate) fn encode_goaway(out: &mut Vec<u8>, last_stream_id: u32, code: u32) {
    let [l, c] = [last_stream_id.to_be_bytes(), code.to_be_bytes()];
    encode(out, kind::GOAWAY, 0, 0, &[l, c].concat());
}

/// Appends a header block as HEADERS and as many CONTINUATIONs as the peer's `max_frame_size` makes necessary.
pub(crate) fn encode_headers(out: &mut Vec<u8>, stream_id: u32, block: &[u8], end_stream: bool, max_frame_size: usize) {
    let mut kind = kind::HEADERS;
    let mut flags = if end_stream { flag::END_STREAM } else { 0 };
    let mut rest = block;
    loop {
        let (now, later) = rest.split_at(rest.len().min(max_frame_size));
        let last = if later.is_empty() { flag::END_HEADERS } else { 0 };
        encode(out, kind, flags | last, stream_id, now);
        if later.is_empty() {
            return;
        }
        (kind, flags, rest) = (kind::CONTINUATION, 0, later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = FrameHeader { length: 0x01_02_03, kind: 4, flags: 5, stream_id: MAX_STREAM_ID };

        assert_eq!(FrameHeader::parse(header.encode()), header);
        assert_eq!(FrameHeader::parse([0, 0, 0, 0, 0, 0x80, 0, 0, 1]).stream_id, 1, "the reserved bit is ignored");
    }

    #[test]
    fn a_long_header_block_is_cut_into_continuations() {
        let mut out = Vec::new();
        encode_headers(&mut out, 1, &[7; 25], true, 10);

        let mut seen = Vec::new();
        let mut rest = &out[..];
        while let Some((header, after)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let header = FrameHeader::parse(*header);
            seen.push((header.kind, header.flags, header.length));
            rest = &after[header.length..];
        }

        assert_eq!(seen, [(kind::HEADERS, 1, 10), (kind::CONTINUATION, 0, 10), (kind::CONTINUATION, 4, 5)]);
    }

    proptest! {
        /// Parsing any payload neither panics nor reads beyond it.
        #[test]
        fn any_payload_is_parsed_or_refused(flags: u8, stream_id in 0..4_u32, payload: Vec<u8>) {
            let header = FrameHeader { length: payload.len(), kind: kind::HEADERS, flags, stream_id };

            if let Ok(headers) = Headers::parse(header, &payload) {
                prop_assert!(headers.fragment.len() <= payload.len());
            }
            let _ = check_priority(header, &payload);
            let _ = parse_goaway(header, &payload);
            let _ = parse_ping(header, &payload);
            let _ = parse_u32(&payload);
            if let Ok(settings) = parse_settings(&payload) {
                prop_assert_eq!(settings.count() * 6, payload.len());
            }
        }
    }
}
