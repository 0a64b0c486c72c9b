//! Bytes that are worth checking: every 256 of them carry their place, and the receiver compares each, so that a lost,
//! doubled or swapped piece shows.

use std::io::{self, Read, Write};

/// Bytes of a block.
pub const BLOCK: usize = 64 * 1024;

/// Bytes from one mark to the next: pieces of different blocks that are longer are never equal.
const STRIDE: usize = 256;

/// The endless sequence of blocks of one seed.
#[derive(Debug)]
pub struct Pattern {
    block: Vec<u8>,
    seed: u64,
    index: u64,
}

impl Pattern {
    /// From the first block.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // An xorshift generator: fast, the same everywhere, and without a fixed point as long as the state is not 0.
        let mut state = seed | 1;
        let word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let block = std::iter::repeat_with(word).take(BLOCK / 8).flat_map(u64::to_le_bytes).collect();
        Self { block, seed, index: 0 }
    }

    /// The next block. Its number stands in the first word of every stride.
    pub fn next_block(&mut self) -> &[u8] {
        // With the seed, so that equal blocks of two connections differ.
        let mark = (self.index ^ self.seed).to_le_bytes();
        for stride in self.block.chunks_exact_mut(STRIDE) {
            stride[..8].copy_from_slice(&mark);
        }
        self.index += 1;
        &self.block
    }
}

/// Writes the first `bytes` of the pattern.
///
/// # Errors
/// Those of the writer.
pub fn send(out: &mut impl Write, seed: u64, bytes: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut left = bytes;
    while left > 0 {
        let n = left.min(BLOCK as u64);
        out.write_all(&pattern.next_block()[..n as usize])?;
        left -= n;
    }
    // For writers with a buffer; a socket has none.
    out.flush()
}

/// Reads `bytes` and compares them with the pattern.
///
/// # Errors
/// `InvalidData` at the first block that differs, `UnexpectedEof` naming how much came, or those of the reader.
pub fn expect(input: &mut impl Read, seed: u64, bytes: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; BLOCK];
    let mut done = 0;
    while done < bytes {
        let wanted = (bytes - done).min(BLOCK as u64) as usize;
        let mut have = 0;
        while have < wanted {
            match input.read(&mut buffer[have..wanted])? {
                0 => {
                    let message = format!("{} of {bytes} bytes, then the end", done + have as u64);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                n => have += n,
            }
        }
        if buffer[..wanted] != pattern.next_block()[..wanted] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("wrong bytes after {done}")));
        }
        done += wanted as u64;
    }
    Ok(())
}

/// Fails when anything follows.
///
/// # Errors
/// `InvalidData` when a byte follows, or those of the reader.
pub fn expect_end(input: &mut impl Read) -> io::Result<()> {
    match input.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "bytes beyond the expected end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_pattern_passes() {
        let mut sent = Vec::new();
        send(&mut sent, 7, 200_000).unwrap();

        assert_eq!(sent.len(), 200_000);
        expect(&mut sent.as_slice(), 7, 200_000).unwrap();
    }

    #[test]
    fn swapped_blocks_and_missing_ends_are_found() {
        let mut sent = Vec::new();
        send(&mut sent, 7, 2 * BLOCK as u64).unwrap();
        let mut swapped = sent[BLOCK..].to_vec();
        swapped.extend(&sent[..BLOCK]);

        let wrong = expect(&mut swapped.as_slice(), 7, 2 * BLOCK as u64).unwrap_err();
        let short = expect(&mut &sent[..100], 7, 200).unwrap_err();

        assert_eq!(wrong.kind(), io::ErrorKind::InvalidData);
        assert_eq!(short.to_string(), "100 of 200 bytes, then the end");
    }
}
