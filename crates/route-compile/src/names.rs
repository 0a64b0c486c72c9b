//! Host names and namespaces as Istio's objects write them.

/// Completes a name without any dot with the namespace of the object that it is in. A name with a dot is taken as it is.
pub fn full_host(host: &str, namespace: &str, cluster_domain: &str) -> String {
    if host.contains(['.', '*']) || host.is_empty() {
        return host.to_owned();
    }
    format!("{host}.{namespace}.svc.{cluster_domain}")
}

/// Returns true if a pattern, `*`, `*.suffix` or a name, covers a host.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// Order of patterns that cover the same host; the greatest is the most special.
pub(crate) fn specificity(pattern: &str) -> (bool, usize) {
    (!pattern.starts_with('*'), pattern.len())
}

/// Returns true if an object of namespace `owner` with this `exportTo` may be used in namespace `user`.
pub(crate) fn is_exported(export_to: &[String], owner: &str, user: &str) -> bool {
    let admits = |entry: &String| match entry.as_str() {
        "*" => true,
        "." => owner == user,
        // Nobody.
        "~" => false,
        namespace => namespace == user,
    };
    export_to.is_empty() || export_to.iter().any(admits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_without_a_dot_is_short() {
        for (host, expected) in [
            ("reviews", "reviews.shop.svc.cluster.local"),
            ("reviews.prod", "reviews.prod"),
            ("reviews.prod.svc.cluster.local", "reviews.prod.svc.cluster.local"),
            ("*", "*"),
            ("*.example.com", "*.example.com"),
        ] {
            assert_eq!(full_host(host, "shop", "cluster.local"), expected);
        }
    }

    #[test]
    fn a_wildcard_covers_names_below_it() {
        for (pattern, host, expected) in [
            ("*", "a", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "b.example.com", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
        let mut patterns = ["*", "*.example.com", "a.b.example.com", "*.b.example.com"];
        patterns.sort_by_key(|pattern| specificity(pattern));
        assert_eq!(patterns, ["*", "*.example.com", "*.b.example.com", "a.b.example.com"]);
    }

    #[test]
    fn objects_are_exported_to_namespaces() {
        for (export_to, user, expected) in [
            (&[][..], "other", true),
            (&["*"], "other", true),
            (&["."], "own", true),
            (&["."], "other", false),
            (&["~"], "own", false),
            (&["a", "other"], "other", true),
            (&["a"], "own", false),
        ] {
            let export_to: Vec<_> = export_to.iter().map(|entry| (*entry).to_owned()).collect();
            assert_eq!(is_exported(&export_to, "own", user), expected, "{export_to:?} {user}");
        }
    }
}
