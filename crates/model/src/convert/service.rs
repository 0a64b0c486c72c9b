//! `istio.workload.Service` to [`Service`].

use proto::workload as pb;

use super::{ConvertError, cidr, gateway, ip, ports, required, unknown};
use crate::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, LoadBalancerScope, NetworkAddress, NetworkCidr, Service,
    Text, Visibility, WeightedWaypoint,
};

impl TryFrom<pb::Service> for Service {
    type Error = ConvertError;

    fn try_from(message: pb::Service) -> Result<Self, ConvertError> {
        let (vips, cidr_vips) = addresses(&message.addresses)?;
        let visibility = match message.visibility() {
            pb::service::Visibility::Public => Visibility::Public,
            pb::service::Visibility::Namespace => Visibility::Namespace,
        };
        Ok(Self {
            ip_families: ip_families(message.ip_families)?,
            name: message.name.into(),
            namespace: required("namespace", message.namespace)?.into(),
            hostname: required("hostname", message.hostname)?.into(),
            vips,
            cidr_vips,
            ports: ports("ports", &message.ports)?,
            subject_alt_names: message.subject_alt_names.into_iter().map(Text::from).collect(),
            waypoint: gateway("waypoint", message.waypoint)?,
            weighted_waypoints: message.weighted_waypoints.into_iter().map(weighted).collect::<Result<_, _>>()?,
            load_balancer: message.load_balancing.map(load_balancer).transpose()?,
            canonical: message.canonical,
            visibility,
        })
    }
}

type Addresses = (Vec<NetworkAddress>, Vec<NetworkCidr>);

/// An address with a prefix as long as itself is a single address.
fn addresses(list: &[pb::NetworkAddress]) -> Result<Addresses, ConvertError> {
    let (mut vips, mut cidr_vips) = Addresses::default();
    for message in list {
        let network = Text::from(&message.network);
        let address = ip("addresses", &message.address)?;
        match message.length {
            None => vips.push(NetworkAddress::new(network, address)),
            Some(length) => {
                let cidr = cidr("addresses", &message.address, length)?;
                if cidr.prefix_len() == cidr.max_prefix_len() {
                    vips.push(NetworkAddress::new(network, address));
                } else {
                    cidr_vips.push(NetworkCidr { network, cidr });
                }
            }
        }
    }
    Ok((vips, cidr_vips))
}

fn weighted(message: pb::WeightedWaypoint) -> Result<WeightedWaypoint, ConvertError> {
    const FIELD: &str = "weighted_waypoints";
    let destination = gateway(FIELD, message.destination)?.ok_or(ConvertError::NoDestination(FIELD))?;
    Ok(WeightedWaypoint { destination, weight: message.weight })
}

fn load_balancer(message: pb::LoadBalancing) -> Result<LoadBalancer, ConvertError> {
    let mode = match pb::load_balancing::Mode::try_from(message.mode) {
        Ok(pb::load_balancing::Mode::UnspecifiedMode) => LoadBalancerMode::Standard,
        Ok(pb::load_balancing::Mode::Strict) => LoadBalancerMode::Strict,
        Ok(pb::load_balancing::Mode::Failover) => LoadBalancerMode::Failover,
        Ok(pb::load_balancing::Mode::Passthrough) => LoadBalancerMode::Passthrough,
        Err(_) => return Err(unknown("load_balancing.mode", message.mode)),
    };
    let health_policy = match pb::load_balancing::HealthPolicy::try_from(message.health_policy) {
        Ok(pb::load_balancing::HealthPolicy::OnlyHealthy) => HealthPolicy::OnlyHealthy,
        Ok(pb::load_balancing::HealthPolicy::AllowAll) => HealthPolicy::AllowAll,
        Err(_) => return Err(unknown("load_balancing.health_policy", message.health_policy)),
    };
    let routing_preferences = message.routing_preference.into_iter().map(scope).collect::<Result<_, _>>()?;
    Ok(LoadBalancer { routing_preferences, mode, health_policy })
}

