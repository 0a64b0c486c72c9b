//! Cluster DNS: A and AAAA of Services and of pods with a name below a headless Service. Names outside of the cluster do
//! not exist: a lab has no way out.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Header, HeaderCounts, Metadata, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use hickory_server::{
    Server,
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use parking_lot::RwLock;
use runtime::sys::Netns;

use crate::services::Resolved;

/// Domain of the cluster.
pub(crate) const DOMAIN: &str = "cluster.local";

/// Seconds that an answer may be kept; CoreDNS has 5 by default.
const TTL: u32 = 5;

/// Time for which an idle TCP connection is kept.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers that wait for a slow TCP client.
const TCP_ANSWERS: usize = 32;

/// The names that exist and their addresses, replaced as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Zone {
    names: Arc<RwLock<HashMap<String, Vec<IpAddr>>>>,
}

impl Zone {
    /// Replaces everything.
    pub(crate) fn set(&self, services: &[Resolved]) {
        *self.names.write() = names(services);
    }

    /// Addresses of a name without its last dot; `None` when there is no such name.
    fn get(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.names.read().get(name).cloned()
    }

    fn answer(&self, name: &Name, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        // Names are compared without case (RFC 4343).
        let text = name.to_ascii().to_ascii_lowercase();
        // A name without addresses of the wanted family is not the same as no name: resolvers ask for A and AAAA at the
        // same time, and give up the name when one of the answers is NXDOMAIN (RFC 2308, section 2).
        let Some(addresses) = self.get(text.trim_end_matches('.')) else {
            return (ResponseCode::NXDomain, Vec::new());
        };
        let record = |address: &IpAddr| {
            let data = match (address, kind) {
                (IpAddr::V4(v4), RecordType::A) => RData::A(rdata::A(*v4)),
                (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(rdata::AAAA(*v6)),
                _ => return None,
            };
            Some(Record::from_rdata(name.clone(), TTL, data))
        };
        (ResponseCode::NoError, addresses.iter().filter_map(record).collect())
    }
}

/// A Service's own name has its addresses, or those of its endpoints when it is headless; an
/// endpoint with a host name has a name below it.
fn names(services: &[Resolved]) -> HashMap<String, Vec<IpAddr>> {
    let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for service in services {
        let own = format!("{}.{}.svc.{DOMAIN}", service.name, service.namespace);
        for (address, hostname) in &service.hosts {
            if let Some(hostname) = hostname {
                names.entry(format!("{hostname}.{own}")).or_default().push(*address);
            }
        }
        let headless = service.ips.is_empty();
        let addresses = if headless { service.hosts.iter().map(|(ip, _)| *ip).collect() } else { service.ips.clone() };
        names.insert(own, addresses);
    }
    names
}

/// Answers from a `Zone`.
struct Handler(Zone);

type Answer<'a> = Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'a>>;

impl RequestHandler for Handler {
    fn handle_request<'life0, 'life1, 'async_trait, R, T>(
        &'life0 self,
        request: &'life1 Request,
        mut response: R,
    ) -> Answer<'async_trait>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
        R: 'async_trait + ResponseHandler,
        T: 'async_trait + Time,
    {
        Box::pin(async move {
            let mut metadata = Metadata::response_from_request(&request.metadata);
            metadata.authoritative = true;
            let (code, records) = match request.request_info() {
                Ok(info) if request.metadata.op_code == OpCode::Query => {
                    self.0.answer(&Name::from(info.query.name().clone()), info.query.query_type())
                }
                // An update or notification, or not exactly one question.
                _ => (ResponseCode::NotImp, Vec::new()),
            };
            metadata.response_code = code;
            let builder = MessageResponseBuilder::from_message_request(request);
            let message = builder.build(metadata, &records, [], [], []);
            match response.send_response(message).await {
                Ok(info) => info,
                Err(err) => {
                    tracing::debug!(%err, "failed to send a DNS answer");
                    Header { metadata, counts: HeaderCounts::default() }.into()
                }
            }
        })
    }
}

/// Answers on port 53 of the given addresses of a namespace, over UDP and TCP, until the returned server is dropped.
pub(crate) fn serve(zone: &Zone, netns: &Netns, addresses: &[IpAddr]) -> io::Result<impl Send + use<>> {
    let mut server = Server::new(Handler(zone.clone()));
    for address in addresses {
        let address = SocketAddr::new(*address, 53);
        // A socket stays in the namespace in which it was made, so only making it needs the node's namespace.
        let (udp, tcp) = netns.run(|| Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?)))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
        server.register_listener(tokio::net::TcpListener::from_std(tcp)?, TCP_TIMEOUT, TCP_ANSWERS);
    }
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, ips: &[&str], hosts: &[(&str, Option<&str>)]) -> Resolved {
        Resolved {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: Vec::new(),
            hosts: hosts.iter().map(|(ip, name)| (ip.parse().unwrap(), name.map(str::to_owned))).collect(),
            endpoint_count: 0,
            slices: Vec::new(),
        }
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let (code, records) = zone.answer(&Name::from_ascii(name).unwrap(), kind);
        (code, records.iter().map(|record| record.data.to_string()).collect())
    }

    #[test]
    fn a_service_has_its_addresses_by_family() {
        let zone = Zone::default();
        zone.set(&[service("web", &["10.96.1.1", "fd00:10:96::101"], &[("10.244.1.2", None)])]);

        let v4 = ask(&zone, "Web.shop.svc.cluster.local.", RecordType::A);
        let v6 = ask(&zone, "web.shop.svc.cluster.local.", RecordType::AAAA);

        assert_eq!(v4, (ResponseCode::NoError, vec!["10.96.1.1".to_owned()]));
        assert_eq!(v6, (ResponseCode::NoError, vec!["fd00:10:96::101".to_owned()]));
    }

    #[test]
    fn a_headless_service_has_its_pods_together_and_by_name() {
        let zone = Zone::default();
        zone.set(&[service("db", &[], &[("10.244.1.2", Some("db-0")), ("10.244.2.2", Some("db-1"))])]);

        assert_eq!(ask(&zone, "db.shop.svc.cluster.local.", RecordType::A).1.len(), 2);
        assert_eq!(ask(&zone, "db-1.db.shop.svc.cluster.local.", RecordType::A).1, ["10.244.2.2"]);
    }

    #[test]
    fn what_is_not_there_does_not_exist_and_a_missing_family_is_empty() {
        let zone = Zone::default();
        zone.set(&[service("web", &["10.96.1.1"], &[])]);

        assert_eq!(ask(&zone, "example.com.", RecordType::A).0, ResponseCode::NXDomain);
        assert_eq!(ask(&zone, "web.other.svc.cluster.local.", RecordType::A).0, ResponseCode::NXDomain);
        assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::AAAA), (ResponseCode::NoError, vec![]));
    }
}
