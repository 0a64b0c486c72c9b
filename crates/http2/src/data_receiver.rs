//! The DATA frame that is being received (RFC 9113, section 6.1): its header, pieces of its payload, its end.
//!
//! Windows count whole frames, payload is delivered as it arrives, and END_STREAM counts at the end of the frame.

use crate::budget::Budgets;
use crate::exchanged_settings::ExchangedSettings;
use crate::frame::{FrameHeader, flag};
use crate::outbox::Outbox;
use crate::streams::Streams;
use crate::{Flood, RecvError, StreamRef, code};

/// A DATA frame whose end has not come.
#[derive(Debug)]
struct IncomingData {
    /// `None` if its payload is discarded.
    stream: Option<StreamRef>,
    end_stream: bool,
    /// No payload has come so far.
    is_empty: bool,
    /// Length of the frame that has not been seen as payload, bytes. At its end, that is padding.
    left: u32,
}

/// Receives DATA frames, one after the other.
#[derive(Debug, Default)]
pub(crate) struct DataReceiver(Option<IncomingData>);

impl DataReceiver {
    /// Begins a DATA frame. Its whole length counts at once, as the peer has counted it.
    #[inline]
    pub(crate) fn recv_header(
        &mut self,
        header: FrameHeader,
        streams: &mut Streams,
        out: &mut Outbox,
    ) -> Result<(), RecvError> {
        // Below 2^24.
        let length = u32::try_from(header.length).unwrap_or(u32::MAX);
        // The connection's window counts all DATA, also that of streams that are closed (section 6.9).
        streams.count_data(length)?;
        let (stream, result) = match streams.stream_for_data(header.stream_id, length) {
            Ok(stream) => (stream, Ok(())),
            Err(RecvError::Connection(error)) => return Err(error.into()),
            // The payload of a stream that is reset for this frame is discarded.
            Err(error @ (RecvError::Stream { .. } | RecvError::Ignored)) => (None, Err(error)),
        };
        // Discarded payload frees its room on the connection at once: no reader will do it.
        if stream.is_none() {
            streams.release_connection_capacity(length, out);
        }
        let end_stream = header.has(flag::END_STREAM);
        self.0 = Some(IncomingData { stream, end_stream, is_empty: true, left: length });
        result
    }

    /// Receives some of the payload.
    #[inline]
    pub(crate) fn recv_payload(
        &mut self,
        data: &[u8],
        streams: &mut Streams,
        settings: &ExchangedSettings,
        out: &mut Outbox,
    ) {
        let Some(incoming) = &mut self.0 else { return };
        incoming.is_empty = false;
        let Some(stream) = incoming.stream.clone() else { return };
        // A piece is not longer than its frame.
        incoming.left -= u32::try_from(data.len()).unwrap_or(incoming.left).min(incoming.left);
        let mut stream = stream.borrow_mut();
        stream.content.recv(data.len());
        // The reader may be gone, or the stream reset, since the frame began.
        if stream.recv.is_dropped || stream.state.is_closed() {
            streams.release_capacity(&mut stream, data.len(), settings, out);
        } else {
            stream.recv.push(data);
        }
    }

    /// Ends the frame. One that carries nothing, neither payload nor END_STREAM, has a budget.
    #[inline]
    pub(crate) fn recv_end(
        &mut self,
        streams: &mut Streams,
        settings: &ExchangedSettings,
        budgets: &mut Budgets,
        out: &mut Outbox,
    ) -> Result<(), RecvError> {
        let Some(incoming) = self.0.take() else { return Ok(()) };
        if incoming.is_empty && !incoming.end_stream {
            budgets.charge(Flood::EmptyFrames, 1)?;
        }
        let Some(stream) = incoming.stream else { return Ok(()) };
        let mut stream = stream.borrow_mut();
        // The rest is padding, which no reader consumes.
        streams.release_capacity(&mut stream, incoming.left as usize, settings, out);
        // If the stream was reset meanwhile, a part of its data is missing, and this is not its end.
        if stream.state.is_closed() {
            return Ok(());
        }
        if stream.content.is_wrong(incoming.end_stream) {
            return Err(RecvError::Stream { stream_id: stream.id, code: code::PROTOCOL_ERROR });
        }
        if incoming.end_stream {
            streams.recv_end_stream(&mut stream, out);
        }
        Ok(())
    }
}
