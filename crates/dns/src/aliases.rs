//! Names that a client may mean by the name it asks for: completed as Kubernetes' resolvers complete names, and without the
//! search domain that the client's resolver has appended. It looks nothing up.

/// Most labels of a name that Kubernetes' forms of names are tried for.
const KUBERNETES_LABELS: usize = 4;

/// A name to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    /// Lower case, without a dot at its end.
    pub(crate) name: String,
    /// Number of labels of the question that are left without its search domain; `None`: it is not removed.
    pub(crate) stripped_to: Option<usize>,
}

/// Returns what `name` (lower case, no dot at its end) may stand for, in the order in which it is to be looked for: as it is,
/// completed, and both without each of the `search` domains that it ends with.
pub(crate) fn aliases(name: &str, namespace: &str, cluster_domain: &str, search: &[String]) -> Vec<Alias> {
    let mut found: Vec<Alias> = Vec::new();
    let mut add = |name: String, stripped_to: Option<usize>| {
        if !found.iter().any(|alias| alias.name == name) {
            found.push(Alias { name, stripped_to });
        }
    };
    let mut add_with_completions = |name: &str, stripped_to: Option<usize>| {
        add(name.to_owned(), stripped_to);
        for completed in completions(name, namespace, cluster_domain) {
            add(completed, stripped_to);
        }
    };
    add_with_completions(name, None);
    for domain in search {
        let stripped = name.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'));
        if let Some(stripped) = stripped.filter(|rest| !rest.is_empty() && !domain.is_empty()) {
            add_with_completions(stripped, Some(stripped.split('.').count()));
        }
    }
    found
}

/// Full names of Services (or of pods below headless ones) for which Kubernetes' resolvers take a short one.
fn completions(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    let labels = name.split('.').take(KUBERNETES_LABELS + 1).count();
    let ends_with_svc = name.ends_with(".svc");
    match labels {
        // SERVICE
        1 => vec![format!("{name}.{namespace}.svc.{domain}")],
        // SERVICE.NAMESPACE, or POD.SERVICE in the client's own.
        2 => vec![format!("{name}.svc.{domain}"), format!("{name}.{namespace}.svc.{domain}")],
        // SERVICE.NAMESPACE.svc, or POD.SERVICE.NAMESPACE: `svc` may be the name of a namespace.
        3 if ends_with_svc => vec![format!("{name}.{domain}"), format!("{name}.svc.{domain}")],
        3 => vec![format!("{name}.svc.{domain}")],
        // POD.SERVICE.NAMESPACE.svc
        4 if ends_with_svc => vec![format!("{name}.{domain}")],
        _ => Vec::new(),
    }
}

/// Calls `find` with `name`, then with the wildcards that cover it, nearest first: `a.b.c`, `*.b.c`, `*.c`. Returns the first
/// result, and whether it is a wildcard's.
pub(crate) fn first_cover<T>(name: &str, mut find: impl FnMut(&str) -> Option<T>) -> Option<(T, bool)> {
    if let Some(found) = find(name) {
        return Some((found, false));
    }
    // In one buffer: a question may have 127 labels.
    let mut wildcard = String::with_capacity(name.len() + 1);
    let dots = name.match_indices('.').map(|(at, _)| at);
    for at in dots {
        wildcard.clear();
        wildcard.push('*');
        wildcard.push_str(&name[at..]);
        if let Some(found) = find(&wildcard) {
            return Some((found, true));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that `name` may stand for, with the number of labels that are left where a search domain is removed.
    fn of(name: &str) -> Vec<String> {
        let search = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(str::to_owned);
        let shown = |alias: Alias| match alias.stripped_to {
            Some(labels) => format!("{} {labels}", alias.name),
            None => alias.name,
        };
        aliases(name, "ns", "cluster.local", &search).into_iter().map(shown).collect()
    }

    #[test]
    fn short_names_are_completed_by_their_number_of_labels() {
        assert_eq!(of("web"), ["web", "web.ns.svc.cluster.local"]);
        assert_eq!(of("web.shop"), ["web.shop", "web.shop.svc.cluster.local", "web.shop.ns.svc.cluster.local"]);
        assert_eq!(
            of("web.shop.svc"),
            ["web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.svc.cluster.local"]
        );
        assert_eq!(of("pod.web.shop"), ["pod.web.shop", "pod.web.shop.svc.cluster.local"]);
        assert_eq!(of("pod.web.shop.svc"), ["pod.web.shop.svc", "pod.web.shop.svc.cluster.local"]);
        assert_eq!(of("a.b.c.d"), ["a.b.c.d"]);
        assert_eq!(of("a.b.c.d.svc"), ["a.b.c.d.svc"]);
    }

    #[test]
    fn each_search_domain_at_the_end_is_removed_and_the_rest_completed() {
        assert_eq!(
            of("a.example.com.ns.svc.cluster.local"),
            [
                "a.example.com.ns.svc.cluster.local",
                "a.example.com 3",
                "a.example.com.svc.cluster.local 3",
                "a.example.com.ns 4",
                "a.example.com.ns.svc 5",
            ]
        );
        assert_eq!(
            of("web.ns.svc.cluster.local"),
            [
                "web.ns.svc.cluster.local",
                "web 1",
                "web.ns 2",
                "web.ns.ns.svc.cluster.local 2",
                "web.ns.svc 3",
                "web.ns.svc.svc.cluster.local 3",
            ]
        );
    }

    #[test]
    fn a_search_domain_is_whole_labels_and_not_the_whole_name() {
        assert_eq!(of("webns.svc.cluster.local")[0], "webns.svc.cluster.local");
        assert!(!of("webns.svc.cluster.local").contains(&"web 1".to_owned()));
        assert!(!of("cluster.local").iter().any(|name| name.starts_with(' ')));
        let dotless = [String::new()];
        assert_eq!(aliases("a.b.c.d", "ns", "cluster.local", &dotless).len(), 1);
    }

    #[test]
    fn wildcards_are_tried_from_the_nearest_to_the_widest() {
        let mut tried = Vec::new();
        let found: Option<((), bool)> = first_cover("a.b.c", |name| {
            tried.push(name.to_owned());
            None
        });

        assert_eq!(found, None);
        assert_eq!(tried, ["a.b.c", "*.b.c", "*.c"]);
        assert_eq!(first_cover("a.b.c", |name| (name == "*.b.c").then_some(1)), Some((1, true)));
        assert_eq!(first_cover("a", |name| (name == "a").then_some(1)), Some((1, false)));
    }
}
