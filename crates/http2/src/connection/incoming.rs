//! DATA that comes, and the room that is given back for it (RFC 9113, section 6.9).

use super::closed::Absent;
use super::{Connection, Found, Role};
use crate::frame::{FrameHeader, encode_u32, flag, kind};
use crate::{Error, Flood, Stream, StreamRef, code};

/// DATA that is being read.
#[derive(Debug)]
pub(super) struct Incoming {
    /// None if nobody wants it.
    pub(super) line: Option<StreamRef>,
    pub(super) end: bool,
    /// Has carried nothing so far.
    pub(super) empty: bool,
    /// Of its length, not seen as payload yet, bytes.
    pub(super) left: u32,
}

impl Connection {
    pub(super) fn recv_data_header(&mut self, head: FrameHeader) -> Result<(), Error> {
        if !self.peer.known || self.block.is_some() {
            return Err(Error::protocol("DATA where it cannot be"));
        }
        // Below 2^24.
        let length = u32::try_from(head.length).unwrap_or(u32::MAX);
        self.receive_window -= i64::from(length);
        if self.receive_window < 0 {
            return Err(Error::Violation {
                what: "more DATA than the connection's window",
                code: code::FLOW_CONTROL_ERROR,
            });
        }
        let mut line = match self.find(head.stream) {
            Found::Live(line) => Some(line),
            Found::Absent(Absent::Ignored) => None,
            Found::Absent(Absent::Idle) => return Err(Error::protocol("DATA on a stream that has not begun")),
            Found::Absent(Absent::Skipped) => return Err(Error::protocol("DATA on a stream that was skipped")),
            Found::Absent(Absent::Closed) => return Err(Error::stream_closed("DATA on a closed stream")),
        };
        if let Some(open) = &line {
            let mut stream = open.borrow_mut();
            stream.receive_window -= i64::from(length);
            let wrong = if !stream.state.is_recv_open() {
                Some(code::STREAM_CLOSED)
            } else if stream.receive_window < 0 {
                Some(code::FLOW_CONTROL_ERROR)
            } else if self.role == Role::Client && !stream.is_answered {
                Some(code::PROTOCOL_ERROR)
            } else {
                None
            };
            if let Some(code) = wrong {
                self.stream_error(&mut stream, code)?;
                drop(stream);
                line = None;
            } else {
                stream.held_bytes += length;
            }
        }
        if line.is_none() {
            self.release_connection_capacity(length);
        }
        self.incoming = Some(Incoming { line, end: head.has(flag::END_STREAM), empty: true, left: length });
        Ok(())
    }

    pub(super) fn recv_data(&mut self, piece: &[u8]) {
        let Some(incoming) = &mut self.incoming else { return };
        incoming.empty = false;
        let Some(line) = incoming.line.clone() else { return };
        // A piece is not longer than its frame.
        incoming.left -= u32::try_from(piece.len()).unwrap_or(incoming.left).min(incoming.left);
        let mut stream = line.borrow_mut();
        stream.recv_content(piece.len());
        if stream.is_recv_dropped || stream.state.is_closed() {
            self.release_capacity(&mut stream, piece.len());
        } else {
            stream.recv_data(piece);
        }
    }

    pub(super) fn recv_data_end(&mut self) -> Result<(), Error> {
        let Some(Incoming { line, end, empty, left }) = self.incoming.take() else { return Ok(()) };
        if empty && !end {
            self.budgets.charge(Flood::EmptyFrames, 1)?;
        }
        let Some(line) = line else { return Ok(()) };
        let mut stream = line.borrow_mut();
        // What is left is padding.
        self.release_capacity(&mut stream, left as usize);
        // Of a stream that was cut meanwhile a part is missing.
        if stream.state.is_closed() {
            return Ok(());
        }
        if stream.has_wrong_content_length(end) {
            return self.stream_error(&mut stream, code::PROTOCOL_ERROR);
        }
        if end {
            self.recv_end_stream(&mut stream);
        }
        Ok(())
    }

    /// What was read has gone where it belongs: the peer may send as much again.
    pub fn release_capacity(&mut self, stream: &mut Stream, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(stream.held_bytes);
        stream.held_bytes -= bytes;
        self.release_connection_capacity(bytes);
        if !stream.state.is_recv_open() {
            return;
        }
        stream.returned_bytes += bytes;
        if stream.returned_bytes > 0 && stream.returned_bytes >= self.settings.stream_window_bytes / 2 {
            encode_u32(&mut self.control, kind::WINDOW_UPDATE, stream.id, stream.returned_bytes);
            stream.receive_window += i64::from(stream.returned_bytes);
            stream.returned_bytes = 0;
            self.wake_driver();
        }
    }

    /// Room on the connection for what streams have given back. The peer hears of it when that is as much as it has
    /// left: at half of the window, and sooner when streams that nobody reads hold much of it.
    pub(super) fn release_connection_capacity(&mut self, bytes: u32) {
        self.returned_bytes += bytes;
        if self.returned_bytes > 0 && i64::from(self.returned_bytes) >= self.receive_window {
            encode_u32(&mut self.control, kind::WINDOW_UPDATE, 0, self.returned_bytes);
            self.receive_window += i64::from(self.returned_bytes);
            self.returned_bytes = 0;
            self.wake_driver();
        }
    }
}
