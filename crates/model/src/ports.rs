//! Which service port leads to which target port. A handful of entries, so a sorted slice.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};

/// Service port to target port, sorted by service port. Target 0: named, each endpoint says its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Box<[(u16, u16)]>);

impl Ports {
    /// The target of `service_port`; may be 0, see the type.
    #[must_use]
    pub fn target(&self, service_port: u16) -> Option<u16> {
        let at = self.0.binary_search_by_key(&service_port, |(service, _)| *service).ok()?;
        self.0.get(at).map(|(_, target)| *target)
    }

    /// Is there an entry for it?
    #[must_use]
    pub fn contains(&self, service_port: u16) -> bool {
        self.target(service_port).is_some()
    }

    /// Pairs of service port and target port, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }

    /// No entry at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(u16, u16)> for Ports {
    /// Of several entries for one service port the last counts.
    fn from_iter<I: IntoIterator<Item = (u16, u16)>>(entries: I) -> Self {
        entries.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<(u16, u16)>> for Ports {
    /// Of several entries for one service port the last counts.
    fn from(mut entries: Vec<(u16, u16)>) -> Self {
        // A Service may have one number for TCP and UDP, so that discovery can name it twice. The sort is stable, and of
        // equal neighbours the first stays.
        entries.reverse();
        entries.sort_by_key(|(service, _)| *service);
        entries.dedup_by_key(|(service, _)| *service);
        Self(entries.into_boxed_slice())
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (service, target) in self.iter() {
            // Keys are text: JSON has no others.
            map.serialize_entry(&service.to_string(), &target)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PortsVisitor)
    }
}

struct PortsVisitor;

impl<'de> Visitor<'de> for PortsVisitor {
    type Value = Ports;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of service port to target port, such as {80: 8080}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ports, A::Error> {
        let mut entries = Vec::new();
        while let Some(PortKey(service)) = map.next_key()? {
            entries.push((service, map.next_value()?));
        }
        Ok(entries.into_iter().collect())
    }

    // `ports:` without a value, in a local file.
    fn visit_unit<E>(self) -> Result<Ports, E> {
        Ok(Ports::default())
    }
}

/// A key that is a number in YAML and a string in JSON.
struct PortKey(u16);

impl<'de> Deserialize<'de> for PortKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = PortKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number")
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<PortKey, E> {
                u16::try_from(value).map(PortKey).map_err(|_| E::custom(format!("{value} is not a port number")))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<PortKey, E> {
                u16::try_from(value).map(PortKey).map_err(|_| E::custom(format!("{value} is not a port number")))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<PortKey, E> {
                value.parse().map(PortKey).map_err(|_| E::custom(format!("{value:?} is not a port number")))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_json_and_written_back() {
        let ports: Ports = serde_json::from_str(r#"{"443":8443,"80":8080}"#).unwrap();

        assert_eq!(ports.target(80), Some(8080));
        assert_eq!(ports.target(81), None);
        assert_eq!(serde_json::to_string(&ports).unwrap(), r#"{"80":8080,"443":8443}"#);
    }

    #[test]
    fn of_two_entries_for_a_port_the_last_counts() {
        let entries = vec![(80, 1), (53, 5), (80, 2)];

        assert_eq!(Ports::from(entries.clone()).target(80), Some(2));
        assert_eq!(entries.into_iter().collect::<Ports>().target(80), Some(2));
    }

    #[test]
    fn a_port_beyond_the_range_is_refused() {
        assert!(serde_json::from_str::<Ports>(r#"{"70000":1}"#).is_err());
        assert!(serde_json::from_str::<Ports>(r#"{"80":70000}"#).is_err());
    }
}
