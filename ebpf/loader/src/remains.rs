//! Remains of a pod in the kernel: its entry and link, declared probes, learnt addresses and listeners.

use std::{net::IpAddr, os::fd::BorrowedFd};

use ebpf_common::{Family, Kind, SocketKey, names};

use crate::{
    LoadError, Steering, Survey, link,
    survey::{described, lookup_at},
};

impl Steering {
    /// Lists what programs, pins and maps still have of a pod; empty when nothing is left. A program counts whether or
    /// not its link is pinned, and however many there are.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn remains(&self, survey: &Survey, netns_cookie: u64, netns: BorrowedFd<'_>) -> Result<Vec<String>, LoadError> {
        let mut left: Vec<String> = self.pod(netns_cookie)?.map(|_| "pod_entry".to_owned()).into_iter().collect();
        left.extend(survey.complete()?.at(lookup_at(netns)?).iter().filter(|found| found.is_ours()).map(described));
        left.extend(link::open(&self.pins.pod_link(netns_cookie))?.map(|_| "pinned link".to_owned()));
        left.extend(self.listeners(netns_cookie)?.iter().map(|one| format!("listener {}", one.kind.name())));
        left.extend(self.probes(netns_cookie)?.map(|_| "declared probes".to_owned()));
        left.extend(self.locals(netns_cookie)?.iter().map(|address| format!("learnt address {address}")));
        Ok(left)
    }

    /// The further addresses of one pod that the programs have learnt.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn locals(&self, netns_cookie: u64) -> Result<Vec<IpAddr>, LoadError> {
        Ok(self.local_keys(netns_cookie)?.into_iter().filter_map(|key| key.address.to_ip()).collect())
    }

    /// Forgets declared probes, learnt addresses and listeners. The pod's entry must be gone: with it, programs note them again.
    pub(crate) fn clear_remains(&self, netns_cookie: u64) -> Result<(), LoadError> {
        self.probes.delete(&netns_cookie).map_err(LoadError::kernel("clear", names::PROBES))?;
        // First: without a number nothing more is learnt.
        self.locals_used.delete(&netns_cookie).map_err(LoadError::kernel("clear", names::LOCALS_USED))?;
        for key in self.local_keys(netns_cookie)? {
            self.locals.delete(&key).map_err(LoadError::kernel("clear", names::LOCALS))?;
        }
        // The kernel forgets a listener when it is closed; a proxy that does not let go of the pod never closes it.
        for kind in Kind::ALL {
            for family in Family::ALL {
                let key = SocketKey::new(netns_cookie, kind, family);
                self.sockets.delete(&key).map_err(LoadError::kernel("clear", names::SOCKS))?;
            }
        }
        Ok(())
    }
}
