//! Reads header blocks (RFC 7541, sections 5 and 6). It does not judge fields: that is for HTTP.

use super::Error;
use super::huffman;
use super::table::{FIELD_BYTES, Name, Table};
use std::cell::Cell;

/// Largest capacity that each of the two scratch buffers keeps between blocks, bytes.
const SCRATCH_BYTES: usize = 1024;
/// Largest number of octets of an integer behind its first. They hold 2^28, which no block or table comes near.
const INTEGER_OCTETS: u32 = 4;

/// Outcome of decoding a header block without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Decoded {
    /// All fields were given to the caller.
    Complete,
    /// The last fields were beyond the limit, and were not given to the caller.
    LimitExceeded,
}

/// One direction of one connection, with the dynamic table that the peer fills.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
}

/// Strings that had to be decoded: the name and the value of one field at a time.
#[derive(Default)]
struct Scratch {
    name: Vec<u8>,
    value: Vec<u8>,
}

thread_local! {
    /// Shared by all connections of a thread, so that one that waits keeps none.
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch { name: Vec::new(), value: Vec::new() }) };
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { table: Table::new() }
    }

    /// Decodes a whole block: what HEADERS and its CONTINUATIONs carry, joined. Blocks must come in the
    /// order in which they were sent, also those of streams that nobody wants any more.
    ///
    /// Calls `field` with each name and value, in order, until their list would be larger than
    /// `limit_bytes`, counted as `SETTINGS_MAX_HEADER_LIST_SIZE` is (RFC 9113, section 6.5.2). What follows
    /// is decoded all the same, as the dynamic table depends on it.
    ///
    /// Beside the calls of `field`, work and memory are a small multiple of the block, whatever is in it.
    ///
    /// # Errors
    /// All that [`Error`] has. The connection has to end: fields may have been given out already, and
    /// later blocks mean nothing.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        limit_bytes: usize,
        field: impl FnMut(&[u8], &[u8]),
    ) -> Result<Decoded, Error> {
        let mut list = List { left_bytes: limit_bytes, decoded: Decoded::Complete, field };
        let mut block = Block { rest: block };
        // Size updates are allowed at the begin of a block only (section 4.2).
        let mut may_resize = true;
        // Taken out for the duration of a block; a second decoder on the thread would get an empty one.
        let mut scratch = SCRATCH.take();
        while let Some(first) = block.rest.first() {
            // The first bit that is set tells the representation (section 6).
            match first.leading_zeros() {
                0 => {
                    let (name, value) = self.table.field(block.integer(7)?)?;
                    list.add(name, value);
                }
                1 => self.literal(true, &mut scratch, &mut block, &mut list)?,
                2 if may_resize => {
                    self.table.resize(block.integer(5)?)?;
                    continue;
                }
                2 => return Err(Error::SizeUpdateTooLate),
                // Not to be indexed, now or ever: the same for who does not send it on.
                _ => self.literal(false, &mut scratch, &mut block, &mut list)?,
            }
            may_resize = false;
        }
        for buffer in [&mut scratch.name, &mut scratch.value] {
            buffer.clear();
            // One large header must not stay in memory for the life of the thread.
            buffer.shrink_to(SCRATCH_BYTES);
        }
        SCRATCH.set(scratch);
        Ok(list.decoded)
    }

    /// A field whose value is written out, and its name too unless an index is given (section 6.2).
    /// With `keep` it goes into the dynamic table.
    fn literal<F>(
        &mut self,
        keep: bool,
        scratch: &mut Scratch,
        block: &mut Block<'_>,
        list: &mut List<F>,
    ) -> Result<(), Error>
    where
        F: FnMut(&[u8], &[u8]),
    {
        // 0 stands for a name that is written out.
        let index = block.integer(if keep { 6 } else { 4 })?;
        let known = if index > 0 { Some(self.table.name(index)?) } else { None };
        let name = match &known {
            Some(known) => known.as_bytes(),
            None => block.string(&mut scratch.name)?,
        };
        let value = block.string(&mut scratch.value)?;
        list.add(name, value);
        if keep {
            let name = match &known {
                // Shared and not copied: otherwise two octets could make us copy 4 KiB.
                Some(known) => known.clone(),
                None => Name::Shared(name.into()),
            };
            self.table.insert(name, value);
        }
        Ok(())
    }
}

