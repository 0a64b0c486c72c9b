//! Names of generated pods: the same each time a lab is started, and each of them once.

use std::collections::BTreeSet;

use xxhash_rust::xxh64::xxh64;

/// Characters of generated names: no vowels, nothing that looks like another (`k8s.io/apimachinery/pkg/util/rand`).
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of the random end of a generated name.
pub(super) const SUFFIX: usize = 5;

/// Longest generated name; the API server cuts what is in front of the random end (`MaxGenerateNameLength`).
const MAX_GENERATED: usize = 63;

/// Names that pods have, by namespace.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: BTreeSet<(String, String)>,
}

impl Names {
    /// Keeps a name that is given, not generated.
    pub(super) fn keep(&mut self, namespace: &str, name: &str) {
        self.taken.insert((namespace.to_owned(), name.to_owned()));
    }

    /// A name for the pod number `ordinal` of an owner. It depends on the names of the numbers before, so these have to
    /// be asked for first.
    pub(super) fn generate(&mut self, namespace: &str, prefix: &str, ordinal: u32) -> String {
        let prefix = cut(prefix);
        let mut attempt: u64 = 0;
        loop {
            // The number of the attempt is the seed of the digest: names that collide differ at the next attempt.
            let digest = xxh64(format!("{namespace}/{prefix}{ordinal}").as_bytes(), attempt);
            let name = format!("{prefix}{}", suffix(digest));
            if self.taken.insert((namespace.to_owned(), name.clone())) {
                return name;
            }
            attempt += 1;
        }
    }
}

fn cut(prefix: &str) -> &str {
    // Names are ASCII: each byte is a character.
    prefix.get(..MAX_GENERATED - SUFFIX).unwrap_or(prefix)
}

fn suffix(mut digest: u64) -> String {
    let base = SAFE.len() as u64;
    let mut text = String::with_capacity(SUFFIX);
    for _ in 0..SUFFIX {
        let digit = usize::try_from(digest % base).unwrap_or_default();
        text.push(char::from(SAFE[digit]));
        digest /= base;
    }
    text
}

/// A number in the characters of generated names, one for each decimal digit
/// (`SafeEncodeString` of the same package).
pub(super) fn encode(number: u64) -> String {
    number.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_replicas_have_a_thousand_names() {
        for owner in 0..20 {
            let mut names = Names::default();

            let all: BTreeSet<_> =
                (0..1000).map(|ordinal| names.generate("default", &format!("big-{owner}-"), ordinal)).collect();

            assert_eq!(all.len(), 1000, "owner {owner}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_not_generated() {
        let first = Names::default().generate("default", "web-", 0);
        let mut names = Names::default();
        names.keep("default", &first);

        assert_ne!(names.generate("default", "web-", 0), first);
        assert_eq!(names.generate("other", "web-", 0), Names::default().generate("other", "web-", 0));
    }

    #[test]
    fn more_replicas_leave_the_names_of_the_first_as_they_are() {
        let names = |count: u32| {
            let mut names = Names::default();
            (0..count).map(|ordinal| names.generate("default", "web-", ordinal)).collect::<Vec<_>>()
        };

        assert_eq!(names(3), names(300)[..3]);
    }

    #[test]
    fn a_long_owner_is_cut_so_that_the_name_is_a_label() {
        let mut names = Names::default();

        let name = names.generate("default", &format!("{}-", "n".repeat(253)), 0);

        assert_eq!(name.len(), MAX_GENERATED);
    }
}
