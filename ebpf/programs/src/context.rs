//! Reading fields of a program's context.

/// Reads one field of the context, once, before anything branches on it: merged or repeated
/// reads make the verifier refuse the program ("dereference of modified ctx ptr").
macro_rules! read {
    ($($field:tt)+) => {{
        // SAFETY: the place lies in the context of this program, which the kernel keeps valid
        // while it runs; the verifier checks the offset.
        unsafe { core::ptr::read_volatile(&raw const $($field)+) }
    }};
}

/// Four words of an IPv6 address, each a read of its own.
macro_rules! read_words {
    ($($field:tt)+) => {
        [
            crate::context::read!($($field)+[0]),
            crate::context::read!($($field)+[1]),
            crate::context::read!($($field)+[2]),
            crate::context::read!($($field)+[3]),
        ]
    };
}

pub(crate) use {read, read_words};
