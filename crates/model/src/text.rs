//! Shared strings: names that thousands of workloads repeat are kept once. Not for secrets.

use std::{
    collections::HashSet,
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The table is swept of strings nobody holds any more whenever it has doubled since the last sweep, but not below this size.
const FIRST_SWEEP: usize = 4096;

/// An immutable, shared string. `Text::from` gives equal strings one allocation; see [`Text::unique`] for the exception.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

struct Table {
    known: HashSet<Arc<str>>,
    sweep_at: usize,
}

fn table() -> &'static Mutex<Table> {
    static TABLE: OnceLock<Mutex<Table>> = OnceLock::new();
    TABLE.get_or_init(|| Mutex::new(Table { known: HashSet::new(), sweep_at: FIRST_SWEEP }))
}

impl Table {
    fn sweep(&mut self) {
        // The table's own reference is the last one.
        self.known.retain(|text| Arc::strong_count(text) > 1);
        // Twice as much: the next strings do not make the table grow at once.
        self.known.shrink_to(self.known.len() * 2);
        self.sweep_at = (self.known.len() * 2).max(FIRST_SWEEP);
    }
}

impl Text {
    /// A string that nothing else repeats (a uid, a pod's name): not put into the shared table.
    #[must_use]
    pub fn unique(value: &str) -> Self {
        Self(Arc::from(value))
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For interfaces that want the shared pointer itself.
    #[must_use]
    pub fn as_arc(&self) -> Arc<str> {
        self.0.clone()
    }

    /// Frees shared strings that nobody holds any more.
    pub(crate) fn sweep() {
        table().lock().sweep();
    }

    fn interned(value: &str) -> Self {
        // Most fields of most workloads are empty: no lock for them.
        if value.is_empty() {
            return Self::default();
        }
        let mut table = table().lock();
        if let Some(found) = table.known.get(value) {
            return Self(found.clone());
        }
        // At twice the size after the last sweep, so each string is looked at a constant number of times.
        if table.known.len() >= table.sweep_at {
            table.sweep();
        }
        let new: Arc<str> = Arc::from(value);
        table.known.insert(new.clone());
        Self(new)
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        Self::interned(value)
    }
}

impl From<String> for Text {
    fn from(value: String) -> Self {
        Self::interned(&value)
    }
}

impl From<&String> for Text {
    fn from(value: &String) -> Self {
        Self::interned(value)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_one_allocation() {
        let first = Text::from("team-a");
        let second = Text::from(String::from("team-a"));

        assert!(Arc::ptr_eq(&first.0, &second.0));
    }

    #[test]
    fn a_unique_string_is_equal_but_kept_apart() {
        let shared = Text::from("pod-1");
        let unique = Text::unique("pod-1");

        assert_eq!(shared, unique);
        assert!(!Arc::ptr_eq(&shared.0, &unique.0));
    }
}