/// The fields of one block, as far as the caller wants them.
struct List<F> {
    left_bytes: usize,
    decoded: Decoded,
    field: F,
}

impl<F: FnMut(&[u8], &[u8])> List<F> {
    /// Gives the field out. After the first that has no room, there is none for smaller ones either.
    fn add(&mut self, name: &[u8], value: &[u8]) {
        match self.left_bytes.checked_sub(name.len() + value.len() + FIELD_BYTES) {
            Some(left) if self.decoded == Decoded::Complete => {
                self.left_bytes = left;
                (self.field)(name, value);
            }
            _ => self.decoded = Decoded::LimitExceeded,
        }
    }
}

/// Rest of a header block.
struct Block<'a> {
    rest: &'a [u8],
}

impl<'a> Block<'a> {
    fn octet(&mut self) -> Result<u8, Error> {
        let (first, rest) = self.rest.split_first().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    /// An integer that begins in the low `prefix_bits` of the next octet (section 5.1).
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, Error> {
        let most = (1 << prefix_bits) - 1;
        let mut value = usize::from(self.octet()?) & most;
        // All ones in the prefix: the value continues in further octets, seven bits each, lowest first.
        if value < most {
            return Ok(value);
        }
        for i in 0..INTEGER_OCTETS {
            let octet = self.octet()?;
            value += usize::from(octet & 0x7f) << (7 * i);
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Integer)
    }

    /// A string (section 5.2), in place or decoded into `scratch`.
    fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error>
    where
        'a: 's,
    {
        let is_coded = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(Error::Truncated)?;
        self.rest = rest;
        if !is_coded {
            return Ok(string);
        }
        scratch.clear();
        // At most 8/5 of the coded length: the shortest code has 5 bits.
        huffman::decode(string, scratch)?;
        Ok(scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::LIMIT_BYTES;
    use super::super::{encode, huffman};
    use super::*;

    type Fields = Vec<(String, String)>;

    /// Decodes without a limit.
    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Error> {
        let mut got = Vec::new();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let fits = decoder.decode(block, usize::MAX, |name, value| got.push((text(name), text(value))))?;
        assert_eq!(fits, Decoded::Complete);
        Ok(got)
    }

    fn error(block: &[u8]) -> Error {
        fields(&mut Decoder::new(), block).unwrap_err()
    }

    /// `name: value` on each line.
    fn listed(text: &str) -> Fields {
        let field = |line: &str| line.rsplit_once(": ").map(|(name, value)| (name.into(), value.into()));
        text.lines().filter_map(|line| field(line.trim_start())).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }

    /// Encodes a field whose name and value are literals without Huffman code.
    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = |octets: &[u8]| encode::tests::integer_octets(0, 7, octets.len());
        [&[first], &*length(name), name, &*length(value), value].concat()
    }

    const KEEP: u8 = 0x40;
    const PASS: u8 = 0;
    const NEVER_INDEX: u8 = 0x10;

    /// Blocks of one connection, each with its fields and the size of the table behind it.
    fn check_appendix(decoder: &mut Decoder, examples: &[(&str, &str, usize)]) {
        for (block, expected, size) in examples {
            assert_eq!(fields(decoder, &unhex(block)), Ok(listed(expected)), "{block}");
            assert_eq!(decoder.table.size_bytes(), *size, "{block}");
        }
    }

    #[test]
    fn each_kind_of_field_is_read_as_in_appendix_c_2() {
        let examples = [
            ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header", 55),
            ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", 0),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", 0),
            ("82", ":method: GET", 0),
        ];
        for example in examples {
            check_appendix(&mut Decoder::new(), &[example]);
        }
    }

    const REQUESTS: [&str; 3] = [
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com",
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com
         cache-control: no-cache",
        ":method: GET
         :scheme: https
         :path: /index.html
         :authority: www.example.com
         custom-key: custom-value",
    ];

    #[test]
    fn requests_are_read_as_in_appendix_c_3() {
        let blocks = [
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0], 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1], 110),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUESTS[2], 164),
        ];
        check_appendix(&mut Decoder::new(), &blocks);
    }

    #[test]
    fn coded_requests_are_read_as_in_appendix_c_4() {
        let blocks = [
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0], 57),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1], 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUESTS[2], 164),
        ];
        check_appendix(&mut Decoder::new(), &blocks);
    }

    const RESPONSES: [&str; 3] = [
        ":status: 302
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        ":status: 307
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        ":status: 200
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:22 GMT
         location: https://www.example.com
         content-encoding: gzip
         set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];

    /// The examples of responses have a table of 256 bytes.
    fn small_decoder() -> Decoder {
        let mut decoder = Decoder::new();
        assert_eq!(fields(&mut decoder, &encode::tests::integer_octets(0x20, 5, 256)), Ok(Vec::new()));
        decoder
    }

    #[test]
    fn responses_are_read_as_in_appendix_c_5() {
        let blocks = [
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                 6c65 2e63 6f6d",
                RESPONSES[0],
                222,
            ),
            ("4803 3330 37c1 c0bf", RESPONSES[1], 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                 3d31",
                RESPONSES[2],
                215,
            ),
        ];
        check_appendix(&mut small_decoder(), &blocks);
    }

    #[test]
    fn coded_responses_are_read_as_in_appendix_c_6() {
        let blocks = [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSES[0],
                222,
            ),
            ("4883 640e ffc1 c0bf", RESPONSES[1], 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                RESPONSES[2],
                215,
            ),
        ];
        check_appendix(&mut small_decoder(), &blocks);
    }

    #[test]
    fn integers_of_every_prefix_come_back_up_to_the_largest() {
        for prefix_bits in 4..=7 {
            let most: usize = (1 << prefix_bits) - 1;
            let largest = most + (1 << 28) - 1;
            let mut values = vec![0, 1, 1337, largest - 1, largest];
            for edge in [most, most + 0x7f, most + (1 << 14), most + (1 << 21)] {
                values.extend([edge - 1, edge, edge + 1]);
            }
            for value in values {
                // The bits above the prefix are not part of it.
                for high in [0, 0xff << prefix_bits & 0xff] {
                    let octets = encode::tests::integer_octets(high as u8, prefix_bits, value);
                    let mut block = Block { rest: &octets };

                    assert_eq!(block.integer(prefix_bits), Ok(value));
                    assert!(block.rest.is_empty());
                    for cut in 0..octets.len() {
                        assert_eq!(Block { rest: &octets[..cut] }.integer(prefix_bits), Err(Error::Truncated));
                    }
                }
            }
            let over = encode::tests::integer_octets(0, prefix_bits, largest + 1);
            assert_eq!(Block { rest: &over }.integer(prefix_bits), Err(Error::Integer));
        }
    }

    #[test]
    fn integers_with_too_many_octets_are_refused_whatever_their_value() {
        // 63 with octets that add nothing: a few are odd, and as many as one likes are not allowed.
        assert_eq!(error(&[0xff, 0x80, 0x80, 0x80, 0]), Error::Index { index: 127 });
        assert_eq!(error(&[0xff, 0x80, 0x80, 0x80, 0x80, 0]), Error::Integer);
        assert_eq!(error(&[&[0xff][..], &[0xff; 100]].concat()), Error::Integer);
        // Lengths and sizes are integers too.
        assert_eq!(error(&[0, 0x7f, 0x80, 0x80, 0x80, 0x80, 0]), Error::Integer);
        assert_eq!(error(&[0x3f, 0x80, 0x80, 0x80, 0x80, 0]), Error::Integer);
    }

    #[test]
    fn a_block_that_ends_inside_a_field_is_refused() {
        let coded = huffman::tests::encode(b"value");
        let blocks = [
            literal(KEEP, b"name", b"value"),
            literal(PASS, b"name", b"value"),
            literal(NEVER_INDEX, b"name", b"value"),
            [&[0x41, 0x80 | coded.len() as u8][..], &coded].concat(),
            encode::tests::integer_octets(0x20, 5, 4096),
        ];
        for block in blocks {
            assert!(fields(&mut Decoder::new(), &block).is_ok());
            for cut in 1..block.len() {
                assert_eq!(error(&block[..cut]), Error::Truncated, "{:x?}", &block[..cut]);
            }
        }
        assert_eq!(error(&[0, 0x7f, 0xff, 0xff, 0xff, 0x7f]), Error::Truncated);
    }

    #[test]
    fn an_index_outside_of_both_tables_is_refused() {
        assert_eq!(error(&[0x80]), Error::Index { index: 0 });
        assert_eq!(error(&[0x80 | 62]), Error::Index { index: 62 });
        assert_eq!(error(&[KEEP | 62, 0]), Error::Index { index: 62 });
        assert_eq!(error(&[PASS | 15, 62 - 15, 0]), Error::Index { index: 62 });
        assert_eq!(error(&[NEVER_INDEX | 15, 62 - 15, 0]), Error::Index { index: 62 });
        let one_entry = literal(KEEP, b"n", b"v");
        assert_eq!(error(&[&*one_entry, &[0x80 | 62, 0x80 | 63]].concat()), Error::Index { index: 63 });
    }

    #[test]
    fn a_malformed_huffman_string_is_refused_as_name_and_as_value() {
        assert_eq!(error(&[0, 0x81, 0xff, 0]), Error::Huffman);
        assert_eq!(error(&[0, 0, 0x81, 0x00]), Error::Huffman);
        assert_eq!(error(&[0x41, 0x84, 0xff, 0xff, 0xff, 0xff]), Error::Huffman);
    }

    #[test]
    fn sizes_change_at_the_beginning_of_a_block_and_within_the_limit() {
        let size = |bytes| encode::tests::integer_octets(0x20, 5, bytes);
        let mut decoder = Decoder::new();

        assert_eq!(fields(&mut decoder, &[&*size(0), &*size(LIMIT_BYTES), &[0x82]].concat()).map(|f| f.len()), Ok(1));

        assert_eq!(error(&size(LIMIT_BYTES + 1)), Error::SizeUpdateTooLarge { bytes: LIMIT_BYTES + 1 });
        for field in [vec![0x82], literal(KEEP, b"n", b"v"), literal(PASS, b"n", b"v"), literal(NEVER_INDEX, b"n", b"")]
        {
            assert_eq!(error(&[field, size(0)].concat()), Error::SizeUpdateTooLate);
        }
    }

    #[test]
    fn a_size_of_zero_empties_the_table() {
        let mut decoder = Decoder::new();
        fields(&mut decoder, &literal(KEEP, b"n", b"v")).unwrap();

        assert_eq!(fields(&mut decoder, &[0x20, 0x80 | 62]), Err(Error::Index { index: 62 }));
        assert_eq!(decoder.table.size_bytes(), 0);
    }

    #[test]
    fn an_entry_larger_than_the_table_is_a_field_and_leaves_the_table_empty() {
        let mut decoder = Decoder::new();
        fields(&mut decoder, &literal(KEEP, b"n", b"v")).unwrap();

        let got = fields(&mut decoder, &literal(KEEP, b"large", &[b'x'; LIMIT_BYTES])).unwrap();

        assert_eq!(got, [("large".into(), "x".repeat(LIMIT_BYTES))]);
        assert_eq!(decoder.table.size_bytes(), 0);
    }

    #[test]
    fn a_name_may_be_that_of_an_entry_which_its_own_entry_evicts() {
        let mut decoder = Decoder::new();
        fields(&mut decoder, &literal(KEEP, b"name", &[b'o'; 4000])).unwrap();
        let value = [b'n'; 3000];
        // The name of index 62, and a length of 3000.
        let block = [&[KEEP | 62, 0x7f, 0xb9, 0x16][..], &value, &[0x80 | 62]].concat();

        let got = fields(&mut decoder, &block).unwrap();

        assert_eq!(got, vec![("name".to_owned(), "n".repeat(3000)); 2]);
        assert_eq!(decoder.table.size_bytes(), 4 + 3000 + 32);
    }

    #[test]
    fn a_list_is_given_out_as_far_as_it_fits() {
        let block = [literal(PASS, b"ab", b"c"), literal(PASS, b"", &[0; 50]), literal(PASS, b"", b"")].concat();
        for (limit, expected, count) in [
            (34, Decoded::LimitExceeded, 0),
            (35, Decoded::LimitExceeded, 1),
            (35 + 81, Decoded::LimitExceeded, 1),
            (35 + 82, Decoded::LimitExceeded, 2),
            (35 + 82 + 31, Decoded::LimitExceeded, 2),
            (35 + 82 + 32, Decoded::Complete, 3),
        ] {
            let mut given = 0;
            let fits = Decoder::new().decode(&block, limit, |_, _| given += 1);

            assert_eq!((fits, given), (Ok(expected), count), "{limit}");
        }
        assert_eq!(Decoder::new().decode(&[], 0, |_, _| ()), Ok(Decoded::Complete));
    }

    #[test]
    fn what_does_not_fit_still_fills_the_table_and_is_still_checked() {
        let mut decoder = Decoder::new();
        let block = [literal(PASS, b"too", b"large"), literal(KEEP, b"kept", b"value")].concat();

        assert_eq!(decoder.decode(&block, 33, |_, _| panic!("does not fit")), Ok(Decoded::LimitExceeded));

        assert_eq!(fields(&mut decoder, &[0x80 | 62]), Ok(listed("kept: value")));
        assert_eq!(decoder.decode(&[0x80 | 62, 0x80 | 63], 0, |_, _| ()), Err(Error::Index { index: 63 }));
    }

    #[test]
    fn a_large_entry_is_not_given_out_more_often_than_fits() {
        let mut decoder = Decoder::new();
        fields(&mut decoder, &literal(KEEP, b"n", &[0; 4000])).unwrap();
        let mut given = 0;

        let fits = decoder.decode(&[0x80 | 62; 100_000], 16 << 10, |_, value| given += value.len());

        assert_eq!((fits, given), (Ok(Decoded::LimitExceeded), 4 * 4000));
    }

    #[test]
    fn scratch_buffers_stay_small_between_blocks() {
        let mut decoder = Decoder::new();
        let coded = huffman::tests::encode(&[b'a'; 100_000]);
        let string = [encode::tests::integer_octets(0x80, 7, coded.len()), coded].concat();

        let got = fields(&mut decoder, &[&[PASS], &*string, &*string].concat()).unwrap();

        assert_eq!(got, [("a".repeat(100_000), "a".repeat(100_000))]);
        let scratch = SCRATCH.take();
        assert!(scratch.name.capacity() <= SCRATCH_BYTES && scratch.value.capacity() <= SCRATCH_BYTES);
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % end
        }

        fn octets(&mut self, end: usize) -> Vec<u8> {
            (0..self.below(end)).map(|_| self.below(256) as u8).collect()
        }

        /// A field or a size that is right more often than chance has it.
        fn piece(&mut self) -> Vec<u8> {
            let first = [KEEP, PASS, NEVER_INDEX][self.below(3)];
            let (name, value) = (self.octets(20), self.octets(60));
            match self.below(8) {
                0 => literal(first, &name, &value),
                1 => literal(first, &name, &[b'v'; 4200][..self.below(4200)]),
                2 => [&[first | self.below(64) as u8, value.len() as u8][..], &value].concat(),
                3 => {
                    let coded = huffman::tests::encode(&value[..value.len().min(30)]);
                    [&[KEEP | (1 + self.below(63) as u8), 0x80 | coded.len() as u8][..], &coded].concat()
                }
                4 => encode::tests::integer_octets(0x80, 7, self.below(130)),
                5 => encode::tests::integer_octets(0x20, 5, self.below(4200)),
                6 => value,
                _ => vec![0x80 | (62 + self.below(4) as u8); self.below(20)],
            }
        }
    }

    #[test]
    fn any_octets_are_fields_within_the_limit_or_an_error() {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut decoder = Decoder::new();
        let mut seen = [0; 3];
        for round in 0..100_000 {
            let mut block = match round % 3 {
                0 => random.octets(100),
                _ => (0..random.below(6)).flat_map(|_| random.piece()).collect(),
            };
            if round % 3 == 1 && !block.is_empty() {
                let at = random.below(block.len());
                block[at] ^= 1 << random.below(8);
            }
            let limit = random.below(2000);
            let mut given = 0;

            let outcome = decoder.decode(&block, limit, |name, value| given += name.len() + value.len() + 32);

            assert!(given <= limit);
            assert!(decoder.table.size_bytes() <= LIMIT_BYTES);
            seen[match outcome {
                Ok(Decoded::Complete) => 0,
                Ok(Decoded::LimitExceeded) => 1,
                Err(_) => 2,
            }] += 1;
        }
        assert!(seen.iter().all(|&count| count > 3_000), "{seen:?}");
    }
}
