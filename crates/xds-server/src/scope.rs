//! Types of which each gateway has resources of its own: a waypoint sees those of its gateway and no others. The cache keeps
//! them as types with the gateway in their name, which no client can ask for.

use std::borrow::Cow;

use identity::Caller;
use proto::WAYPOINT_TYPE_URL;

/// Between the type and the gateway.
const SEPARATOR: char = '#';

/// Type of the cache for the waypoints of a gateway.
pub fn waypoint_type(namespace: &str, gateway: &str) -> String {
    format!("{WAYPOINT_TYPE_URL}{SEPARATOR}{namespace}/{gateway}")
}

/// Type of the cache that a client means by a type. `None` for one that no client may ask for.
///
/// A waypoint runs with the service account that has the name of its gateway, so its identity says which one it is: what it
/// writes about itself is not believed.
pub(crate) fn of_caller<'a>(type_url: &'a str, caller: &Caller) -> Option<Cow<'a, str>> {
    if type_url.contains(SEPARATOR) {
        return None;
    }
    let identity = &caller.identity;
    Some(match type_url == WAYPOINT_TYPE_URL {
        true => Cow::Owned(waypoint_type(identity.namespace(), identity.service_account())),
        false => Cow::Borrowed(type_url),
    })
}

/// Gateway of a type of the cache, as `NAMESPACE/NAME`; `None` for a type that is the same for all clients.
pub(crate) fn gateway(type_of_cache: &str) -> Option<&str> {
    type_of_cache.split_once(SEPARATOR).map(|(_, gateway)| gateway)
}

/// The type as clients know it.
pub(crate) fn public(type_of_cache: &str) -> &str {
    type_of_cache.split(SEPARATOR).next().unwrap_or(type_of_cache)
}

#[cfg(test)]
mod tests {
    use proto::ADDRESS_TYPE_URL;

    use super::*;

    #[test]
    fn a_waypoint_means_its_own_gateway_and_cannot_name_another() {
        let identity = "spiffe://cluster.local/ns/shop/sa/waypoint".parse().unwrap();
        let caller = Caller { node: "node-1".to_owned(), identity };

        assert_eq!(of_caller(WAYPOINT_TYPE_URL, &caller).unwrap(), waypoint_type("shop", "waypoint"));
        assert_eq!(of_caller(ADDRESS_TYPE_URL, &caller).unwrap(), ADDRESS_TYPE_URL);
        assert_eq!(of_caller(&waypoint_type("shop", "other"), &caller), None);
        assert_eq!(public(&waypoint_type("shop", "waypoint")), WAYPOINT_TYPE_URL);
        assert_eq!(public(ADDRESS_TYPE_URL), ADDRESS_TYPE_URL);
    }
}
