//! Bytes of a discovery resource and their version: equal content gives equal bytes.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::security::Authorization;
use proto::workload::{Service, Workload};
use xxhash_rust::xxh64::xxh64;

/// Field numbers of `istio.workload.Address`.
const ADDRESS_WORKLOAD: u32 = 1;
const ADDRESS_SERVICE: u32 = 2;

/// An encoded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: u64,
}

impl Encoded {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        // Not cryptographic: a version only has to differ from the one that it replaces.
        let hash = xxh64(&bytes, 0);
        Self { bytes, hash }
    }
}

/// The text of a version.
pub(crate) fn version(hash: u64) -> String {
    format!("{hash:x}")
}

pub(crate) fn authorization(policy: &Authorization) -> Encoded {
    Encoded::new(policy.encode_to_vec())
}

pub(crate) fn service(service: &Service) -> Encoded {
    Encoded::new(wrap(ADDRESS_SERVICE, &service.encode_to_vec()))
}

/// The map of services has no order of its own, so its entries are encoded one by one, sorted: parts
/// of a message may follow each other in any order and are joined by the reader.
pub(crate) fn workload(mut workload: Workload) -> Encoded {
    let mut services: Vec<_> = std::mem::take(&mut workload.services).into_iter().collect();
    services.sort_by(|left, right| left.0.cmp(&right.0));
    let mut bytes = workload.encode_to_vec();
    // Protobuf joins the parts of a repeated field when it decodes, wherever they stand.
    for entry in services {
        let part = Workload { services: [entry].into_iter().collect(), ..Workload::default() };
        bytes.extend(part.encode_to_vec());
    }
    Encoded::new(wrap(ADDRESS_WORKLOAD, &bytes))
}

fn wrap(field: u32, message: &[u8]) -> Vec<u8> {
    // One byte for the key, and at most five for a length below 4 GiB.
    let mut bytes = Vec::with_capacity(message.len() + 6);
    encode_key(field, WireType::LengthDelimited, &mut bytes);
    encode_varint(message.len() as u64, &mut bytes);
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::workload::address::Type;
    use proto::workload::{Address, PortList};

    #[test]
    fn equal_content_gives_equal_bytes_that_read_back() {
        let make = || Workload {
            uid: "u".to_owned(),
            services: (0..20).map(|n| (format!("app/s{n}"), PortList::default())).collect(),
            ..Workload::default()
        };

        let (first, second) = (workload(make()), workload(make()));

        assert_eq!(first, second);
        let read = Address::decode(first.bytes.as_slice()).unwrap();
        assert_eq!(read.r#type, Some(Type::Workload(make())));
    }
}
