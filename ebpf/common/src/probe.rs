//! Ports on which a pod may be probed past the proxy.

/// Ports of one pod that can be noted; see [`ProbePorts`].
pub const PROBES_PER_POD: usize = 32;

/// Value of the map `PROBES`: the ports that the pod's own spec declares as probes. Key: the cookie of the pod's network
/// namespace. Its addresses are those of its [`crate::PodConfig`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbePorts {
    /// Host order; 0 marks a free place.
    pub ports: [u16; PROBES_PER_POD],
}

const _: () = assert!(size_of::<ProbePorts>() == 64);

impl ProbePorts {
    /// Returns whether the pod declares a probe on this port.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let mut index = 0;
        while index < PROBES_PER_POD {
            // 0 is a free place and not a port. The `while` has a constant bound, which the verifier needs.
            if port != 0 && self.ports[index] == port {
                return true;
            }
            index += 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_place_is_no_port() {
        let mut probes = ProbePorts::default();
        probes.ports[PROBES_PER_POD - 1] = 8080;

        assert!(probes.contains(8080));
        assert!(!probes.contains(0) && !probes.contains(80));
    }
}
