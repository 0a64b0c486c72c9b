//! The Huffman code of HPACK strings (RFC 7541, section 5.2 and appendix B). Decoding only: what we send is not coded.

use super::Error;

/// Bits of the code of each octet, and last of EOS.
///
/// The code is canonical: codes count up in the order of (bits, octet), so this is all of appendix B.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
const LONGEST_CODE: u8 = 30;
const EOS: usize = 256;
/// One for the first eight bits of a code, and one for each beginning of 8, 16 or 24 bits that longer codes have.
const TABLES: usize = 15;

/// Meaning of the next eight bits.
#[derive(Clone, Copy)]
struct Step {
    /// Number of them that end a code, 1 to 8; 0 if all eight belong to a code that continues.
    bits: u8,
    /// The octet that the code stands for; the table to go on in; or 0, which is neither, for EOS.
    value: u8,
}

type Steps = [[Step; 256]; TABLES];

/// Row 0 is where codes begin.
static STEPS: Steps = build();

const fn build() -> Steps {
    let mut steps = [[Step { bits: 0, value: 0 }; 256]; TABLES];
    let mut tables = 1;
    let mut code = 0;
    let mut length = 1;
    while length <= LONGEST_CODE {
        let mut octet = 0;
        // EOS comes last of all and has no step.
        while octet < EOS {
            if LENGTHS[octet] == length {
                tables = place(&mut steps, tables, code, octet);
                code += 1;
            }
            octet += 1;
        }
        code <<= 1;
        length += 1;
    }
    assert!(tables as usize == TABLES);
    steps
}

/// Enters the code of one octet. Takes and returns how many tables are in use.
const fn place(steps: &mut Steps, mut tables: u8, code: u32, octet: usize) -> u8 {
    let mut table = 0;
    let mut left = LENGTHS[octet];
    while left > 8 {
        left -= 8;
        let step = &mut steps[table][(code >> left) as usize & 0xff];
        if step.value == 0 {
            step.value = tables;
            tables += 1;
        }
        table = step.value as usize;
    }
    // One entry for each value of the bits behind the code.
    let mut at = (code << (8 - left)) as usize & 0xff;
    let end = at + (1 << (8 - left));
    while at < end {
        steps[table][at] = Step { bits: left, value: octet as u8 };
        at += 1;
    }
    tables
}

