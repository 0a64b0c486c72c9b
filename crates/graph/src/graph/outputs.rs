//! Findings and resources as they were published last, so that only differences are published.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kube_types::{ClusterId, ObjectRef};
use proto::Change;

use super::Update;
use crate::encode::{self, Encoded};
use crate::enforcement::PolicyState;
use crate::finding::Finding;

/// The two types of discovery resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Address,
    Authorization,
}

/// Resources and findings that follow from an object.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) resources: Vec<(String, Encoded)>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// Names of the resources that an object became.
    names: HashMap<ObjectRef, BTreeSet<String>>,
    /// Hash of the content by name.
    addresses: HashMap<String, u64>,
    authorizations: HashMap<String, u64>,
    findings: BTreeMap<ObjectRef, Vec<Finding>>,
    policies: HashMap<ObjectRef, PolicyState>,
}

/// Changes by name, so that what is removed by one object and made by another in the same batch is one
/// change.
#[derive(Debug, Default)]
pub(super) struct Batch {
    addresses: BTreeMap<String, Option<Encoded>>,
    authorizations: BTreeMap<String, Option<Encoded>>,
    pub(super) update: Update,
}

impl Batch {
    fn of(&mut self, kind: Type) -> &mut BTreeMap<String, Option<Encoded>> {
        match kind {
            Type::Address => &mut self.addresses,
            Type::Authorization => &mut self.authorizations,
        }
    }
}

impl Outputs {
    /// Takes what an object becomes now.
    pub(super) fn set(&mut self, batch: &mut Batch, key: &ObjectRef, kind: Type, mut output: Output) {
        let names: BTreeSet<_> = output.resources.iter().map(|(name, _)| name.clone()).collect();
        let old = if names.is_empty() { self.names.remove(key) } else { self.names.insert(key.clone(), names) };
        let changes = batch.of(kind);
        for name in old.into_iter().flatten() {
            changes.entry(name).or_insert(None);
        }
        for (name, encoded) in output.resources {
            changes.insert(name, Some(encoded));
        }
        output.findings.sort();
        if replace(&mut self.findings, key, &output.findings) {
            batch.update.findings.push((key.clone(), output.findings));
        }
    }

    /// Keeps the state of a policy, `None` when it is gone.
    pub(super) fn set_policy(&mut self, batch: &mut Batch, key: &ObjectRef, state: Option<PolicyState>) {
        let old = match &state {
            Some(state) => self.policies.insert(key.clone(), state.clone()),
            None => self.policies.remove(key),
        };
        if old != state {
            batch.update.policies.push((key.clone(), state));
        }
    }

    /// Turns a batch into what differs from before.
    pub(super) fn finish(&mut self, cluster: &ClusterId, batch: Batch) -> Update {
        let mut update = Update { cluster: cluster.clone(), ..batch.update };
        update.addresses = differing(&mut self.addresses, batch.addresses);
        update.authorizations = differing(&mut self.authorizations, batch.authorizations);
        update
    }
}

fn differing(told: &mut HashMap<String, u64>, changes: BTreeMap<String, Option<Encoded>>) -> Vec<Change> {
    changes
        .into_iter()
        .filter_map(|(name, encoded)| match encoded {
            None => told.remove(&name).map(|_| Change::Remove { name }),
            Some(Encoded { bytes, hash }) => (told.insert(name.clone(), hash) != Some(hash)).then(|| Change::Upsert {
                name,
                version: encode::version(hash),
                value: bytes.into(),
            }),
        })
        .collect()
}

/// Keeps a list that is not empty; did it differ?
fn replace<T: Clone + PartialEq>(lists: &mut BTreeMap<ObjectRef, Vec<T>>, key: &ObjectRef, list: &[T]) -> bool {
    if lists.get(key).map_or(&[][..], Vec::as_slice) == list {
        return false;
    }
    if list.is_empty() {
        lists.remove(key);
    } else {
        lists.insert(key.clone(), list.to_vec());
    }
    true
}
