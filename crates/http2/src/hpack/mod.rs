//! HPACK, the compression of header fields in HTTP/2 (RFC 7541): a decoder for whatever a peer sends, and an
//! encoder without state. It knows neither frames nor the meaning of fields: the caller puts HEADERS and
//! CONTINUATION frames together, and checks names and values.

mod decode;
mod encode;
mod huffman;
mod table;

pub(crate) use decode::{Decoded, Decoder};
pub(crate) use encode::Encoder;
pub(crate) use table::FIELD_BYTES;

/// Fault of a header block.
///
/// Each ends the connection with `COMPRESSION_ERROR` (RFC 9113, section 4.3): the tables of the two sides
/// are no longer known to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// It ends inside a field, for example because a string is longer than what is left.
    Truncated,
    /// An integer has more octets than any that makes sense here (section 5.1).
    Integer,
    /// Neither table has an entry there (section 2.3.3).
    Index { index: usize },
    /// A string has a code that ends it, or padding that is too long or not of ones (section 5.2).
    Huffman,
    /// The dynamic table would be larger than our SETTINGS allow (section 6.3).
    SizeUpdateTooLarge { bytes: usize },
    /// The size of the dynamic table changes behind a field (section 4.2).
    SizeUpdateTooLate,
}

impl Error {
    /// Describes the fault.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Truncated => "received a header block that ends inside a field",
            Self::Integer => "received a header block with an integer that is too long",
            Self::Index { .. } => "received a header field whose index is in neither table",
            Self::Huffman => "received a malformed Huffman-coded string",
            Self::SizeUpdateTooLarge { .. } => "received a dynamic table size update above SETTINGS_HEADER_TABLE_SIZE",
            Self::SizeUpdateTooLate => "received a dynamic table size update behind a header field",
        }
    }
}
