//! `istio.workload.Workload` to [`Workload`].

use proto::workload as pb;

use super::{ConvertError, gateway, ip, or_default, port, ports, required, unknown};
use crate::{
    ApplicationTunnel, HealthStatus, InboundProtocol, Locality, Membership, Memberships, NetworkMode, Text,
    TunnelProtocol, Workload, WorkloadType,
    workload::{default_cluster_id, default_service_account, default_trust_domain},
};

impl TryFrom<pb::Workload> for Workload {
    type Error = ConvertError;

    fn try_from(message: pb::Workload) -> Result<Self, ConvertError> {
        let protocol = protocol(message.tunnel_protocol)?;
        let network_mode = network_mode(message.network_mode)?;
        let workload_type = workload_type(message.workload_type)?;
        let status = status(message.status)?;
        let locality = message.locality.unwrap_or_default();
        Ok(Self {
            // `unique`: no other resource repeats a uid or a pod's name.
            uid: Text::unique(&required("uid", message.uid)?),
            workload_ips: message.addresses.iter().map(|a| ip("addresses", a)).collect::<Result<_, _>>()?,
            waypoint: gateway("waypoint", message.waypoint)?,
            network_gateway: gateway("network_gateway", message.network_gateway)?,
            protocol,
            network_mode,
            name: Text::unique(&message.name),
            namespace: message.namespace.into(),
            trust_domain: or_default(message.trust_domain, default_trust_domain),
            service_account: or_default(message.service_account, default_service_account),
            network: message.network.into(),
            workload_name: message.workload_name.into(),
            workload_type,
            canonical_name: message.canonical_name.into(),
            canonical_revision: message.canonical_revision.into(),
            hostname: message.hostname.into(),
            node: message.node.into(),
            native_tunnel: message.native_tunnel,
            application_tunnel: message.application_tunnel.map(application_tunnel).transpose()?,
            authorization_policies: message.authorization_policies.into_iter().map(Text::from).collect(),
            status,
            cluster_id: or_default(message.cluster_id, default_cluster_id),
            locality: Locality {
                region: locality.region.into(),
                zone: locality.zone.into(),
                subzone: locality.subzone.into(),
            },
            services: memberships(message.services)?,
            // Absent is 1, and 0 is a weight of its own: no traffic.
            capacity: message.capacity.unwrap_or(1),
        })
    }
}

fn memberships<I: IntoIterator<Item = (String, pb::PortList)>>(services: I) -> Result<Memberships, ConvertError> {
    let one = |(key, list): (String, pb::PortList)| {
        Ok(Membership { service: key.parse()?, ports: ports("services", &list.ports)? })
    };
    services.into_iter().map(one).collect()
}

fn application_tunnel(message: pb::ApplicationTunnel) -> Result<ApplicationTunnel, ConvertError> {
    let protocol = match pb::application_tunnel::Protocol::try_from(message.protocol) {
        Ok(pb::application_tunnel::Protocol::None) => TunnelProtocol::NONE,
        Ok(pb::application_tunnel::Protocol::Proxy) => TunnelProtocol::PROXY,
        Err(_) => return Err(unknown("application_tunnel.protocol", message.protocol)),
    };
    let port = port("application_tunnel.port", message.port)?;
    // 0 stands for an absent field in protobuf.
    Ok(ApplicationTunnel { protocol, port: (port != 0).then_some(port) })
}

fn protocol(value: i32) -> Result<InboundProtocol, ConvertError> {
    match pb::TunnelProtocol::try_from(value) {
        Ok(pb::TunnelProtocol::None) => Ok(InboundProtocol::TCP),
        Ok(pb::TunnelProtocol::Hbone) => Ok(InboundProtocol::HBONE),
        Ok(pb::TunnelProtocol::LegacyIstioMtls) => {
            // Refused rather than read as plain TCP: its sender expects encryption.
            Err(ConvertError::Unsupported { field: "tunnel_protocol", value: "LEGACY_ISTIO_MTLS" })
        }
        Err(_) => Err(unknown("tunnel_protocol", value)),
    }
}

fn network_mode(value: i32) -> Result<NetworkMode, ConvertError> {
    match pb::NetworkMode::try_from(value) {
        Ok(pb::NetworkMode::Standard) => Ok(NetworkMode::Standard),
        Ok(pb::NetworkMode::HostNetwork) => Ok(NetworkMode::HostNetwork),
        Err(_) => Err(unknown("network_mode", value)),
    }
}

