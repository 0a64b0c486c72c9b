//! Further addresses of pods that the programs have learnt: how many there are, and forgetting those of which nothing is heard.

use std::{collections::BTreeMap, time::Duration};

use ebpf_common::{LOCALS_PER_POD, LocalKey, names};

use crate::{LoadError, Steering, kernel::monotonic_ns};

/// Numbers of addresses that [`Steering::age_locals`] found and forgot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgedLocals {
    /// Addresses that are left, of all pods.
    pub known: usize,
    /// Addresses that were forgotten.
    pub forgotten: usize,
    /// Pods that have as many addresses as they may have.
    pub pods_full: usize,
}

impl Steering {
    /// Forgets addresses for which no connection has arrived for `lifetime`, and corrects the numbers by which pods are held to
    /// their share. An address that is still in use is learnt again with the next connection.
    ///
    /// # Errors
    /// Kernel errors; what was forgotten stays so.
    pub fn age_locals(&self, lifetime: Duration) -> Result<AgedLocals, LoadError> {
        let failed = || LoadError::kernel("age", names::LOCALS);
        let lifetime_ns = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        let mut aged = AgedLocals::default();
        let mut used: BTreeMap<u64, u64> = BTreeMap::new();
        for netns_cookie in self.locals_used.keys().map_err(failed())? {
            // Pods are listed before addresses: one that is entered in between is not among them, and keeps the number
            // that the programs count.
            used.insert(netns_cookie, 0);
        }
        for key in self.locals.keys().map_err(failed())? {
            // Read after the key was listed: one that is met meanwhile is young.
            let Some(seen_ns) = self.locals.get(&key).map_err(failed())? else { continue };
            if monotonic_ns().saturating_sub(seen_ns) > lifetime_ns {
                aged.forgotten += usize::from(self.locals.delete(&key).map_err(failed())?);
                continue;
            }
            aged.known += 1;
            if let Some(count) = used.get_mut(&key.netns_cookie) {
                *count += 1;
            }
        }
        for (netns_cookie, count) in used {
            aged.pods_full += usize::from(count >= LOCALS_PER_POD);
            // What the programs learn between listing and this is not counted until the next time: a handful at most.
            self.locals_used.replace(&netns_cookie, &count).map_err(failed())?;
        }
        Ok(aged)
    }

    pub(crate) fn local_keys(&self, netns_cookie: u64) -> Result<Vec<LocalKey>, LoadError> {
        let keys = self.locals.keys().map_err(LoadError::kernel("list", names::LOCALS))?;
        Ok(keys.into_iter().filter(|key| key.netns_cookie == netns_cookie).collect())
    }
}
