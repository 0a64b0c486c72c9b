//! Header blocks: HEADERS and CONTINUATION put together and decoded (RFC 9113, section 4.3).

use crate::budget::Budgets;
use crate::fields::Fields;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, Headers, flag};
use crate::hpack::Decoder;
use crate::{Error, Flood, code};

/// Length of the longest header block, as a multiple of the header list that we announce. A block that is longer than
/// the list is decoded and answered with 431; a longer one ends the connection, as a block that is not decoded leaves
/// the two dynamic tables different.
pub(crate) const BLOCKS_PER_LIST: usize = 4;

/// A header list and where it belongs.
pub(crate) struct Message {
    pub(crate) stream_id: u32,
    pub(crate) end_stream: bool,
    pub(crate) fields: Fields,
}

/// A header block whose last frame has not come.
#[derive(Debug)]
struct HeaderBlock {
    stream_id: u32,
    end_stream: bool,
    depends_on_itself: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// The peer's header blocks.
#[derive(Debug)]
pub(crate) struct HeaderBlocks {
    decoder: Decoder,
    partial: Option<HeaderBlock>,
    /// SETTINGS_MAX_HEADER_LIST_SIZE as we announce it, bytes.
    max_list_bytes: usize,
}

impl HeaderBlocks {
    pub(crate) fn new(max_list_bytes: u32) -> Self {
        Self { decoder: Decoder::new(), partial: None, max_list_bytes: max_list_bytes as usize }
    }

    /// Returns whether only CONTINUATION may come next (section 6.10).
    #[inline]
    pub(crate) const fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Takes HEADERS. Returns the message, if that is all of it.
    #[inline]
    pub(crate) fn recv_headers(
        &mut self,
        headers: &Headers<'_>,
        budgets: &mut Budgets,
    ) -> Result<Option<Message>, Error> {
        let &Headers { stream_id, end_stream, depends_on_itself, fragment, .. } = headers;
        let mut block = HeaderBlock { stream_id, end_stream, depends_on_itself, bytes: Vec::new(), frames: 1 };
        // The ordinary case: decoded in place, without a copy.
        if headers.end_headers {
            return self.decode(&block, fragment, budgets).map(Some);
        }
        block.bytes.extend_from_slice(fragment);
        self.partial = Some(block);
        Ok(None)
    }

    /// Takes CONTINUATION. Returns the message, if that was the rest of it.
    pub(crate) fn recv_continuation(
        &mut self,
        header: FrameHeader,
        fragment: &[u8],
        budgets: &mut Budgets,
    ) -> Result<Option<Message>, Error> {
        if fragment.is_empty() {
            budgets.charge(Flood::EmptyFrames, 1)?;
        }
        // `check_order` lets nothing but CONTINUATION come here; one of another stream is the same error (section
        // 6.10).
        let block = self.partial.take().filter(|block| block.stream_id == header.stream_id);
        let mut block = block.ok_or(Error::protocol("received CONTINUATION without HEADERS before it"))?;
        block.bytes.extend_from_slice(fragment);
        block.frames += 1;
        // Each frame counts, also an empty one: no block may go on for ever.
        if block.bytes.len() + block.frames * FRAME_HEADER_BYTES > BLOCKS_PER_LIST * self.max_list_bytes {
            return Err(Error::Flood(Flood::HeaderBytes));
        }
        if header.has(flag::END_HEADERS) {
            return self.decode(&block, &block.bytes, budgets).map(Some);
        }
        self.partial = Some(block);
        Ok(None)
    }

    #[inline]
    fn decode(&mut self, block: &HeaderBlock, bytes: &[u8], budgets: &mut Budgets) -> Result<Message, Error> {
        // Decoded also when it will be refused: the dynamic table must see every block (section 4.3).
        let fields = Fields::decode(&mut self.decoder, bytes, self.max_list_bytes);
        let mut fields =
            fields.map_err(|error| Error::Violation { what: error.what(), code: code::COMPRESSION_ERROR })?;
        // Fields beyond the limit are decoded too, at a cost that grows with the block.
        let decoded = u32::try_from(fields.list_bytes + bytes.len()).unwrap_or(u32::MAX);
        budgets.charge(Flood::HeaderBytes, decoded)?;
        // A stream error, so only after the decoding.
        if block.depends_on_itself {
            fields.set_malformed();
        }
        Ok(Message { stream_id: block.stream_id, end_stream: block.end_stream, fields })
    }
}
