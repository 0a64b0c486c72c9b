//! All mistakes of one input, reported together. Not for errors of a running system.

use std::fmt;

/// One mistake: which key, what was there, what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the variable, flag or field, as the user writes it.
    pub key: String,
    /// Text that was found there; empty when there was none.
    pub value: String,
    /// Form that would have been accepted, with an example.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{} is missing, expected {}", self.key, self.expected)
        } else {
            write!(f, "{}={:?} is not valid, expected {}", self.key, self.value, self.expected)
        }
    }
}

/// Collects [`Problem`]s while an input is parsed, so that a user sees all of them at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a mistake.
    pub fn push(&mut self, key: impl Into<String>, value: impl Into<String>, expected: impl Into<String>) {
        self.0.push(Problem { key: key.into(), value: value.into(), expected: expected.into() });
    }

    /// Has nothing been noted?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes in the order in which they were noted.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// # Errors
    /// Returns itself when at least one mistake was noted.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_on_a_line_of_its_own() {
        let mut problems = Problems::default();

        problems.push("KEEPALIVE_TIME", "soon", "a duration such as 180s");
        problems.push("NODE_NAME", "", "the name of this node");

        let text = problems.into_result().unwrap_err().to_string();
        assert_eq!(
            text,
            "KEEPALIVE_TIME=\"soon\" is not valid, expected a duration such as 180s\n\
             NODE_NAME is missing, expected the name of this node"
        );
    }

    #[test]
    fn no_mistake_is_success() {
        assert_eq!(Problems::default().into_result(), Ok(()));
    }
}
