//! The messages of the protocol as checked types, and their wire form. It reads and writes no socket.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use prost::Message;
use proto::workload::zds as wire;

use crate::ZdsError;
use crate::packet::{PACKET_BYTES, Received};

/// A pod's Kubernetes uid, the protocol's key. Never empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodId(Arc<str>);

impl PodId {
    /// `None` when `uid` is empty.
    pub fn new(uid: impl AsRef<str>) -> Option<Self> {
        let uid = uid.as_ref();
        (!uid.is_empty()).then(|| Self(uid.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PodId({})", self.0)
    }
}

/// Description of a pod that the proxy needs before discovery names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadInfo {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
}

/// Request of the agent to the proxy. Each request is answered before the next one is read.
#[derive(Debug)]
pub enum Request {
    /// Open the listeners of this pod in its network namespace.
    ///
    /// Idempotent for the same uid and namespace (device and inode); the same uid with another namespace
    /// replaces the pod at once. The receiver owns `netns`.
    Add { uid: PodId, info: WorkloadInfo, netns: OwnedFd },
    /// The pod exists and its namespace is not known to the agent yet: whatever runs for it stays. Only before [`Request::SnapshotSent`].
    Keep { uid: PodId },
    /// The pod is gone or left the mesh: drain it at once. Before [`Request::SnapshotSent`] it only takes the pod out of the snapshot.
    Del { uid: PodId },
    /// Everything was named; whatever runs and was not named since the connection began is drained. Once per connection.
    SnapshotSent,
}

impl Request {
    /// The pod this is about.
    pub fn uid(&self) -> Option<&PodId> {
        match self {
            Self::Add { uid, .. } | Self::Keep { uid } | Self::Del { uid } => Some(uid),
            Self::SnapshotSent => None,
        }
    }
}

/// A message that parses and still breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("add of {uid} came with {found} file descriptors, expected exactly one")]
    AddDescriptors { uid: String, found: usize },
    #[error("{message} came with {found} file descriptors, expected none")]
    UnexpectedDescriptors { message: &'static str, found: usize },
    #[error("add of {uid} has no workload_info")]
    MissingInfo { uid: String },
    #[error("{message} has no uid")]
    MissingUid { message: &'static str },
    #[error("request without a payload we know")]
    UnknownRequest,
    #[error("{message} after the snapshot was complete")]
    AfterSnapshot { message: &'static str },
    #[error("hello of version {found}, expected 1")]
    Version { found: i32 },
    #[error("answer without an acknowledgement")]
    NotAnAck,
}

impl ProtocolError {
    /// Stable: metric label and log key.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AddDescriptors { .. } => "zds_add_descriptors",
            Self::UnexpectedDescriptors { .. } => "zds_unexpected_descriptors",
            Self::MissingInfo { .. } => "zds_missing_info",
            Self::MissingUid { .. } => "zds_missing_uid",
            Self::UnknownRequest => "zds_unknown_request",
            Self::AfterSnapshot { .. } => "zds_after_snapshot",
            Self::Version { .. } => "zds_version",
            Self::NotAnAck => "zds_not_an_ack",
        }
    }

    /// True when connecting again cannot help: the proxy refuses and exits.
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::MissingInfo { .. } | Self::AfterSnapshot { .. } => true,
            Self::AddDescriptors { .. }
            | Self::UnexpectedDescriptors { .. }
            | Self::MissingUid { .. }
            | Self::UnknownRequest
            | Self::Version { .. }
            | Self::NotAnAck => false,
        }
    }
}

/// Reads one request of the agent. File descriptors that have no place are closed.
pub(crate) fn parse_request(mut packet: Received) -> Result<Request, ZdsError> {
    use wire::workload_request::Payload;
    let request = wire::WorkloadRequest::decode(packet.bytes.as_slice())?;
    // Descriptors are owned by `packet`: every early return below closes them.
    let found = packet.descriptors.len();
    let none = |message: &'static str| match found {
        0 => Ok(()),
        _ => Err(ProtocolError::UnexpectedDescriptors { message, found }),
    };
    let request = match request.payload.ok_or(ProtocolError::UnknownRequest)? {
        Payload::Add(add) => {
            // Exactly one: with two it would be a guess which is the namespace.
            let netns = match (packet.descriptors.pop(), found) {
                (Some(fd), 1) => fd,
                _ => return Err(ProtocolError::AddDescriptors { uid: add.uid, found }.into()),
            };
            let uid = PodId::new(&add.uid).ok_or(ProtocolError::MissingUid { message: "add" })?;
            let info = add.workload_info.ok_or(ProtocolError::MissingInfo { uid: add.uid })?;
            Request::Add {
                uid,
                info: WorkloadInfo {
                    name: info.name.into(),
                    namespace: info.namespace.into(),
                    service_account: info.service_account.into(),
                },
                netns,
            }
        }
        Payload::Keep(keep) => {
            none("keep")?;
            Request::Keep { uid: PodId::new(keep.uid).ok_or(ProtocolError::MissingUid { message: "keep" })? }
        }
        Payload::Del(del) => {
            none("del")?;
            Request::Del { uid: PodId::new(del.uid).ok_or(ProtocolError::MissingUid { message: "del" })? }
        }
        Payload::SnapshotSent(_) => {
            none("snapshot_sent")?;
            Request::SnapshotSent
        }
    };
    Ok(request)
}

