//! The program itself, started for one pod in that pod's namespace.
#![allow(dead_code, unreachable_pub)]

use crate::pods::Pod;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A proxy for one pod, in that pod's namespace. Killed when dropped.
pub struct Program(Child);

impl Program {
    pub fn start(pod: &Pod, deadline: Duration) -> Self {
        let workload = serde_json::to_string(&pod.workload("TCP")).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &pod.namespace, env!("CARGO_BIN_EXE_ztunnel")])
            .env("PROXY_MODE", "dedicated")
            .env("PROXY_WORKLOAD_INFO", format!("test/{}/sa-{}", pod.name, pod.name))
            .env("PACKET_MARK", "1337")
            // Under netfilter a connection to the application with its client's address can meet one of that client.
            .env("ENABLE_ORIG_SRC", "false")
            .env("LOCAL_XDS", format!("workloads: [{workload}]"))
            .env("XDS_ADDRESS", "")
            .env("CA_ADDRESS", "https://127.0.0.1:1")
            .env("CA_ROOT_CA", "SYSTEM")
            .env("CONNECTION_TERMINATION_DEADLINE", format!("{}s", deadline.as_secs()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
