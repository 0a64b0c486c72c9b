//! Consistent hashes.

use http::HeaderName;
use kube_types::istio::{ConsistentHash, HashCookie as Cookie};
use route::Origin;
use route::traffic::{Algorithm, HashCookie, HashKey, HashTable};

use crate::finding::{Findings, Reason};
use crate::http_policy::time;

/// Compiles a consistent hash. Without a valid key there is nothing to hash: requests are balanced as without it.
pub(super) fn compile(hash: &ConsistentHash, at: &Origin, findings: &mut Findings) -> Algorithm {
    let at = at.at(format!("{}.consistentHash", at.field));
    let table = table(hash, &at, findings);
    key(hash, &at, findings).map_or(Algorithm::LeastRequest, |key| Algorithm::ConsistentHash { key, table })
}

fn key(hash: &ConsistentHash, at: &Origin, findings: &mut Findings) -> Option<HashKey> {
    const INSTEAD: &str = "LEAST_REQUEST is used";
    let source = hash.use_source_ip.unwrap_or_default();
    let key = match (&hash.http_header_name, &hash.http_cookie, source, &hash.http_query_parameter_name) {
        (Some(name), None, false, None) => match name.parse::<HeaderName>() {
            Ok(name) => HashKey::Header(name),
            Err(_) => {
                let message = format!("invalid header name {name:?}: {INSTEAD}");
                findings.add(Reason::Invalid, at, "httpHeaderName", message);
                return None;
            }
        },
        (None, Some(of), false, None) => return cookie(of, at, INSTEAD, findings).map(HashKey::Cookie),
        (None, None, true, None) => HashKey::SourceAddress,
        (None, None, false, Some(name)) => HashKey::QueryParameter(name.clone()),
        _ => {
            let message = format!(
                "expected one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName: {INSTEAD}"
            );
            findings.add(Reason::Invalid, at, "", message);
            return None;
        }
    };
    Some(key)
}

fn cookie(cookie: &Cookie, at: &Origin, instead: &str, findings: &mut Findings) -> Option<HashCookie> {
    // Names of cookies and of headers are both tokens of RFC 9110.
    if cookie.name.parse::<HeaderName>().is_err() {
        let message = format!("invalid cookie name {:?}: {instead}", cookie.name);
        findings.add(Reason::Invalid, at, "httpCookie.name", message);
        return None;
    }
    let path = if is_attribute(&cookie.path) {
        cookie.path.clone()
    } else {
        findings.add(Reason::Invalid, at, "httpCookie.path", "invalid path: new cookies have none");
        String::new()
    };
    let ttl = cookie.ttl.as_deref();
    let ttl = ttl.and_then(|text| time(text, at, "httpCookie.ttl", "no cookie is made", findings));
    let mut attributes = Vec::new();
    for (index, of) in cookie.attributes.iter().enumerate() {
        if of.name.parse::<HeaderName>().is_ok() && is_attribute(&of.value) {
            attributes.push((of.name.clone(), of.value.clone()));
        } else {
            let field = format!("httpCookie.attributes[{index}]");
            findings.add(Reason::Invalid, at, &field, "invalid attribute: new cookies do not have it");
        }
    }
    Some(HashCookie { name: cookie.name.clone(), path, ttl, attributes })
}

/// Value of an attribute by RFC 6265: visible characters and spaces without `;`.
fn is_attribute(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';')
}

fn table(hash: &ConsistentHash, at: &Origin, findings: &mut Findings) -> HashTable {
    let former = hash.minimum_ring_size.filter(|size| *size > 0);
    if let Some(maglev) = &hash.maglev {
        if hash.ring_hash.is_some() || former.is_some() {
            findings.add(Reason::Invalid, at, "ringHash", "maglev is there too, and is used");
        }
        return HashTable::Maglev {
            size: maglev.table_size.map_or(HashTable::DEFAULT_MAGLEV_SIZE, |size| {
                prime(size).unwrap_or_else(|| {
                    let message = format!(
                        "invalid table size {size}, expected a prime of at most {}: {} is used",
                        HashTable::MAX_MAGLEV_SIZE,
                        HashTable::DEFAULT_MAGLEV_SIZE
                    );
                    findings.add(Reason::Invalid, at, "maglev.tableSize", message);
                    HashTable::DEFAULT_MAGLEV_SIZE
                })
            }),
        };
    }
    let size = hash.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size).filter(|size| *size > 0);
    let (field, size) = match (size, former) {
        (Some(size), _) => ("ringHash.minimumRingSize", size),
        (None, Some(size)) => ("minimumRingSize", size),
        (None, None) => return HashTable::default(),
    };
    let size = u32::try_from(size).ok().filter(|size| *size <= HashTable::MAX_RING_SIZE);
    let minimum_size = size.unwrap_or_else(|| {
        let message = format!("the largest ring has {0} entries: {0} is used", HashTable::MAX_RING_SIZE);
        findings.add(Reason::Invalid, at, field, message);
        HashTable::MAX_RING_SIZE
    });
    HashTable::Ring { minimum_size }
}

/// The number if it is a prime that a table may have.
fn prime(size: u64) -> Option<u32> {
    let size = u32::try_from(size).ok().filter(|size| (2..=HashTable::MAX_MAGLEV_SIZE).contains(size))?;
    let root = size.isqrt();
    (2..=root).all(|divisor| size % divisor != 0).then_some(size)
}
