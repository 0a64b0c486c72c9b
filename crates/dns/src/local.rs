//! Answers from discovery: which service a client means by a name, and its addresses. It sends nothing.

use crate::Settings;
use crate::aliases::{aliases, first_cover};
use hickory_proto::rr::{Name, RecordType};
use model::view::names::{Asker, Family, Names};
use model::{State, Text, Workload};
use rand::seq::SliceRandom;
use std::net::IpAddr;

/// A name of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Host name of the service.
    pub(crate) hostname: Text,
    /// In random order, so that clients that take the first one share the load.
    pub(crate) addresses: Vec<IpAddr>,
    /// The question is an alias (CNAME) for the name of its first labels, so many: the rest is a search domain.
    pub(crate) alias_of: Option<usize>,
}

/// Family that a type of question asks for; `None` for those that are not answered here.
pub(crate) const fn family(kind: RecordType) -> Option<Family> {
    match kind {
        RecordType::A => Some(Family::V4),
        RecordType::AAAA => Some(Family::V6),
        _ => None,
    }
}

/// Looks for `name` as `client` means it. `None`: it is not the mesh's.
pub(crate) fn find(
    state: &State,
    settings: &Settings,
    client: &Workload,
    name: &Name,
    family: Family,
) -> Option<Found> {
    let asked = text(name)?;
    let search = settings.search_domains(&client.namespace);
    let suffix = settings.service_suffix();
    let preferred_namespace = settings.preferred_namespace.as_deref();
    let asker = Asker { client, service_suffix: &suffix, preferred_namespace };
    let candidates = aliases(&asked, &client.namespace, &settings.cluster_domain, &search);
    // One lock for all of it: an answer is of one version of the mesh.
    let names = Names::of(state);
    let (service, alias_of) = candidates.into_iter().find_map(|alias| {
        let (service, is_wildcard) = first_cover(&alias.name, |name| names.service(name, &asker))?;
        // What a wildcard stands for has no name of its own to be an alias for.
        Some((service, alias.stripped_to.filter(|_| !is_wildcard)))
    })?;
    let mut addresses = match family {
        Family::V6 if !settings.ipv6 => Vec::new(),
        Family::V4 | Family::V6 => names.addresses(&service, client, family),
    };
    drop(names);
    addresses.shuffle(&mut rand::rng());
    Some(Found { hostname: service.hostname.clone(), addresses, alias_of })
}

/// Lower case, without a dot at its end. `None` for names that no host has: the root, and labels with a dot or with bytes
/// that are not printable ASCII.
fn text(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        if !label.iter().all(|b| b.is_ascii_graphic() && *b != b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