/// Appends to `out` what `coded` stands for, at most 8/5 of its length.
///
/// # Errors
/// EOS inside, and padding of more than seven bits or not of ones. `out` is then unusable.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    // The shortest code has five bits.
    out.reserve(coded.len() * 8 / 5);
    let mut table = 0;
    // The low `held` bits of `bits` are still to be decoded; between octets, seven at most.
    let mut bits: u32 = 0;
    let mut held = 0;
    for &octet in coded {
        bits = bits << 8 | u32::from(octet);
        held += 8;
        while held >= 8 {
            let step = STEPS[table][(bits >> (held - 8)) as usize & 0xff];
            if step.bits > 0 {
                out.push(step.value);
                held -= u32::from(step.bits);
                table = 0;
            } else if step.value > 0 {
                held -= 8;
                table = usize::from(step.value);
            } else {
                return Err(Error::Huffman);
            }
        }
    }
    // Codes that fit into what is held, then padding: the begin of EOS, which is all ones.
    loop {
        let ones = 0xff >> held;
        let last = (bits << (8 - held)) as usize & 0xff | ones;
        let step = STEPS[table][last];
        if step.bits > 0 && u32::from(step.bits) <= held {
            out.push(step.value);
            held -= u32::from(step.bits);
            table = 0;
        } else if table == 0 && last == 0xff {
            return Ok(());
        } else {
            return Err(Error::Huffman);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The code of each octet and of EOS, made in another way than the table.
    fn codes() -> Vec<u32> {
        let mut order: Vec<usize> = (0..=EOS).collect();
        order.sort_by_key(|&octet| (LENGTHS[octet], octet));
        let mut codes = vec![0; 257];
        for pair in order.windows(2) {
            codes[pair[1]] = (codes[pair[0]] + 1) << (LENGTHS[pair[1]] - LENGTHS[pair[0]]);
        }
        codes
    }

    fn bits_of(symbols: impl IntoIterator<Item = usize>) -> Vec<bool> {
        let codes = codes();
        let bits_of = |symbol: usize| (0..LENGTHS[symbol]).rev().map(move |bit| (symbol, bit));
        symbols.into_iter().flat_map(bits_of).map(|(symbol, bit)| codes[symbol] >> bit & 1 == 1).collect()
    }

    /// Fills the last octet with `padding`.
    fn pack(bits: &[bool], padding: bool) -> Vec<u8> {
        let octet = |bits: &[bool]| (0..8).fold(0, |octet, i| octet << 1 | u8::from(*bits.get(i).unwrap_or(&padding)));
        bits.chunks(8).map(octet).collect()
    }

    pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
        pack(&bits_of(text.iter().map(|&octet| usize::from(octet))), true)
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    /// Bit by bit, as section 5.2 has it.
    fn decoded_slowly(coded: &[u8]) -> Result<Vec<u8>, Error> {
        let codes = codes();
        let (mut out, mut code, mut length) = (Vec::new(), 0, 0);
        for bit in coded.iter().flat_map(|octet| (0..8).rev().map(move |bit| u32::from(octet >> bit & 1))) {
            (code, length) = (code << 1 | bit, length + 1);
            if let Some(symbol) = (0..=EOS).find(|&s| LENGTHS[s] == length && codes[s] == code) {
                out.push(u8::try_from(symbol).map_err(|_| Error::Huffman)?);
                (code, length) = (0, 0);
            }
        }
        if length < 8 && code == (1 << length) - 1 { Ok(out) } else { Err(Error::Huffman) }
    }

    #[test]
    fn the_code_is_complete_and_ends_with_eos() {
        let used: u64 = LENGTHS.iter().map(|&bits| 1 << (LONGEST_CODE - bits)).sum();

        assert_eq!(used, 1 << LONGEST_CODE);
        assert_eq!(codes()[EOS], 0x3fff_ffff);
        assert_eq!([codes()[0], codes()[usize::from(b'0')], codes()[255]], [0x1ff8, 0, 0x3ff_ffee]);
    }

    #[test]
    fn every_octet_comes_back_next_to_every_other() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(decoded(&encode(&[a, b])), Ok(vec![a, b]));
            }
        }
    }

    #[test]
    fn any_octets_mean_what_they_mean_bit_by_bit() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut coded = random.to_be_bytes();
            // Long codes and padding begin with ones, which are seldom by chance.
            let ones = round % 6;
            coded[..ones].fill(0xff);
            coded[7] |= [0, 1, 7, 0x1f, 0x7f][round % 5];

            assert_eq!(decoded(&coded[..1 + round % 8]), decoded_slowly(&coded[..1 + round % 8]), "{coded:x?}");
        }
    }

    #[test]
    fn two_octets_mean_what_they_mean_bit_by_bit() {
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        for coded in (0..=u16::MAX).step_by(3).map(u16::to_be_bytes) {
            assert_eq!(decoded(&coded), decoded_slowly(&coded), "{coded:x?}");
        }
    }

    #[test]
    fn padding_is_at_most_seven_ones() {
        let text: Vec<usize> = b"aaaaaaaa".iter().map(|&octet| usize::from(octet)).collect();
        // Five bits each: paddings of 3, 6, 1, 4, 7, 2, 5 and 0.
        for count in 1..=8 {
            let bits = bits_of(text[..count].iter().copied());
            assert_eq!(decoded(&pack(&bits, true)), Ok(vec![b'a'; count]));
            // Five zeros are a code, that of "0".
            let is_valid = count >= 7;
            assert_eq!(decoded(&pack(&bits, false)).is_ok(), is_valid, "{count}");
            for octets in 1..5 {
                let padded = [pack(&bits, true), vec![0xff; octets]].concat();
                assert_eq!(decoded(&padded), Err(Error::Huffman), "{count} and {octets}");
            }
        }
        for octets in 1..9 {
            assert_eq!(decoded(&vec![0xff; octets]), Err(Error::Huffman));
        }
    }

    #[test]
    fn eos_is_refused_wherever_it_is() {
        for symbols in [vec![EOS], vec![48, EOS], vec![EOS, 48], vec![48, 49, EOS, 50], vec![255, EOS, 255]] {
            assert_eq!(decoded(&pack(&bits_of(symbols.clone()), true)), Err(Error::Huffman), "{symbols:?}");
        }
    }
}
