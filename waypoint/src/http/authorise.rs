//! Policies in front of a request: token, then authorisation, before any route is looked at (Istio's order of filters).
//!
//! What a configuration carries and this version cannot evaluate denies. It is never skipped.

use super::reply::Reply;
use crate::snapshot::Policies;

/// Evaluates the policies of the waypoint and of the service, in this order.
///
/// # Errors
/// The answer to a request that is denied.
pub(super) fn authorise(policies: [&Policies; 2]) -> Result<(), Reply> {
    match policies.iter().flat_map(|policies| &policies.unsupported).next() {
        Some(policy) => Err(Reply::denied(policy)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_cannot_be_evaluated_denies() {
        let none = Policies::default();
        assert!(authorise([&none, &none]).is_ok());

        let policies = Policies { unsupported: vec!["shop/tokens".into()] };
        for both in [[&policies, &none], [&none, &policies]] {
            let reply = authorise(both).unwrap_err();
            assert_eq!(reply.answer.status, 403);
            assert_eq!(reply.answer.body, "RBAC: access denied");
            assert_eq!(reply.details, "rbac_access_denied_matched_policy[shop/tokens]");
        }
    }
}