/// Reads the proxy's first packet.
pub(crate) fn parse_hello(packet: &Received) -> Result<(), ZdsError> {
    let hello = wire::ZdsHello::decode(packet.bytes.as_slice())?;
    match wire::Version::try_from(hello.version) {
        Ok(wire::Version::V1) => {}
        // proto3 leaves out a field that is 0, so a hello without version is `NotUsed`.
        Ok(wire::Version::NotUsed) | Err(_) => return Err(ProtocolError::Version { found: hello.version }.into()),
    }
    match packet.descriptors.len() {
        0 => Ok(()),
        found => Err(ProtocolError::UnexpectedDescriptors { message: "hello", found }.into()),
    }
}

/// Reads the proxy's answer to one request: the inner result is the proxy's.
pub(crate) fn parse_ack(packet: &Received) -> Result<Result<(), String>, ZdsError> {
    let response = wire::WorkloadResponse::decode(packet.bytes.as_slice())?;
    match response.payload {
        Some(wire::workload_response::Payload::Ack(ack)) if ack.error.is_empty() => Ok(Ok(())),
        Some(wire::workload_response::Payload::Ack(ack)) => Ok(Err(ack.error)),
        None => Err(ProtocolError::NotAnAck.into()),
    }
}

pub(crate) fn hello() -> Vec<u8> {
    wire::ZdsHello { version: wire::Version::V1.into() }.encode_to_vec()
}

/// Longest text of a refusal, so that the packet around it stays below [`PACKET_BYTES`].
const ERROR_BYTES: usize = PACKET_BYTES - 32;

/// The text of an error is cut at [`ERROR_BYTES`]; an empty one becomes "unknown error", because an empty text means success.
pub(crate) fn ack(result: Result<(), &str>) -> Vec<u8> {
    let error = match result {
        Ok(()) => String::new(),
        Err("") => "unknown error".to_owned(),
        // Between two characters: a text of protobuf has to be UTF-8.
        Err(text) => text[..text.floor_char_boundary(ERROR_BYTES)].to_owned(),
    };
    wire::WorkloadResponse { payload: Some(wire::workload_response::Payload::Ack(wire::Ack { error })) }.encode_to_vec()
}

pub(crate) fn add(uid: &PodId, info: &WorkloadInfo) -> Vec<u8> {
    let info = wire::WorkloadInfo {
        name: info.name.to_string(),
        namespace: info.namespace.to_string(),
        service_account: info.service_account.to_string(),
    };
    request(wire::workload_request::Payload::Add(wire::AddWorkload { uid: uid.to_string(), workload_info: Some(info) }))
}

pub(crate) fn keep(uid: &PodId) -> Vec<u8> {
    request(wire::workload_request::Payload::Keep(wire::KeepWorkload { uid: uid.to_string() }))
}

pub(crate) fn del(uid: &PodId) -> Vec<u8> {
    request(wire::workload_request::Payload::Del(wire::DelWorkload { uid: uid.to_string() }))
}

pub(crate) fn snapshot_sent() -> Vec<u8> {
    request(wire::workload_request::Payload::SnapshotSent(wire::SnapshotSent {}))
}

fn request(payload: wire::workload_request::Payload) -> Vec<u8> {
    wire::WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: Vec<u8>) -> Received {
        Received { bytes, descriptors: Vec::new() }
    }

    #[test]
    fn a_long_refusal_is_cut_to_fit_one_packet() {
        let text = "ü".repeat(2000);

        let bytes = ack(Err(&text));

        assert!(bytes.len() <= PACKET_BYTES);
        let back = parse_ack(&packet(bytes)).unwrap().unwrap_err();
        assert!(text.starts_with(&back));
    }

    #[test]
    fn a_refusal_without_text_is_still_a_refusal() {
        assert!(parse_ack(&packet(ack(Err("")))).unwrap().is_err());
    }

    #[test]
    fn the_bytes_on_the_wire_are_those_of_istio() {
        let uid = PodId::new("u1").unwrap();
        let info = WorkloadInfo { name: "n".into(), namespace: "ns".into(), service_account: "sa".into() };

        assert_eq!(add(&uid, &info), b"\x0a\x11\x0a\x02u1\x12\x0b\x0a\x01n\x12\x02ns\x1a\x02sa");
        assert_eq!(del(&uid), b"\x12\x04\x12\x02u1");
        assert_eq!(keep(&uid), b"\x2a\x04\x0a\x02u1");
        assert_eq!(snapshot_sent(), b"\x1a\x00");
        assert_eq!(ack(Ok(())), b"\x0a\x00");
        assert_eq!(hello(), b"\x08\x01");
    }

    #[test]
    fn an_empty_request_is_unknown_and_not_fatal() {
        let error = parse_request(packet(Vec::new())).unwrap_err();

        assert!(matches!(error, ZdsError::Protocol(ProtocolError::UnknownRequest)));
        assert!(!error.is_fatal());
    }
}
