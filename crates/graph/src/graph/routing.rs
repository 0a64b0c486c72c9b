//! Objects that say how a waypoint sends requests. They are passed on as they are: what they mean for which service is decided
//! where routes are compiled.

use kube_types::{ObjectRef, Resource};

use super::Graph;
use super::settle::Output;
use crate::resolved::Resolved;

impl Graph {
    pub(super) fn set_routing(&mut self, key: ObjectRef, new: Option<Resource>) {
        self.marked.insert(key.clone());
        match new {
            Some(new) => drop(self.objects.routing.insert(key, new)),
            None => drop(self.objects.routing.remove(&key)),
        }
    }

    pub(super) fn routing(&self, key: &ObjectRef) -> Output {
        let resolved = self.objects.routing.get(key).cloned().map_or(Resolved::Nothing, Resolved::Routing);
        Output { resolved, ..Output::default() }
    }
}
