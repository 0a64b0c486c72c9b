//! Memory of tables that were large once.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
};

/// Capacity up to which a table keeps its memory: 4096 entries are not worth the copy.
const KEPT_CAPACITY: usize = 4096;

/// Halves a table's memory, or more, when less than an eighth of it is in use. Call it after removals: at an eighth the
/// copy is paid for by the removals since the last one.
///
/// Returns whether it did.
pub fn shrink_sparse<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) -> bool {
    let is_sparse = table.capacity() > KEPT_CAPACITY && table.len() < table.capacity() / 8;
    if is_sparse {
        table.shrink_to(table.len() * 2);
    }
    is_sparse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_table_gives_memory_back_when_almost_everything_was_removed() {
        let mut table: HashMap<u32, u32> = (0..100_000).map(|number| (number, number)).collect();
        let full = table.capacity();

        table.retain(|number, _| *number < 20_000);
        assert!(!shrink_sparse(&mut table), "a fifth is in use");
        table.retain(|number, _| *number < 1000);
        assert!(shrink_sparse(&mut table));

        assert!(table.capacity() < full / 8, "{} of {full}", table.capacity());
        assert_eq!(table.get(&999), Some(&999));
    }

    #[test]
    fn a_small_table_keeps_its_memory() {
        let mut table: HashMap<u32, u32> = (0..1000).map(|number| (number, number)).collect();
        table.clear();

        assert!(!shrink_sparse(&mut table));
    }
}
