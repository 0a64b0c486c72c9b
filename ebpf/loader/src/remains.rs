//! What a pod leaves in the maps besides its entry: learnt addresses and listeners. The entry itself is `steering`'s.

use std::net::IpAddr;

use ebpf_common::{Family, Kind, LocalKey, SocketKey, names};

use crate::{LoadError, Steering};

impl Steering {
    /// The further addresses of one pod that the programs have learnt.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn locals(&self, netns_cookie: u64) -> Result<Vec<IpAddr>, LoadError> {
        Ok(self.local_keys(netns_cookie)?.into_iter().filter_map(|key| key.address.to_ip()).collect())
    }

    /// Forgets learnt addresses and listeners. The pod's entry must be gone: with it, programs note them again.
    pub(crate) fn clear_remains(&self, netns_cookie: u64) -> Result<(), LoadError> {
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

    fn local_keys(&self, netns_cookie: u64) -> Result<Vec<LocalKey>, LoadError> {
        let keys = self.locals.keys().map_err(LoadError::kernel("list", names::LOCALS))?;
        Ok(keys.into_iter().filter(|key| key.netns_cookie == netns_cookie).collect())
    }
}
