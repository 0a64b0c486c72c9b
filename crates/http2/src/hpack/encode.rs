//! Writes header blocks (RFC 7541, section 6). It never uses the dynamic table or the Huffman code: what we
//! send is short, and either would cost more than it saves.

use super::table::{self, Found};

/// First octets of what we write. The low bits begin an integer.
const INDEXED: u8 = 0x80;
const LITERAL: u8 = 0;
const RAW_STRING: u8 = 0;
/// A dynamic table size update to 0, whole (section 6.3).
const NO_DYNAMIC_TABLE: u8 = 0x20;

/// One direction of one connection.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// The peer has been told that the dynamic table has no room.
    announced: bool,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { announced: false }
    }

    /// Begins a header block. Must be called once for each, in the order in which they are sent.
    ///
    /// The first block says that the dynamic table has no room. A peer that allows less than the default waits
    /// for a size update (section 4.2); 0 is never more than any peer allows, so one update is enough.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.announced {
            self.announced = true;
            out.push(NO_DYNAMIC_TABLE);
        }
    }

    /// Appends a field. Names are sent as they are, so they must be in lower case (RFC 9113, section 8.2.1).
    pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        match table::find(name, value) {
            Some(Found::Field(index)) => integer(out, INDEXED, 7, index),
            Some(Found::Name(index)) => {
                integer(out, LITERAL, 4, index);
                string(out, value);
            }
            None => {
                out.push(LITERAL);
                string(out, name);
                string(out, value);
            }
        }
    }
}

fn string(out: &mut Vec<u8>, octets: &[u8]) {
    integer(out, RAW_STRING, 7, octets.len());
    out.extend_from_slice(octets);
}

/// Appends an integer whose first `prefix_bits` share an octet with `high` (section 5.1).
fn integer(out: &mut Vec<u8>, high: u8, prefix_bits: u32, value: usize) {
    // A prefix of ones says that octets of seven bits each follow, the lowest first.
    let most = (1 << prefix_bits) - 1;
    if value < usize::from(most) {
        out.push(high | value as u8);
        return;
    }
    out.push(high | most);
    let mut rest = value - usize::from(most);
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Decoded, Decoder};
    use super::*;

    pub(crate) fn integer_octets(high: u8, prefix_bits: u32, value: usize) -> Vec<u8> {
        let mut out = Vec::new();
        integer(&mut out, high, prefix_bits, value);
        out
    }

    fn field(name: &str, value: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Encoder::field(&mut out, name.as_bytes(), value.as_bytes());
        out
    }

    #[test]
    fn integers_are_written_as_in_appendix_c_1() {
        assert_eq!(integer_octets(0, 5, 10), [0b01010]);
        assert_eq!(integer_octets(0, 5, 1337), [0b11111, 0b1001_1010, 0b1010]);
        assert_eq!(integer_octets(0, 8 - 1, 42), [42]);
    }

    #[test]
    fn only_the_first_block_says_that_there_is_no_dynamic_table() {
        let (mut encoder, mut out) = (Encoder::new(), Vec::new());

        encoder.begin(&mut out);
        encoder.begin(&mut out);

        assert_eq!(out, [0x20]);
    }

    #[test]
    fn a_field_takes_what_the_static_table_has_of_it() {
        assert_eq!(field(":status", "200"), [0x88]);
        assert_eq!(field("www-authenticate", ""), [0xbd]);
        assert_eq!(field(":status", "503"), *b"\x08\x03503");
        assert_eq!(field(":method", "CONNECT"), *b"\x02\x07CONNECT");
        // An index that does not fit into four bits.
        assert_eq!(field("via", "x"), [0x0f, 45, 1, b'x']);
        assert_eq!(field("baggage", "k=v"), *b"\x00\x07baggage\x03k=v");
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let long = "v".repeat(70_000);
        let fields = [
            (":method", "CONNECT"),
            (":authority", "10.0.0.1:8080"),
            (":status", "200"),
            ("forwarded", "for=10.0.0.2"),
            ("traceparent", ""),
            ("", ""),
            ("user-agent", &long[..127]),
            ("cookie", &long[..126]),
            ("baggage", &long[..128]),
            (&long[..300], &long),
        ];
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for _ in 0..3 {
            let mut block = Vec::new();
            encoder.begin(&mut block);
            for (name, value) in fields {
                Encoder::field(&mut block, name.as_bytes(), value.as_bytes());
            }
            let mut got = Vec::new();
            let fits = decoder.decode(&block, usize::MAX, |name, value| got.push((name.to_vec(), value.to_vec())));

            assert_eq!(fits, Ok(Decoded::Complete));
            assert!(got.iter().map(|(n, v)| (&n[..], &v[..])).eq(fields.map(|(n, v)| (n.as_bytes(), v.as_bytes()))));
        }
    }
}
