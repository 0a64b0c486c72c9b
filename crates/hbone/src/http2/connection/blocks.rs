//! Header blocks: requests, answers and trailers (RFC 9113, section 8.1).

use super::{Connection, Found, Role};
use crate::Reason;
use crate::http2::fields::Fields;
use crate::http2::frame::{FrameHead, HEAD_BYTES, flag};
use crate::http2::{Fault, Line, code};
use http::{HeaderMap, StatusCode};

/// A header block whose frames have not all come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) end: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: usize,
}

impl Connection {
    pub(super) fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::protocol("HEADERS without a stream"));
        }
        let short = || Fault::frame_size("HEADERS is too short");
        let mut fragment = payload;
        let mut padding = 0;
        if head.has(flag::PADDED) {
            let (first, rest) = fragment.split_first().ok_or_else(short)?;
            (padding, fragment) = (usize::from(*first), rest);
        }
        if head.has(flag::PRIORITY) {
            fragment = fragment.get(5..).ok_or_else(short)?;
        }
        let length = fragment.len().checked_sub(padding);
        let length = length.ok_or(Fault::protocol("HEADERS has more padding than payload"))?;
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.header_block(head.stream, end, &fragment[..length]);
        }
        self.block = Some(Block { stream: head.stream, end, bytes: fragment[..length].to_vec(), frames: 1 });
        Ok(())
    }

    pub(super) fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let limit = self.header_list_bytes();
        let block = self.block.take().filter(|b| b.stream == head.stream);
        let mut block = block.ok_or(Fault::protocol("CONTINUATION of nothing"))?;
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        // Each frame counts, also an empty one: nothing may go on for ever.
        if block.bytes.len() + block.frames * HEAD_BYTES > limit {
            return Err(Fault::Violation { what: "a header block is too long", code: code::ENHANCE_YOUR_CALM });
        }
        if head.has(flag::END_HEADERS) {
            return self.header_block(block.stream, block.end, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    const fn header_list_bytes(&self) -> usize {
        self.role.header_list_bytes(&self.settings) as usize
    }

    fn header_block(&mut self, id: u32, end: bool, block: &[u8]) -> Result<(), Fault> {
        let limit = self.header_list_bytes();
        let fields = Fields::decode(&mut self.decoder, block, limit);
        let fields = fields.map_err(|e| Fault::Violation { what: e.what(), code: code::COMPRESSION_ERROR })?;
        match (self.find(id), self.role) {
            (Found::Live(line), Role::Client) if !line.borrow().answered => self.answered(&line, end, fields),
            (Found::Live(line), _) => self.trailers(&line, end),
            (Found::Gone, _) => {}
            (Found::Idle, Role::Server) if id % 2 == 1 => self.asked(id, end, fields),
            (Found::Idle, _) => return Err(Fault::protocol("HEADERS on a stream that cannot be opened")),
        }
        Ok(())
    }

    fn asked(&mut self, id: u32, end: bool, fields: Fields) {
        self.last = id;
        if self.closing {
            // The peer knows which stream was the last.
            return;
        }
        if self.streams.len() >= self.settings.max_concurrent_streams as usize {
            return self.put_reset(id, Reason::Refused);
        }
        if fields.too_long {
            let line = self.begin(id);
            return self.answer(&line, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &HeaderMap::new(), true);
        }
        let Some(asked) = fields.request() else {
            return self.put_reset(id, Reason::from(code::PROTOCOL_ERROR));
        };
        let line = self.begin(id);
        line.borrow_mut().ended = end;
        self.asked.push_back((line, asked));
    }

    fn answered(&mut self, line: &Line, end: bool, fields: Fields) {
        let mut stream = line.borrow_mut();
        let too_long = fields.too_long;
        match fields.answer() {
            // Interim answers say nothing about a tunnel (RFC 9110, section 15.2).
            Some(head) if head.status.is_informational() && !end => {}
            Some(head) if !too_long && !head.status.is_informational() => {
                stream.head = Some(head);
                stream.answered = true;
                if end {
                    self.end(&mut stream);
                }
                stream.wake_receiver();
            }
            _ => self.refuse(&mut stream, Reason::from(code::PROTOCOL_ERROR)),
        }
    }

    fn trailers(&mut self, line: &Line, end: bool) {
        let mut stream = line.borrow_mut();
        if stream.ended {
            self.refuse(&mut stream, Reason::from(code::STREAM_CLOSED));
        } else if end {
            self.end(&mut stream);
        } else {
            self.refuse(&mut stream, Reason::from(code::PROTOCOL_ERROR));
        }
    }
}
