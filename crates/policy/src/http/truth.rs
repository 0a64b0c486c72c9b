//! Answers of conditions, one of which may be that it is not known.

/// Answer of a condition, a rule or a policy.
///
/// A value that cannot be evaluated makes its condition unknown, and stays unknown through negation. So one evaluation is
/// right for both directions: an ALLOW policy needs a rule that holds, a DENY policy denies unless its rules fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    Unknown,
}

impl Truth {
    /// `No` if one of them is, else `Unknown` if one of them is.
    pub(super) fn all(of: impl IntoIterator<Item = Self>) -> Self {
        let mut result = Self::Yes;
        for truth in of {
            match truth {
                Self::Yes => {}
                Self::No => return Self::No,
                Self::Unknown => result = Self::Unknown,
            }
        }
        result
    }

    /// `Yes` if one of them is, else `Unknown` if one of them is.
    pub(super) fn any(of: impl IntoIterator<Item = Self>) -> Self {
        let mut result = Self::No;
        for truth in of {
            match truth {
                Self::Yes => return Self::Yes,
                Self::No => {}
                Self::Unknown => result = Self::Unknown,
            }
        }
        result
    }

    /// As `any`, of a list that asks for nothing when it is empty.
    pub(super) fn any_or_empty<T>(list: &[T], test: impl FnMut(&T) -> Self) -> Self {
        if list.is_empty() { Self::Yes } else { Self::any(list.iter().map(test)) }
    }
}
