//! A request, as the API server's authoriser sees it.

use std::collections::HashMap;

use http::Method;
use kube_cluster::Verb;
use kube_types::Kind;

/// Group and plural of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub group: String,
    pub plural: String,
}

impl Resource {
    pub fn of(kind: Kind) -> Self {
        Self { group: kind.group().to_owned(), plural: kind.plural().to_owned() }
    }

    pub fn leases() -> Self {
        Self::named("coordination.k8s.io", "leases")
    }

    pub fn named(group: &str, plural: &str) -> Self {
        Self { group: group.to_owned(), plural: plural.to_owned() }
    }
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `None`: discovery.
    pub verb: Option<Verb>,
    pub resource: Resource,
    pub version: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub query: HashMap<String, String>,
}

impl Asked {
    pub fn parse(method: &Method, uri: &http::Uri) -> Self {
        let query: HashMap<String, String> =
            form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            other => panic!("a path of no API: {other:?}"),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && *rest != ["status"] => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |index: usize| (*rest.get(index).unwrap_or(&"")).to_owned();
        let resource = Resource { group: group.to_owned(), plural: part(0) };
        let mut asked = Self {
            verb: None,
            resource,
            version: version.to_owned(),
            subresource: part(2),
            namespace: namespace.to_owned(),
            name: part(1),
            query,
        };
        asked.verb = asked.verb_of(method);
        asked
    }

    fn verb_of(&self, method: &Method) -> Option<Verb> {
        let is_watch = self.query.get("watch").is_some_and(|value| value == "true");
        match (method.as_str(), self.name.is_empty()) {
            _ if self.resource.plural.is_empty() => None,
            ("GET", true) if is_watch => Some(Verb::Watch),
            ("GET", true) => Some(Verb::List),
            ("GET", false) => Some(Verb::Get),
            ("POST", true) => Some(Verb::Create),
            ("PUT", false) => Some(Verb::Update),
            ("PATCH", false) => Some(Verb::Patch),
            ("DELETE", false) => Some(Verb::Delete),
            (method, _) => panic!("unexpected {method} of {self:?}"),
        }
    }

    /// The resource as a rule names it.
    pub fn rule_resource(&self) -> String {
        let plural = &self.resource.plural;
        if self.subresource.is_empty() { plural.clone() } else { format!("{plural}/{}", self.subresource) }
    }
}
