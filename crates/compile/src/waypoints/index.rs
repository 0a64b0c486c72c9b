//! Objects that routes come from by the hosts that they are for, and services by what their routes depend on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graph::Mesh;
use kube_types::{Kind, ObjectRef, Resource};
use route_compile::covers;

use super::ServiceKey;
use super::references::Subject;

/// Something on which the routes of a service depend, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Need {
    /// A host name: its services, and its DestinationRules.
    Host(String),
    /// An object that others name.
    Object(ObjectRef),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    objects: BTreeMap<ObjectRef, Resource>,
    by_host: HashMap<String, BTreeSet<ObjectRef>>,
    /// Objects for `*` or `*.suffix`, with the pattern. Meshes have few.
    by_pattern: BTreeSet<(String, ObjectRef)>,
    users: BTreeMap<Need, BTreeSet<ServiceKey>>,
    needs: HashMap<ServiceKey, BTreeSet<Need>>,
}

impl Index {
    /// Replaces an object. Returns what the old one was for.
    pub(super) fn set(&mut self, mesh: &Mesh, key: &ObjectRef, new: Option<&Resource>) -> Subject {
        let old = match new {
            Some(new) => self.objects.insert(key.clone(), new.clone()),
            None => self.objects.remove(key),
        };
        let old = old.map(|old| Subject::of(mesh, &old)).unwrap_or_default();
        for host in &old.hosts {
            self.by_pattern.remove(&(host.clone(), key.clone()));
            if let Some(objects) = self.by_host.get_mut(host) {
                objects.remove(key);
                if objects.is_empty() {
                    self.by_host.remove(host);
                }
            }
        }
        for host in new.map(|new| Subject::of(mesh, new)).unwrap_or_default().hosts {
            if host.starts_with('*') {
                self.by_pattern.insert((host, key.clone()));
            } else {
                self.by_host.entry(host).or_default().insert(key.clone());
            }
        }
        old
    }

    pub(super) fn get(&self, key: &ObjectRef) -> Option<&Resource> {
        self.objects.get(key)
    }

    pub(super) fn get_key_value(&self, key: &ObjectRef) -> Option<(&ObjectRef, &Resource)> {
        self.objects.get_key_value(key)
    }

    /// Subject of an object as it is now.
    pub(super) fn subject(&self, mesh: &Mesh, key: &ObjectRef) -> Subject {
        self.objects.get(key).map(|object| Subject::of(mesh, object)).unwrap_or_default()
    }

    /// Objects for a host.
    pub(super) fn of_host(&self, host: &str) -> Vec<(&ObjectRef, &Resource)> {
        let exact = self.by_host.get(host).into_iter().flatten();
        let wide = self.by_pattern.iter().filter(|(pattern, _)| covers(pattern, host)).map(|(_, key)| key);
        exact.chain(wide).filter_map(|key| self.objects.get_key_value(key)).collect()
    }

    /// Replaces what the routes of a service depend on.
    pub(super) fn set_needs(&mut self, service: &ServiceKey, needs: BTreeSet<Need>) {
        let old = match needs.is_empty() {
            true => self.needs.remove(service),
            false => self.needs.insert(service.clone(), needs.clone()),
        };
        for need in old.into_iter().flatten().filter(|need| !needs.contains(need)) {
            if let Some(users) = self.users.get_mut(&need) {
                users.remove(service);
                if users.is_empty() {
                    self.users.remove(&need);
                }
            }
        }
        for need in needs {
            self.users.entry(need).or_default().insert(service.clone());
        }
    }

    /// Services whose routes depend on a host.
    pub(super) fn users_of_host(&self, host: &str) -> impl Iterator<Item = &ServiceKey> {
        self.users.get(&Need::Host(host.to_owned())).into_iter().flatten()
    }

    /// Services whose routes depend on a host that a pattern covers.
    pub(super) fn users_of_pattern<'a>(&'a self, pattern: &'a str) -> Box<dyn Iterator<Item = &'a ServiceKey> + 'a> {
        if !pattern.starts_with('*') {
            return Box::new(self.users_of_host(pattern));
        }
        let is_covered = move |need: &Need| matches!(need, Need::Host(host) if covers(pattern, host));
        Box::new(self.users.iter().filter(move |(need, _)| is_covered(need)).flat_map(|(_, users)| users))
    }

    /// Services whose routes depend on an object that another one names.
    pub(super) fn users_of_object(&self, key: &ObjectRef) -> impl Iterator<Item = &ServiceKey> {
        let is_named = key.kind == Kind::VirtualService;
        let users = is_named.then(|| self.users.get(&Need::Object(key.clone()))).flatten();
        users.into_iter().flatten()
    }
}
