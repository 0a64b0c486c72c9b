//! One thing that was read back from the kernel.

/// One fact of the kernel, whether it is as it should be, and the detail that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable name, such as `connect4` or `sk_lookup`.
    pub name: String,
    /// As it should be?
    pub ok: bool,
    /// Finding, for a reader.
    pub detail: String,
}

impl Check {
    pub(crate) fn passed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, detail: detail.into() }
    }

    pub(crate) fn failed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: false, detail: detail.into() }
    }
}