fn workload_type(value: i32) -> Result<WorkloadType, ConvertError> {
    match pb::WorkloadType::try_from(value) {
        Ok(pb::WorkloadType::Deployment) => Ok(WorkloadType::Deployment),
        Ok(pb::WorkloadType::Cronjob) => Ok(WorkloadType::Cronjob),
        Ok(pb::WorkloadType::Pod) => Ok(WorkloadType::Pod),
        Ok(pb::WorkloadType::Job) => Ok(WorkloadType::Job),
        Err(_) => Err(unknown("workload_type", value)),
    }
}

fn status(value: i32) -> Result<HealthStatus, ConvertError> {
    match pb::WorkloadStatus::try_from(value) {
        Ok(pb::WorkloadStatus::Healthy) => Ok(HealthStatus::Healthy),
        Ok(pb::WorkloadStatus::Unhealthy) => Ok(HealthStatus::Unhealthy),
        Err(_) => Err(unknown("status", value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> pb::Workload {
        pb::Workload {
            uid: "Kubernetes//Pod/ns/a".into(),
            name: "a".into(),
            namespace: "ns".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_left_out_gets_its_default() {
        let workload = Workload::try_from(minimal()).unwrap();

        assert_eq!(workload.trust_domain, "cluster.local");
        assert_eq!(workload.service_account, "default");
        assert_eq!(workload.cluster_id, "Kubernetes");
        assert_eq!(workload.capacity, 1);
        assert_eq!(workload.identity().unwrap().to_string(), "spiffe://cluster.local/ns/ns/sa/default");
    }

    #[test]
    fn an_explicit_capacity_of_zero_is_kept() {
        let workload = Workload::try_from(pb::Workload { capacity: Some(0), ..minimal() }).unwrap();

        assert_eq!(workload.capacity, 0);
    }

    #[test]
    fn four_bytes_are_ipv4_and_sixteen_ipv6() {
        let v6 = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
        let addresses = vec![vec![10, 0, 0, 1], v6];

        let workload = Workload::try_from(pb::Workload { addresses, ..minimal() }).unwrap();

        assert_eq!(workload.workload_ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }

    #[test]
    fn an_address_of_another_length_is_refused() {
        let error = Workload::try_from(pb::Workload { addresses: vec![vec![1, 2, 3]], ..minimal() }).unwrap_err();

        assert_eq!(error, ConvertError::AddressLength { field: "addresses", bytes: 3 });
    }

    #[test]
    fn legacy_mutual_tls_and_unknown_values_are_refused() {
        assert!(Workload::try_from(pb::Workload { tunnel_protocol: 2, ..minimal() }).is_err());
        assert!(Workload::try_from(pb::Workload { tunnel_protocol: 9, ..minimal() }).is_err());
        assert!(Workload::try_from(pb::Workload { status: 9, ..minimal() }).is_err());
        assert!(Workload::try_from(pb::Workload { workload_type: 9, ..minimal() }).is_err());
        assert!(Workload::try_from(pb::Workload { network_mode: 9, ..minimal() }).is_err());
    }

    #[test]
    fn a_waypoint_without_destination_is_refused() {
        let waypoint = Some(pb::GatewayAddress { destination: None, hbone_mtls_port: 15008 });

        let error = Workload::try_from(pb::Workload { waypoint, ..minimal() }).unwrap_err();

        assert_eq!(error, ConvertError::NoDestination("waypoint"));
    }

    #[test]
    fn a_service_key_without_slash_is_refused() {
        let services = [("web".to_owned(), pb::PortList::default())].into_iter().collect();

        assert!(Workload::try_from(pb::Workload { services, ..minimal() }).is_err());
    }

    #[test]
    fn an_application_tunnel_of_port_zero_has_no_port() {
        let application_tunnel = Some(pb::ApplicationTunnel { protocol: 1, port: 0 });

        let workload = Workload::try_from(pb::Workload { application_tunnel, ..minimal() }).unwrap();

        let expected = ApplicationTunnel { protocol: TunnelProtocol::PROXY, port: None };
        assert_eq!(workload.application_tunnel, Some(expected));
    }
}
