//! Spellings of a path that try to pass a DENY on `/admin*`, from the request line to the decision.

use std::net::SocketAddr;

use http::HeaderMap;
use model::StringMatch;
use policy::http::{
    Action, Authentication, Decision, Http, HttpPolicy, Operation, PathMatch, Request, Rule, Values, decide,
};
use proptest::prelude::*;

fn deny(pattern: StringMatch) -> HttpPolicy {
    let paths = Values { any_of: vec![PathMatch::Text(pattern)], ..Values::default() };
    let rule = Rule { to: vec![Operation { paths, ..Operation::default() }], ..Rule::default() };
    HttpPolicy {
        namespace: "shop".into(),
        name: "deny".into(),
        action: Action::Deny,
        dry_run: false,
        rules: vec![rule],
    }
}

/// Returns true if the request is denied; `None` for a target that is answered with 400 before any policy.
fn is_denied(policy: &HttpPolicy, target: &str) -> Option<bool> {
    let normal = route::normalise(target).ok()?;
    let path = normal.split('?').next().unwrap();
    let (headers, source) = (HeaderMap::new(), [10, 0, 0, 2].into());
    let authentication = Authentication::NoToken;
    let http = Http { method: "GET", authority: "shop", path, headers: &headers, authentication };
    let destination = SocketAddr::from(([10, 96, 0, 1], 80));
    let request = Request { identity: None, source, remote: source, destination, sni: None, http: Some(http) };
    let is_allowed = matches!(decide([policy].into_iter(), &request).decision, Decision::Allow { .. });
    Some(!is_allowed)
}

#[test]
fn spellings_of_the_same_path_are_denied() {
    let policy = deny(StringMatch::Prefix("/admin".into()));
    for target in [
        "/admin",
        "/admin/",
        "/admin?x=1",
        "/admin/../admin/users",
        "/./admin",
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2E%2e/admin",
        "/public/.%2e/admin",
        "/public/..;/admin",
        "/public/..;jsessionid=1/admin",
        "/public/%2e%2e;/admin",
        "/%61dmin",
        "/adm%69n",
        "/%61%64%6d%69%6e",
        "/\\..\\admin",
        "/public\\..\\admin",
        "/admin;x=1",
        "/admin/;x=1",
        "/admin%2fusers",
        "/admin%20",
        "/../../admin",
        "/a/b/../../admin",
        "/administrator",
    ] {
        assert_eq!(is_denied(&policy, target), Some(true), "{target}");
    }
}

#[test]
fn other_paths_to_envoy_are_other_paths() {
    // Istio's normalisation `BASE` keeps them, so a destination that resolves them needs a stricter policy.
    let policy = deny(StringMatch::Prefix("/admin".into()));
    for target in ["//admin", "/x/..%2fadmin", "/ADMIN", "/%41dmin", "/%2fadmin", "/%252561dmin", "/x;/admin"] {
        assert_eq!(is_denied(&policy, target), Some(false), "{target}");
    }
    let exact = deny(StringMatch::Exact("/admin".into()));
    for target in ["/admin/", "/admin;x=1", "/admin%20"] {
        assert_eq!(is_denied(&exact, target), Some(false), "{target}");
    }
}

#[test]
fn what_no_path_can_be_is_answered_before_any_policy() {
    let policy = deny(StringMatch::Prefix("/admin".into()));
    for target in ["admin", "", "/admin%00", "/x#/admin", "/adm\tin", "*"] {
        assert_eq!(is_denied(&policy, target), None, "{target:?}");
    }
}

proptest! {
    /// A detour through other segments, with any mix of spellings of dots and letters, arrives at the same decision.
    #[test]
    fn a_detour_does_not_change_the_decision(
        detours in prop::collection::vec((prop::sample::select(vec!["a", "b%20", ".x"]), 0..5_usize), 0..4),
        spelled in prop::collection::vec(any::<bool>(), 5),
        separator in prop::sample::select(vec!["/", "\\"]),
    ) {
        let policy = deny(StringMatch::Exact("/admin".into()));
        let dots = ["..", "%2e%2e", ".%2E", "..;v=1", "%2e%2e;"];
        let mut target = String::new();
        for (segment, spelling) in detours {
            target.push_str(&format!("/{segment}{separator}{}", dots[spelling]));
        }
        target.push('/');
        for (letter, is_escaped) in "admin".bytes().zip(spelled) {
            target.push_str(&if is_escaped { format!("%{letter:02x}") } else { char::from(letter).to_string() });
        }

        prop_assert_eq!(is_denied(&policy, &target), Some(true), "{}", target);
    }
}
