//! Frames for the next write. Payloads are not copied: they stay where they are until they are written.

use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use bytes::Bytes;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Largest number of pieces in a batch, as one vectored write takes them.
const PIECES: usize = 64;
/// Bytes from which on a batch takes no more frames.
const FULL_BYTES: usize = 256 << 10;

#[derive(Debug)]
enum Piece {
    Header([u8; FRAME_HEADER_BYTES]),
    Payload(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Header(header) => header,
            Self::Payload(payload) => payload,
        }
    }
}

thread_local! {
    /// A batch that was written. All connections of a thread share it, so that an idle connection keeps no buffer.
    // One is enough: a batch is taken and returned within a poll, unless its write has to wait.
    static SPARE: Cell<Option<Box<Batch>>> = const { Cell::new(None) };
}

/// Frames about to be written, control frames first.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) control: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    written: usize,
}

impl Batch {
    /// An empty batch, with the room that its last user needed.
    pub(crate) fn take() -> Box<Self> {
        SPARE.take().unwrap_or_default()
    }

    /// Returns an empty batch to the thread.
    pub(crate) fn recycle(self: Box<Self>) {
        debug_assert!(self.is_empty());
        SPARE.set(Some(self));
    }

    /// Returns whether everything in it has been written.
    pub(crate) const fn is_empty(&self) -> bool {
        self.control.is_empty() && self.pieces.is_empty()
    }

    /// Largest payload that still fits, bytes; 0 when not even a frame without payload fits.
    #[inline]
    pub(crate) const fn room(&self) -> usize {
        // A frame takes a header and at least one piece.
        if self.pieces.len() + 2 > PIECES { 0 } else { FULL_BYTES.saturating_sub(self.bytes) }
    }

    /// Number of pieces of payload that fit behind the header of one more frame.
    #[inline]
    pub(crate) const fn room_pieces(&self) -> usize {
        PIECES.saturating_sub(self.pieces.len() + 1)
    }

    #[inline]
    pub(crate) fn header(&mut self, header: FrameHeader) {
        self.bytes += FRAME_HEADER_BYTES;
        self.pieces.push(Piece::Header(header.encode()));
    }

    #[inline]
    pub(crate) fn payload(&mut self, payload: Bytes) {
        self.bytes += payload.len();
        self.pieces.push(Piece::Payload(payload));
    }

    /// Writes everything. When that has to wait or fails, the rest stays for the next call.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let total = self.control.len() + self.bytes;
        while self.written < total {
            // The slices are made anew for each write, as a write may end anywhere, also inside a header.
            let mut slices = [IoSlice::new(&[]); PIECES + 1];
            let mut used = 0;
            let mut skip = self.written;
            let parts = std::iter::once(self.control.as_slice()).chain(self.pieces.iter().map(Piece::bytes));
            for part in parts {
                let gone = skip.min(part.len());
                skip -= gone;
                if gone < part.len() {
                    slices[used] = IoSlice::new(&part[gone..]);
                    used += 1;
                }
            }
            let n = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..used]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.control.clear();
        self.pieces.clear();
        (self.bytes, self.written) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, duplex};

    #[tokio::test]
    async fn a_writer_that_takes_little_gets_everything_in_order() {
        for size in [1, 7, 64] {
            let (mut near, mut far) = duplex(size);
            let mut batch = Batch { control: b"control".to_vec(), ..Batch::default() };
            for text in ["first", "", "second"] {
                batch.header(FrameHeader { length: text.len(), kind: 0, flags: 0, stream_id: 1 });
                batch.payload(Bytes::from_static(text.as_bytes()));
            }
            let cx = &mut Context::from_waker(Waker::noop());

            let mut got = Vec::new();
            while batch.poll_write(&mut near, cx).is_pending() {
                let mut some = [0; 10];
                let n = far.read(&mut some).await.unwrap();
                got.extend_from_slice(&some[..n]);
            }
            drop(near);
            far.read_to_end(&mut got).await.unwrap();

            let head = |n| FrameHeader { length: n, kind: 0, flags: 0, stream_id: 1 }.encode().to_vec();
            let expected = [b"control".to_vec(), head(5), b"first".to_vec(), head(0), head(6), b"second".to_vec()];
            assert_eq!(got, expected.concat(), "{size} at a time");
            assert!(batch.is_empty());
        }
    }

    #[test]
    fn a_batch_is_full_at_some_point() {
        let mut batch = Batch::default();
        let mut frames = 0;
        while batch.room() > 0 {
            batch.header(FrameHeader { length: 1, kind: 0, flags: 0, stream_id: 1 });
            batch.payload(Bytes::from_static(b"x"));
            frames += 1;
        }
        assert_eq!(frames, PIECES / 2);

        let mut batch = Batch::default();
        batch.payload(Bytes::from(vec![0; FULL_BYTES]));
        assert_eq!(batch.room(), 0);
    }
}
