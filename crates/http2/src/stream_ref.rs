//! A handle of a stream.

use crate::Stream;
use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;

/// A stream as its connection and its users share it. Clones are the same stream; it is freed with the last of them.
///
/// A borrow must end before the connection is called with the handle: the connection borrows the stream itself.
#[derive(Debug, Clone)]
pub struct StreamRef(Rc<RefCell<Stream>>);

impl StreamRef {
    pub(crate) fn new(stream: Stream) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Borrows the stream.
    #[inline]
    pub fn borrow(&self) -> Ref<'_, Stream> {
        self.0.borrow()
    }

    /// Borrows the stream to change it.
    #[inline]
    pub fn borrow_mut(&self) -> RefMut<'_, Stream> {
        self.0.borrow_mut()
    }
}
