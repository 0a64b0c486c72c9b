//! A queue of pieces of a stream. Most streams have one piece in it or none, and then it allocates nothing: an idle
//! stream costs no more than the size of this type.

use bytes::Bytes;
use std::collections::VecDeque;

/// Pieces in order. None of them is empty.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The first; empty if there is none.
    first: Bytes,
    /// Those behind it, while there are any.
    #[expect(clippy::box_collection, reason = "most streams have none: 8 bytes instead of 32, twice")]
    rest: Option<Box<VecDeque<Bytes>>>,
}

impl Pieces {
    pub(super) const fn new() -> Self {
        Self { first: Bytes::new(), rest: None }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(!self.first.is_empty()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    /// Appends a piece, unless it is empty.
    #[inline]
    pub(super) fn push_back(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.get_or_insert_default().push_back(piece);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Bytes> {
        if self.first.is_empty() {
            return None;
        }
        let Some(rest) = &mut self.rest else { return Some(std::mem::take(&mut self.first)) };
        // `rest` is never empty while it exists, so the default is never used.
        let next = rest.pop_front().unwrap_or_default();
        if rest.is_empty() {
            // Back to the form without an allocation.
            self.rest = None;
        }
        Some(std::mem::replace(&mut self.first, next))
    }

    /// Takes `bytes` from the first piece, which must be longer, and leaves its end.
    #[inline]
    pub(super) fn split_front(&mut self, bytes: usize) -> Bytes {
        self.first.split_to(bytes)
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut Bytes> {
        match self.rest.as_mut().and_then(|rest| rest.back_mut()) {
            Some(last) => Some(last),
            None => (!self.first.is_empty()).then_some(&mut self.first),
        }
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        let first = (!self.first.is_empty()).then_some(&self.first);
        first.into_iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    #[inline]
    pub(super) fn first_len(&self) -> usize {
        self.first.len()
    }

    /// Returns whether the queue has no memory of its own.
    #[cfg(test)]
    pub(super) const fn is_unallocated(&self) -> bool {
        self.rest.is_none()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in() {
        let mut pieces = Pieces::new();
        for round in 0..3 {
            for text in ["a", "", "bc", "def"] {
                pieces.push_back(Bytes::from_static(text.as_bytes()));
            }
            assert_eq!((pieces.len(), pieces.first_len()), (3, 1), "{round}");
            assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [1, 2, 3]);
            *pieces.back_mut().unwrap() = Bytes::from_static(b"defg");

            assert_eq!(pieces.pop_front().unwrap(), "a");
            assert_eq!(pieces.split_front(1), "b");
            assert_eq!([pieces.pop_front().unwrap(), pieces.pop_front().unwrap()], ["c", "defg"]);
            assert_eq!((pieces.pop_front(), pieces.len()), (None, 0));
            assert!(pieces.rest.is_none(), "an empty queue keeps no memory");
        }
    }
}
