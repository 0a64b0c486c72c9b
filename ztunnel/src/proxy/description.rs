//! Description of a pod for other proxies: its identity and its baggage. Made once for each update of its workload.

use hbone::headers::Baggage;
use http::HeaderValue;
use identity::Identity;
use model::Workload;
use std::cell::RefCell;
use std::sync::Arc;

/// Description of a pod for other proxies.
#[derive(Debug, Default)]
pub struct Description(RefCell<Option<Described>>);

#[derive(Debug)]
struct Described {
    workload: Arc<Workload>,
    baggage: Option<HeaderValue>,
    identity: Option<Identity>,
}

impl Description {
    /// Returns the header `baggage`; none for a workload without names.
    pub fn baggage(&self, workload: &Arc<Workload>) -> Option<HeaderValue> {
        self.with(workload, |current| current.baggage.clone())
    }

    /// Returns the identity that the workload has by discovery.
    pub fn identity(&self, workload: &Arc<Workload>) -> Option<Identity> {
        self.with(workload, |current| current.identity.clone())
    }

    fn with<T>(&self, workload: &Arc<Workload>, read: impl FnOnce(&Described) -> T) -> T {
        let mut described = self.0.borrow_mut();
        match &*described {
            Some(current) if Arc::ptr_eq(&current.workload, workload) => read(current),
            Some(_) | None => {
                let baggage = baggage(workload).to_header();
                let current = Described { workload: workload.clone(), baggage, identity: workload.identity() };
                read(described.insert(current))
            }
        }
    }
}

fn baggage(w: &Workload) -> Baggage {
    Baggage {
        cluster: w.cluster_id.to_string(),
        namespace: w.namespace.to_string(),
        workload_type: w.workload_type.as_str().to_owned(),
        workload_name: w.workload_name.to_string(),
        service_name: w.canonical_name.to_string(),
        service_version: w.canonical_revision.to_string(),
        region: w.locality.region.to_string(),
        zone: w.locality.zone.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::workload;
    use super::*;

    #[test]
    fn a_workload_that_was_replaced_is_described_anew() {
        let description = Description::default();
        let (old, new) = (workload("a"), workload("b"));

        assert_eq!(description.identity(&old), old.identity());
        assert_eq!(
            description.baggage(&old).unwrap(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.deployment.name=a"
        );
        assert_eq!(description.identity(&new), new.identity());
        assert_eq!(
            description.baggage(&new).unwrap(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.deployment.name=b"
        );
    }
}
