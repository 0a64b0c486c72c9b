//! Maglev's lookup table (Eisenbud et al., NSDI 2016, listing 1), with weights as Envoy's `MAGLEV`.

use xxhash_rust::xxh64::xxh64;

use crate::ring::Member;

/// Host of each entry; empty without members.
#[derive(Debug)]
pub(crate) struct Table(Vec<u32>);

/// Progress of one member through its permutation of the table.
struct Turn {
    host: u32,
    weight: f64,
    /// Sum of weights at which it is its turn again.
    due: f64,
    next: u64,
    skip: u64,
}

const FREE: u32 = u32::MAX;

impl Table {
    /// Fills a table of `size` entries, a prime, with members, which must be in the same order on every replica.
    pub(crate) fn new(members: &[Member<'_>], size: u32) -> Self {
        let Some(most) = members.iter().map(|member| member.weight).reduce(f64::max) else { return Self(Vec::new()) };
        let length = u64::from(size.max(2));
        let turn = |member: &Member<'_>| Turn {
            host: member.host,
            weight: member.weight,
            due: 0.0,
            next: xxh64(member.key.as_bytes(), 0) % length,
            skip: xxh64(member.key.as_bytes(), 1) % (length - 1) + 1,
        };
        let mut turns: Vec<_> = members.iter().map(turn).collect();
        let mut table = vec![FREE; size.max(2) as usize];
        let mut left = table.len();
        let mut round = 0.0;
        while left > 0 {
            round += 1.0;
            for turn in &mut turns {
                // The member of the greatest weight has a turn in each round, one of half of it in every second.
                if left == 0 || round * turn.weight < turn.due {
                    continue;
                }
                turn.due += most;
                // The size is a prime, so that the steps reach every entry, and one is free.
                while table[turn.next as usize] != FREE {
                    turn.next += turn.skip;
                    // Less than twice the length: no division.
                    if turn.next >= length {
                        turn.next -= length;
                    }
                }
                table[turn.next as usize] = turn.host;
                left -= 1;
            }
        }
        Self(table)
    }

    /// The host of a hash. `None` for a table without members.
    pub(crate) fn find(&self, hash: u64) -> Option<u32> {
        let at = hash.checked_rem(self.0.len() as u64)?;
        self.0.get(at as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{keys, members};

    fn counts(table: &Table, hosts: usize) -> Vec<usize> {
        let mut counts = vec![0; hosts];
        table.0.iter().for_each(|host| counts[*host as usize] += 1);
        counts
    }

    #[test]
    fn entries_follow_weights_and_every_entry_is_taken() {
        let keys = keys(4);
        let table = Table::new(&members(&keys, &[1, 1, 1, 1]), 65_537);
        assert!(counts(&table, 4).iter().all(|count| (16_384..=16_385).contains(count)));
        let table = Table::new(&members(&keys, &[1, 2, 3, 4]), 65_537);
        for (count, weight) in counts(&table, 4).into_iter().zip(1..) {
            assert!(count.abs_diff(65_537 * weight / 10) <= 4, "{count} of weight {weight}");
        }
        assert_eq!(Table::new(&[], 101).find(7), None);
    }

    #[test]
    fn few_entries_move_when_a_host_leaves() {
        let keys = keys(10);
        let all = members(&keys, &[1; 10]);
        let left: Vec<_> = all[1..].iter().map(|member| Member { weight: 1.0 / 9.0, ..*member }).collect();
        let (before, after) = (Table::new(&all, 65_537), Table::new(&left, 65_537));
        let pairs = before.0.iter().zip(&after.0);
        let moved = pairs.filter(|(was, is)| was != is && **was != 0).count();
        // The paper measures a few percent beyond the share of the host itself.
        assert!(moved * 100 < 5 * 65_537, "{moved} entries of other hosts moved");
    }

    #[test]
    fn a_hash_is_an_entry() {
        let keys = keys(3);
        let table = Table::new(&members(&keys, &[1, 1, 1]), 11);
        assert_eq!(table.find(25), Some(table.0[3]));
        assert_eq!(table.find(u64::MAX).map(|host| host < 3), Some(true));
    }
}
