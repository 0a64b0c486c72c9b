//! How frames look (RFC 9113, sections 4 and 6). What they mean is `connection`'s.

/// Length of a frame's head, bytes.
pub(super) const FRAME_HEADER_BYTES: usize = 9;
/// What a client says first (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest frame payload that needs no agreement, bytes (section 6.5.2).
pub(super) const DEFAULT_MAX_FRAME_SIZE: usize = 1 << 14;
/// Window of a stream and of the connection before anybody says otherwise, bytes (section 6.9.2).
pub(super) const DEFAULT_INITIAL_WINDOW_SIZE: u32 = 65_535;
/// Largest window, bytes (section 6.9.1), and the last stream there can be.
pub(super) const MAX_WINDOW_SIZE: u32 = (1 << 31) - 1;

/// Types of frames.
pub(super) mod kind {
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

/// Flags. Which a frame may have is a matter of its type.
pub(super) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Parameters of SETTINGS (section 6.5.2).
pub(super) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Of the payload, bytes; below 2^24.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0 is the connection.
    pub(super) stream: u32,
}

impl FrameHeader {
    pub(super) const fn parse(b: [u8; FRAME_HEADER_BYTES]) -> Self {
        Self {
            length: u32::from_be_bytes([0, b[0], b[1], b[2]]) as usize,
            kind: b[3],
            flags: b[4],
            stream: u32::from_be_bytes([b[5], b[6], b[7], b[8]]) & MAX_WINDOW_SIZE,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a payload is shorter than 2^24 bytes")]
    pub(super) const fn encode(self) -> [u8; FRAME_HEADER_BYTES] {
        let l = (self.length as u32).to_be_bytes();
        let s = self.stream.to_be_bytes();
        [l[1], l[2], l[3], self.kind, self.flags, s[0], s[1], s[2], s[3]]
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a whole frame.
pub(super) fn encode(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&FrameHeader { length: payload.len(), kind, flags, stream }.encode());
    out.extend_from_slice(payload);
}

/// Appends a frame whose payload is one number: `WINDOW_UPDATE` or `RST_STREAM`.
pub(super) fn encode_u32(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    encode(out, kind, 0, stream, &number.to_be_bytes());
}

/// Appends SETTINGS.
pub(super) fn encode_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(settings.len() * 6);
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    encode(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends GOAWAY.
pub(super) fn encode_goaway(out: &mut Vec<u8>, last: u32, code: u32) {
    let [l, c] = [last.to_be_bytes(), code.to_be_bytes()];
    encode(out, kind::GOAWAY, 0, 0, &[l, c].concat());
}

/// Appends a header block, in as many frames as the peer's `frame_bytes` wants.
pub(super) fn encode_headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end: bool, frame_bytes: usize) {
    let mut kind = kind::HEADERS;
    let mut flags = if end { flag::END_STREAM } else { 0 };
    let mut rest = block;
    loop {
        let (now, later) = rest.split_at(rest.len().min(frame_bytes));
        let last = if later.is_empty() { flag::END_HEADERS } else { 0 };
        encode(out, kind, flags | last, stream, now);
        if later.is_empty() {
            return;
        }
        (kind, flags, rest) = (kind::CONTINUATION, 0, later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back() {
        let head = FrameHeader { length: 0x01_02_03, kind: 4, flags: 5, stream: MAX_WINDOW_SIZE };

        assert_eq!(FrameHeader::parse(head.encode()), head);
        assert_eq!(FrameHeader::parse([0, 0, 0, 0, 0, 0x80, 0, 0, 1]).stream, 1, "the reserved bit is ignored");
    }

    #[test]
    fn a_long_header_block_is_cut_into_continuations() {
        let mut out = Vec::new();
        encode_headers(&mut out, 1, &[7; 25], true, 10);

        let mut seen = Vec::new();
        let mut rest = &out[..];
        while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let head = FrameHeader::parse(*head);
            seen.push((head.kind, head.flags, head.length));
            rest = &after[head.length..];
        }

        assert_eq!(seen, [(kind::HEADERS, 1, 10), (kind::CONTINUATION, 0, 10), (kind::CONTINUATION, 4, 5)]);
    }
}
