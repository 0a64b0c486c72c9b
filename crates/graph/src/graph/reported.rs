//! Findings and policy states as they were reported last, so that only differences are reported.

use std::collections::{BTreeMap, HashMap};

use kube_types::ObjectRef;

use super::Update;
use crate::enforcement::PolicyState;
use crate::finding::Finding;
use crate::status::ObjectStatus;

#[derive(Debug, Default)]
pub(super) struct Reported {
    /// Sorted findings by object; no entry stands for none.
    findings: BTreeMap<ObjectRef, Vec<Finding>>,
    policies: HashMap<ObjectRef, PolicyState>,
    /// Statuses of other objects; no entry stands for an empty one.
    statuses: HashMap<ObjectRef, ObjectStatus>,
}

impl Reported {
    /// Records the findings about an object, and adds them to the update if they differ.
    pub(super) fn set_findings(&mut self, update: &mut Update, key: &ObjectRef, mut findings: Vec<Finding>) {
        // The order in which they are found depends on the order of events; a list that differs in its order only is no
        // change.
        findings.sort();
        if self.findings.get(key).map_or(&[][..], Vec::as_slice) == findings {
            return;
        }
        if findings.is_empty() {
            self.findings.remove(key);
        } else {
            self.findings.insert(key.clone(), findings.clone());
        }
        update.findings.push((key.clone(), findings));
    }

    /// Records the status of an object, and adds it to the update if it differs. `is_stale`: the object has a status
    /// that this mesh may have written, perhaps an earlier process.
    pub(super) fn set_status(&mut self, update: &mut Update, key: &ObjectRef, status: ObjectStatus, is_stale: bool) {
        let old = if status.is_empty() {
            self.statuses.remove(key)
        } else {
            self.statuses.insert(key.clone(), status.clone())
        };
        // An empty status is sent only if it removes something: a status that was reported before, or one that the
        // object still has from an earlier process.
        if old.is_none() && status.is_empty() && !is_stale || old.as_ref() == Some(&status) {
            return;
        }
        update.statuses.push((key.clone(), status));
    }

    /// Records the state of a policy, `None` when it is gone, and adds it to the update if it differs.
    pub(super) fn set_state(&mut self, update: &mut Update, key: &ObjectRef, state: Option<PolicyState>) {
        let old = match &state {
            Some(state) => self.policies.insert(key.clone(), state.clone()),
            None => self.policies.remove(key),
        };
        if old != state {
            update.policies.push((key.clone(), state));
        }
    }
}
