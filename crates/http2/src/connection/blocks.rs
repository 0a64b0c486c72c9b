//! Header blocks: requests, answers and trailers (RFC 9113, section 8.1).

use super::closed::Absent;
use super::{Connection, Found, Role};
use crate::fields::Fields;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, MAX_WINDOW_SIZE, flag};
use crate::{Error, Flood, Reason, StreamRef, code};
use http::{HeaderMap, Method, StatusCode};

/// A header block may be so many times as long as the list that we announce to take. One that is longer than the list is
/// decoded and answered with 431; beyond this the connection ends, as a block that is not decoded breaks the compression.
pub(crate) const BLOCKS_PER_LIST: usize = 4;

/// A header block whose frames have not all come.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    end_stream: bool,
    /// The stream is said to depend on itself.
    depends_on_itself: bool,
    bytes: Vec<u8>,
    frames: usize,
}

impl Connection {
    pub(super) fn recv_headers(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        if head.stream == 0 {
            return Err(Error::protocol("HEADERS without a stream"));
        }
        let short = || Error::frame_size("HEADERS is too short");
        let mut fragment = payload;
        let mut padding = 0;
        let mut depends_on_itself = false;
        if head.has(flag::PADDED) {
            let (first, rest) = fragment.split_first().ok_or_else(short)?;
            (padding, fragment) = (usize::from(*first), rest);
        }
        if head.has(flag::PRIORITY) {
            let (priority, rest) = fragment.split_first_chunk::<5>().ok_or_else(short)?;
            (depends_on_itself, fragment) = (depends_on(*priority) == head.stream, rest);
        }
        let length = fragment.len().checked_sub(padding);
        let length = length.ok_or(Error::protocol("HEADERS has more padding than payload"))?;
        let bytes = &fragment[..length];
        let (stream, end_stream) = (head.stream, head.has(flag::END_STREAM));
        if head.has(flag::END_HEADERS) {
            let block = Block { stream, end_stream, depends_on_itself, bytes: Vec::new(), frames: 1 };
            return self.recv_header_block(&block, bytes);
        }
        self.block = Some(Block { stream, end_stream, depends_on_itself, bytes: bytes.to_vec(), frames: 1 });
        Ok(())
    }

