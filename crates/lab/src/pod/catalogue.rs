//! ConfigMaps, Secrets, claims and Services that containers may refer to, as of the last change of the manifests.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube_types::core::{ConfigMap, Secret, Service};
use kube_types::{Kind, ObjectRef, Resource};

use crate::workloads::{Objects, templated_claims};

/// Decoded values of a ConfigMap or Secret.
pub(crate) type Keys<'a> = BTreeMap<&'a str, Cow<'a, [u8]>>;

/// Everything that containers may refer to by name.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    objects: Objects,
    claims: BTreeSet<(String, String)>,
    /// With their addresses.
    services: Vec<Service>,
}

impl Catalogue {
    pub(crate) fn new(objects: &Objects, services: Vec<Service>) -> Self {
        let wanted = |key: &ObjectRef| matches!(key.kind, Kind::ConfigMap | Kind::Secret);
        let kept = objects.iter().filter(|(key, _)| wanted(key));
        let written = objects.keys().filter(|key| key.kind == Kind::PersistentVolumeClaim);
        let written = written.map(|key| (key.namespace.clone(), key.name.clone()));
        Self {
            claims: written.chain(templated_claims(objects)).collect(),
            objects: kept.map(|(key, resource)| (key.clone(), resource.clone())).collect(),
            services,
        }
    }

    /// The keys of a ConfigMap; `None` when there is none of that name.
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<Result<Keys<'_>, String>> {
        let found = self.objects.get(&ObjectRef::new(Kind::ConfigMap, namespace, name))?;
        if let Resource::ConfigMap(map) = found { Some(of_config_map(map)) } else { None }
    }

    /// The keys of a ConfigMap that can be variables: those of `data`.
    pub(crate) fn config_map_text(&self, namespace: &str, name: &str) -> Option<Result<Keys<'_>, String>> {
        let found = self.objects.get(&ObjectRef::new(Kind::ConfigMap, namespace, name))?;
        let Resource::ConfigMap(map) = found else { return None };
        Some(Ok(map.data.iter().map(|(key, text)| (key.as_str(), Cow::Borrowed(text.as_bytes()))).collect()))
    }

    /// The keys of a Secret; `None` when there is none of that name.
    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<Result<Keys<'_>, String>> {
        let found = self.objects.get(&ObjectRef::new(Kind::Secret, namespace, name))?;
        if let Resource::Secret(secret) = found { Some(of_secret(secret)) } else { None }
    }

    /// True if there is such a claim.
    pub(crate) fn has_claim(&self, namespace: &str, name: &str) -> bool {
        self.claims.contains(&(namespace.to_owned(), name.to_owned()))
    }

    /// The Services of a namespace.
    pub(crate) fn services(&self, namespace: &str) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(move |service| service.metadata.namespace == namespace)
    }
}

fn of_config_map(map: &ConfigMap) -> Result<Keys<'_>, String> {
    let text = map.data.iter().map(|(key, text)| Ok((key.as_str(), Cow::Borrowed(text.as_bytes()))));
    let binary = map.binary_data.iter().map(|(key, text)| Ok((key.as_str(), Cow::Owned(decode(key, text)?))));
    text.chain(binary).collect()
}

fn of_secret(secret: &Secret) -> Result<Keys<'_>, String> {
    let data = secret.data.iter().map(|(key, text)| Ok((key.as_str(), Cow::Owned(decode(key, text.expose())?))));
    // What is written as text wins, so it comes last.
    let text = secret.string_data.iter().map(|(key, text)| Ok((key.as_str(), Cow::Borrowed(text.expose().as_bytes()))));
    data.chain(text).collect()
}

/// Decodes base64 as it stands in manifests, in several lines maybe. The message has the key and not the value.
fn decode(key: &str, text: &str) -> Result<Vec<u8>, String> {
    let compact: String = text.split_whitespace().collect();
    STANDARD.decode(compact).map_err(|_| format!("the value of {key:?} is not base64"))
}

/// A key of a ConfigMap or Secret that cannot be decoded.
pub(crate) fn undecodable(resource: &Resource) -> Option<String> {
    if let Resource::ConfigMap(map) = resource {
        return of_config_map(map).err();
    }
    if let Resource::Secret(secret) = resource {
        return of_secret(secret).err();
    }
    None
}

#[cfg(test)]
pub(crate) fn catalogue(objects: &[(Kind, serde_json::Value)]) -> Catalogue {
    let read = |(kind, value): &(Kind, serde_json::Value)| Resource::from_value(*kind, value.clone()).unwrap();
    let objects: Objects = objects.iter().map(read).map(|resource| (resource.key(), resource)).collect();
    let of_service = |resource: &Resource| match resource {
        Resource::Service(service) => Some(service.as_ref().clone()),
        _ => None,
    };
    let services = objects.values().filter_map(of_service);
    Catalogue::new(&objects, services.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_decoded_and_its_text_wins() {
        let meta = json!({"name": "s", "namespace": "n"});
        let data = json!({"a": "b25l", "b": "dHdv\ndGhyZWU="});
        let catalogue = catalogue(&[(Kind::Secret, json!({"metadata": meta, "data": data, "stringData": {"a": "1"}}))]);

        let keys = catalogue.secret("n", "s").unwrap().unwrap();

        assert_eq!(keys["a"].as_ref(), b"1");
        assert_eq!(keys["b"].as_ref(), b"twothree");
        assert!(catalogue.secret("n", "other").is_none() && catalogue.config_map("n", "s").is_none());
    }

    #[test]
    fn a_value_that_is_not_base64_is_named_by_its_key_only() {
        let secret = json!({"metadata": {"name": "s"}, "data": {"password": "hidden!"}});
        let said = undecodable(&Resource::from_value(Kind::Secret, secret).unwrap()).unwrap();

        assert_eq!(said, "the value of \"password\" is not base64");
    }
}