fn scope(value: i32) -> Result<LoadBalancerScope, ConvertError> {
    const FIELD: &str = "load_balancing.routing_preference";
    match pb::load_balancing::Scope::try_from(value) {
        Ok(pb::load_balancing::Scope::Region) => Ok(LoadBalancerScope::Region),
        Ok(pb::load_balancing::Scope::Zone) => Ok(LoadBalancerScope::Zone),
        Ok(pb::load_balancing::Scope::Subzone) => Ok(LoadBalancerScope::Subzone),
        Ok(pb::load_balancing::Scope::Node) => Ok(LoadBalancerScope::Node),
        Ok(pb::load_balancing::Scope::Cluster) => Ok(LoadBalancerScope::Cluster),
        Ok(pb::load_balancing::Scope::Network) => Ok(LoadBalancerScope::Network),
        // It names no property, so that every endpoint or none would share it with the client.
        Ok(pb::load_balancing::Scope::UnspecifiedScope) => {
            Err(ConvertError::Unsupported { field: FIELD, value: "UNSPECIFIED_SCOPE" })
        }
        Err(_) => Err(unknown(FIELD, value)),
    }
}

fn ip_families(value: i32) -> Result<Option<IpFamilies>, ConvertError> {
    match pb::IpFamilies::try_from(value) {
        // Automatic is the absence of a restriction.
        Ok(pb::IpFamilies::Automatic) => Ok(None),
        Ok(pb::IpFamilies::Ipv4Only) => Ok(Some(IpFamilies::IPv4)),
        Ok(pb::IpFamilies::Ipv6Only) => Ok(Some(IpFamilies::IPv6)),
        Ok(pb::IpFamilies::Dual) => Ok(Some(IpFamilies::Dual)),
        Err(_) => Err(unknown("ip_families", value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> pb::Service {
        pb::Service {
            name: "web".into(),
            namespace: "shop".into(),
            hostname: "web.shop.svc.cluster.local".into(),
            ..Default::default()
        }
    }

    fn address(bytes: [u8; 4], length: Option<u32>) -> pb::NetworkAddress {
        pb::NetworkAddress { network: "net".into(), address: bytes.to_vec(), length }
    }

    #[test]
    fn an_address_with_a_prefix_is_a_block_unless_the_prefix_is_all_of_it() {
        let addresses =
            vec![address([10, 0, 0, 1], None), address([10, 1, 0, 9], Some(16)), address([10, 2, 0, 1], Some(32))];

        let service = Service::try_from(pb::Service { addresses, ..minimal() }).unwrap();

        assert_eq!(service.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["net/10.0.0.1", "net/10.2.0.1"]);
        assert_eq!(service.cidr_vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["net/10.1.0.0/16"]);
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_refused() {
        let addresses = vec![address([10, 0, 0, 1], Some(33))];

        assert!(Service::try_from(pb::Service { addresses, ..minimal() }).is_err());
    }

    #[test]
    fn an_unknown_visibility_is_public_and_other_unknown_values_are_refused() {
        let service = Service::try_from(pb::Service { visibility: 7, ..minimal() }).unwrap();

        assert_eq!(service.visibility, Visibility::Public);
        assert!(Service::try_from(pb::Service { ip_families: 7, ..minimal() }).is_err());
    }

    #[test]
    fn an_unspecified_scope_is_refused() {
        let load_balancing = Some(pb::LoadBalancing { routing_preference: vec![0], mode: 1, health_policy: 0 });

        assert!(Service::try_from(pb::Service { load_balancing, ..minimal() }).is_err());
    }

    #[test]
    fn a_weighted_waypoint_needs_a_destination() {
        let weighted_waypoints = vec![pb::WeightedWaypoint { destination: None, weight: 1 }];

        assert!(Service::try_from(pb::Service { weighted_waypoints, ..minimal() }).is_err());
    }

    #[test]
    fn a_port_beyond_the_range_is_refused() {
        let ports = vec![pb::Port { service_port: 65_616, target_port: 80, app_protocol: 0 }];

        let error = Service::try_from(pb::Service { ports, ..minimal() }).unwrap_err();

        assert_eq!(error, ConvertError::Port { field: "ports", value: 65_616 });
    }
}
