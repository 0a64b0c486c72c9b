//! Configuration to bytes and back. Every field of the model is named on the way there, so that the compiler asks about a new
//! one; on the way back everything is checked, and what was read is compared with what was sent.

mod action;
mod conditions;
mod error;
mod policies;
mod rule;
mod table;
mod text;

use model::NamespacedHostname;
use prost::Message;
use proto::waypoint as wire;

pub use error::Invalid;
use error::{Problem, Within as _};

use crate::config::{AppProtocol, GatewayConfig, PortConfig, ServiceConfig};
use crate::name::Name;

/// Content of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Service(NamespacedHostname, ServiceConfig),
    Gateway(GatewayConfig),
}

/// Encodes the configuration of a service. Equal configurations give equal bytes.
pub fn encode_service(namespace: &str, host: &str, config: &ServiceConfig) -> Vec<u8> {
    let ServiceConfig { ports, policies } = config;
    let port = |(number, config): (&u16, &PortConfig)| {
        let PortConfig { protocol, routes } = config;
        wire::Port {
            number: (*number).into(),
            protocol: protocol_to_wire(*protocol).into(),
            routes: Some(table::encode(&routes.routes)),
            consumers: routes.consumers.iter().map(table::encode_consumer).collect(),
        }
    };
    let service = wire::Service {
        namespace: namespace.to_owned(),
        host: host.to_owned(),
        ports: ports.iter().map(port).collect(),
        policies: policies::encode(policies),
    };
    let content = Some(wire::resource::Content::Service(service.encode_to_vec()));
    wire::Resource { content }.encode_to_vec()
}

/// Encodes what holds for all of a gateway. Equal configurations give equal bytes.
pub fn encode_gateway(config: &GatewayConfig) -> Vec<u8> {
    let GatewayConfig { policies, providers } = config;
    let gateway = wire::Gateway {
        policies: policies::encode(policies),
        providers: providers.iter().map(policies::to_json).collect(),
    };
    let content = Some(wire::resource::Content::Gateway(gateway.encode_to_vec()));
    wire::Resource { content }.encode_to_vec()
}

/// Reads the resource of a name.
///
/// # Errors
/// When a field is missing, invalid or unknown, or the resource is about another object than its name says.
pub fn decode(name: &Name, resource: &wire::Resource) -> Result<Content, Invalid> {
    match (name, &resource.content) {
        (Name::Service { namespace, host }, Some(wire::resource::Content::Service(bytes))) => {
            let service: wire::Service = read_whole(bytes)?;
            if (&service.namespace, &service.host) != (namespace, host) {
                return Err(Problem::OtherObject.into());
            }
            let name = NamespacedHostname::new(namespace.as_str(), host.as_str());
            Ok(Content::Service(name, decode_service(service)?))
        }
        (Name::Gateway { .. }, Some(wire::resource::Content::Gateway(bytes))) => {
            decode_gateway(read_whole(bytes)?).map(Content::Gateway)
        }
        (_, None) => Err(Problem::UnknownContent.into()),
        (_, Some(_)) => Err(Problem::OtherObject.into()),
    }
}

/// Decodes a message. The library skips fields that it does not know, and a skipped field may be the one that restricts a
/// route. Both sides encode alike, so what was skipped is missing in the length.
fn read_whole<M: Message + Default>(bytes: &[u8]) -> Result<M, Invalid> {
    let message = M::decode(bytes).map_err(|error| Problem::Unreadable(error.to_string()))?;
    match bytes.len().abs_diff(message.encoded_len()) {
        0 => Ok(message),
        unknown => Err(Problem::UnknownFields(unknown).into()),
    }
}

fn decode_service(service: wire::Service) -> Result<ServiceConfig, Invalid> {
    let mut config = ServiceConfig { policies: policies::decode(service.policies)?, ..ServiceConfig::default() };
    for (index, port) in service.ports.into_iter().enumerate() {
        let (number, port) = decode_port(port).within(format!("ports[{index}]"))?;
        if config.ports.insert(number, port).is_some() {
            return Err(Invalid::from(Problem::Twice)).within(format!("ports[{index}].number"));
        }
    }
    Ok(config)
}

fn decode_port(port: wire::Port) -> Result<(u16, PortConfig), Invalid> {
    let protocol = wire::AppProtocol::try_from(port.protocol).ok().map(protocol_from_wire);
    let protocol = protocol.ok_or(Problem::OutOfRange(i64::from(port.protocol))).within("protocol")?;
    let number = text::number(port.number).within("number")?;
    let routes = table::decode_port(port.routes, port.consumers)?;
    Ok((number, PortConfig { protocol, routes }))
}

fn decode_gateway(gateway: wire::Gateway) -> Result<GatewayConfig, Invalid> {
    Ok(GatewayConfig {
        policies: policies::decode(gateway.policies)?,
        providers: policies::from_json("providers", &gateway.providers)?,
    })
}

const fn protocol_to_wire(protocol: AppProtocol) -> wire::AppProtocol {
    match protocol {
        AppProtocol::Undeclared => wire::AppProtocol::Undeclared,
        AppProtocol::Http1 => wire::AppProtocol::Http1,
        AppProtocol::Http2 => wire::AppProtocol::Http2,
        AppProtocol::Tcp => wire::AppProtocol::Tcp,
    }
}

const fn protocol_from_wire(protocol: wire::AppProtocol) -> AppProtocol {
    match protocol {
        wire::AppProtocol::Undeclared => AppProtocol::Undeclared,
        wire::AppProtocol::Http1 => AppProtocol::Http1,
        wire::AppProtocol::Http2 => AppProtocol::Http2,
        wire::AppProtocol::Tcp => AppProtocol::Tcp,
    }
}
