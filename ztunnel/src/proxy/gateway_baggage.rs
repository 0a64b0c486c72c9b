//! Bounds on the baggage in which a gateway of another network describes workloads that discovery does not know: it costs
//! memory for as long as metrics live. `inbound` decides whose baggage counts at all.

use hbone::headers::Baggage;
use std::cell::RefCell;
use std::collections::HashSet;

/// Longest name that becomes a label, bytes: that of a Kubernetes object.
const NAME_BYTES: usize = 253;
/// Different workloads that one worker describes in metrics.
const DESCRIPTIONS: usize = 1024;
/// Number of connections whose source was beyond the bound.
const DROPPED: &str = "strake_metrics_descriptions_dropped_total";

/// Descriptions that became labels of metrics.
#[derive(Debug, Default)]
pub struct GatewayBaggage(RefCell<HashSet<[String; 7]>>);

impl GatewayBaggage {
    /// Returns `baggage` with its names cut to the bound; none when there are too many different ones.
    pub fn admit(&self, mut baggage: Baggage) -> Option<Baggage> {
        let fields = [
            &mut baggage.cluster,
            &mut baggage.namespace,
            &mut baggage.workload_name,
            &mut baggage.service_name,
            &mut baggage.service_version,
            &mut baggage.region,
            &mut baggage.zone,
        ];
        // Cut before it is compared: names that differ only behind the bound must not fill the table.
        let known = fields.map(|field| {
            field.truncate(field.floor_char_boundary(NAME_BYTES));
            field.clone()
        });
        let mut all = self.0.borrow_mut();
        if all.contains(&known) || all.len() < DESCRIPTIONS && all.insert(known) {
            return Some(baggage);
        }
        metrics::counter!(DROPPED).increment(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: impl Into<String>) -> Baggage {
        Baggage { workload_name: name.into(), ..Baggage::default() }
    }

    #[test]
    fn names_are_cut_and_their_number_is_bounded() {
        let admitted = GatewayBaggage::default();

        assert_eq!(admitted.admit(named("x".repeat(1000))).unwrap().workload_name.len(), NAME_BYTES);
        for i in 1..DESCRIPTIONS {
            assert!(admitted.admit(named(i.to_string())).is_some());
        }
        assert_eq!(admitted.admit(named("one more")), None);
        assert!(admitted.admit(named("1")).is_some(), "a known one stays");
    }
}