    pub(super) fn recv_continuation(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        if payload.is_empty() {
            self.budgets.charge(Flood::EmptyFrames, 1)?;
        }
        let limit = BLOCKS_PER_LIST * self.header_list_bytes();
        let block = self.block.take().filter(|b| b.stream == head.stream);
        let mut block = block.ok_or(Error::protocol("CONTINUATION of nothing"))?;
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        // Each frame counts, also an empty one: nothing may go on for ever.
        if block.bytes.len() + block.frames * FRAME_HEADER_BYTES > limit {
            return Err(Error::Flood(Flood::HeaderBytes));
        }
        if head.has(flag::END_HEADERS) {
            return self.recv_header_block(&block, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    const fn header_list_bytes(&self) -> usize {
        self.role.header_list_bytes(&self.settings) as usize
    }

    fn recv_header_block(&mut self, block: &Block, bytes: &[u8]) -> Result<(), Error> {
        let limit = self.header_list_bytes();
        let fields = Fields::decode(&mut self.decoder, bytes, limit);
        let mut fields = fields.map_err(|e| Error::Violation { what: e.what(), code: code::COMPRESSION_ERROR })?;
        // Fields beyond the limit are decoded too, at a cost that goes with the block.
        let decoded = u32::try_from(fields.list_bytes + bytes.len()).unwrap_or(u32::MAX);
        self.budgets.charge(Flood::HeaderBytes, decoded)?;
        if block.depends_on_itself {
            fields.set_malformed();
        }
        let (id, end_stream) = (block.stream, block.end_stream);
        match self.find(id) {
            Found::Live(line) => self.recv_stream_headers(&line, end_stream, fields),
            Found::Absent(Absent::Idle) if self.role == Role::Server && id % 2 == 1 => {
                self.recv_request(id, end_stream, fields)
            }
            Found::Absent(Absent::Idle) => Err(Error::protocol("HEADERS on a stream that cannot be opened")),
            Found::Absent(Absent::Skipped) => Err(Error::protocol("HEADERS on a stream that was skipped")),
            Found::Absent(Absent::Ignored) => self.budgets.charge(Flood::IgnoredFrames, 1),
            Found::Absent(Absent::Closed) => Err(Error::stream_closed("HEADERS on a closed stream")),
        }
    }

    fn recv_request(&mut self, id: u32, end_stream: bool, fields: Fields) -> Result<(), Error> {
        self.closed.insert_gap(self.last, id);
        self.last = id;
        if self.closing {
            // The peer knows which stream was the last.
            return Ok(());
        }
        if self.streams.len() >= self.settings.max_concurrent_streams as usize {
            return self.refuse_request(id, Reason::Refused);
        }
        if fields.too_long {
            let line = self.insert(id);
            if end_stream {
                line.borrow_mut().state.recv_end_stream();
            }
            self.send_response(&line, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &HeaderMap::new(), true);
            return Ok(());
        }
        let Some(asked) = fields.request(end_stream) else {
            return self.refuse_request(id, Reason::from(code::PROTOCOL_ERROR));
        };
        let line = self.insert(id);
        let mut stream = line.borrow_mut();
        stream.is_tunnel = asked.method == Method::CONNECT;
        stream.set_content_length(asked.content_length);
        if end_stream {
            stream.state.recv_end_stream();
        }
        drop(stream);
        self.requests.push_back((line, asked));
        Ok(())
    }

    /// Resets a stream that is not there yet.
    fn refuse_request(&mut self, id: u32, reason: Reason) -> Result<(), Error> {
        self.encode_reset(id, reason);
        self.budgets.charge(Flood::Resets, 1)
    }

    /// HEADERS on a stream that is there: a client's answer, or trailers.
    fn recv_stream_headers(&mut self, line: &StreamRef, end_stream: bool, fields: Fields) -> Result<(), Error> {
        let mut stream = line.borrow_mut();
        if !stream.state.is_recv_open() {
            return self.stream_error(&mut stream, code::STREAM_CLOSED);
        }
        if self.role == Role::Client && !stream.is_answered {
            drop(stream);
            return self.recv_response(line, end_stream, fields);
        }
        // A tunnel carries nothing but DATA (section 8.5). Elsewhere these are trailers, and the end (section 8.1).
        let is_well_formed =
            end_stream && !fields.too_long && fields.is_trailers() && !stream.has_wrong_content_length(true);
        if stream.is_tunnel || !is_well_formed {
            return self.stream_error(&mut stream, code::PROTOCOL_ERROR);
        }
        self.recv_end_stream(&mut stream);
        Ok(())
    }

    fn recv_response(&mut self, line: &StreamRef, end_stream: bool, fields: Fields) -> Result<(), Error> {
        let mut stream = line.borrow_mut();
        let too_long = fields.too_long;
        match fields.answer(end_stream) {
            // Interim answers say nothing about a tunnel (RFC 9110, section 15.2).
            Some(head) if head.status.is_informational() => {}
            Some(head) if !too_long => {
                stream.is_tunnel = head.status.is_success();
                stream.set_content_length(head.content_length);
                stream.head = Some(Box::new(head));
                stream.is_answered = true;
                if end_stream {
                    self.recv_end_stream(&mut stream);
                }
                stream.wake_receiver();
            }
            _ => return self.stream_error(&mut stream, code::PROTOCOL_ERROR),
        }
        Ok(())
    }
}

/// The stream that a priority makes another depend on (RFC 7540, section 5.3.1). Nobody may depend on itself.
pub(super) fn depends_on(priority: [u8; 5]) -> u32 {
    let [a, b, c, d, _] = priority;
    u32::from_be_bytes([a, b, c, d]) & MAX_WINDOW_SIZE
}
