//! Requests of a CNI plugin to an agent, and the answers.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use contract::cni::{AddRequest, AddResponse, IpConfig, PLUGIN_TIMEOUT, SOCKET_NAME};

use crate::node::{ADDRESSES, Node, Pod};

/// Beyond the time that an agent has: what comes later has failed.
const LATER: Duration = Duration::from_secs(2);

/// A plugin of one node.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    socket: PathBuf,
}

impl Plugin {
    pub(crate) fn of(node: &Node) -> Self {
        Self { socket: node.path("run").join(SOCKET_NAME) }
    }

    /// The request for a pod whose namespace this process holds.
    pub(crate) fn request(pod: &Pod) -> AddRequest {
        AddRequest {
            netns: format!("/proc/{}/fd/{}", std::process::id(), pod.netns.as_fd().as_raw_fd()),
            pod_name: pod.name.clone(),
            pod_namespace: "app".to_owned(),
            pod_uid: Some(pod.uid.clone()),
            ips: ADDRESSES.iter().map(|ip| IpConfig::host(ip.parse().unwrap())).collect(),
        }
    }

    /// Status and body of the answer, or why there is none.
    pub(crate) fn ask(&self, request: &AddRequest) -> Result<(u16, AddResponse), String> {
        let (status, body) = self.post(&serde_json::to_string(request).unwrap())?;
        Ok((status, serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?))
    }

    pub(crate) fn post(&self, body: &str) -> Result<(u16, String), String> {
        let mut stream = self.send(body).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer:?}"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| head.to_owned())?, body.to_owned()))
    }

    /// A request that was sent; whoever drops it does not wait for the answer.
    pub(crate) fn send(&self, body: &str) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PLUGIN_TIMEOUT + LATER))?;
        let length = body.len();
        write!(
            stream,
            "POST /cmdadd HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        Ok(stream)
    }
}
