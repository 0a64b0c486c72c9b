//! Scopes of log filters. Users of Istio write `ztunnel` and `ztunnel::proxy`, as there the whole proxy is one crate;
//! here it is many, and a filter names them all.

use tracing_subscriber::filter::Targets;

/// Scope of the whole proxy in Istio's documentation.
const ZTUNNEL: &str = "ztunnel";

/// Scopes that `ztunnel` covers beside the crate of that name: the libraries of this workspace of which the program
/// consists, and the scope of policy decisions. The access log is not among them: its scope is `access`, in Istio too.
#[rustfmt::skip] // As a paragraph.
pub const ZTUNNEL_SCOPES: [&str; 16] = [
    "ca_client", "contract", "dns", "hbone", "http2", "identity", "model", "policy", "proto", "proxy_core",
    "rbac", "runtime", "telemetry", "tls", "xds_client", "zds",
];

/// Returns `written` with the levels of `ztunnel` also for what the crate `ztunnel` consists of, and those of
/// `ztunnel::PATH` also for `proxy_core::PATH` and, where PATH begins with one of [`ZTUNNEL_SCOPES`], for PATH.
pub(super) fn with_implied(written: &Targets) -> Targets {
    let implied =
        written.iter().flat_map(|(scope, level)| implied_by(scope).into_iter().map(move |scope| (scope, level)));
    // `Targets` keeps the last level that it gets for a scope. What a user has written comes last, so that
    // `ztunnel=debug,hbone=info` means what it says, in any order.
    let mut all = Targets::new().with_targets(implied).with_targets(written.iter());
    if let Some(level) = written.default_level() {
        all = all.with_default(level);
    }
    all
}

fn implied_by(scope: &str) -> Vec<String> {
    if scope == ZTUNNEL {
        return ZTUNNEL_SCOPES.map(str::to_owned).to_vec();
    }
    let Some(path) = scope.strip_prefix(ZTUNNEL).and_then(|rest| rest.strip_prefix("::")) else { return Vec::new() };
    // Log lines leave out `ztunnel::` and `proxy_core::`, so a reader cannot know in which of the two a module is.
    let mut implied = vec![format!("proxy_core::{path}")];
    // Compared as a whole segment: a filter covers every scope that begins with its text, so that `proxy` would cover
    // all of `proxy_core`.
    let first = path.split("::").next().unwrap_or_default();
    if ZTUNNEL_SCOPES.contains(&first) {
        implied.push(path.to_owned());
    }
    implied
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    fn filter(text: &str) -> Targets {
        with_implied(&text.parse().unwrap())
    }

    #[test]
    fn the_scope_of_the_proxy_covers_every_crate_of_it_and_not_the_access_log() {
        let filter = filter("warn,ztunnel=debug");

        for scope in ["ztunnel::proxy::dial", "proxy_core::discovery::apply", "hbone::pool", "xds_client::link", "rbac"]
        {
            assert!(filter.would_enable(scope, &Level::DEBUG), "{scope}");
        }
        for scope in ["access", "hyper", "strake_agent::enrol"] {
            assert!(!filter.would_enable(scope, &Level::INFO), "{scope}");
        }
    }

    #[test]
    fn a_module_of_the_proxy_is_found_in_whichever_crate_it_is() {
        let filter = filter("info,ztunnel::discovery=debug,ztunnel::tls=trace");

        assert!(filter.would_enable("proxy_core::discovery::apply", &Level::DEBUG));
        assert!(filter.would_enable("tls::verify", &Level::TRACE));
        assert!(!filter.would_enable("proxy_core::workers", &Level::DEBUG));
        assert!(!filter.would_enable("hbone::pool", &Level::DEBUG));
    }

    #[test]
    fn a_scope_that_is_named_keeps_its_level_wherever_it_is_in_the_list() {
        for text in ["ztunnel=debug,hbone=error", "hbone=error,ztunnel=debug"] {
            let filter = filter(text);

            assert!(!filter.would_enable("hbone::pool", &Level::WARN), "{text}");
            assert!(filter.would_enable("http2::engine", &Level::DEBUG), "{text}");
        }
    }
}
