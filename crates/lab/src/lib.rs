//! Nodes and pods of a directory of manifests as namespaces of one machine: what `strake lab`, the demo and
//! the topology tests run on. [`Lab`] is the handle; the rest is the supervisor's, which plays scheduler,
//! kubelet, kube-proxy and cluster DNS. It knows no policy and no proxy: those are pods like others.

mod addresses;
mod any_certificate;
mod command;
pub mod control;
mod dns;
mod error;
mod handle;
mod kube_proxy;
mod launch;
pub mod logs;
mod network;
mod options;
pub mod output;
pub mod paths;
mod pod;
mod prober;
pub mod process;
mod process_ids;
mod scheduler;
mod services;
mod supervisor;
mod system;
mod validate;
mod workloads;

pub use any_certificate::AnyCertificate;
pub use command::{Capture, Captured, Output, Process, Running};
pub use control::{ContainerInfo, NodeInfo, Phase, PodInfo, Role, ServiceInfo, Status, Target};
pub use error::LabError;
pub use handle::{Lab, down, exists, exit_code, names, split_pod};
pub use options::{BIN_DIR_VARIABLE, Options, SYSTEM_PROGRAMS, validate_name};
