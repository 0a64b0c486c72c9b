//! Body of one try of a request, or of a mirror.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::BoxError;
use super::source::{Reader, Source};

/// Body of one try.
#[derive(Debug)]
pub struct RequestBody(Option<Reader>);

impl RequestBody {
    /// No body.
    pub const EMPTY: Self = Self(None);

    /// Reads a source from its beginning.
    pub fn of(source: &Source) -> Self {
        Self(Some(source.reader(false)))
    }

    /// Reads a source for a mirror: cut when it reads too slowly, instead of keeping others waiting.
    pub fn for_mirror(source: &Source) -> Self {
        Self(Some(source.reader(true)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Some(reader) => reader.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Reader::is_at_end)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Reader::size_hint)
    }
}
