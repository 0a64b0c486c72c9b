//! The node agent: enrols the pods of one node, proves it, and hands their network namespaces to the proxy.
//! It sees nothing of HBONE and its TLS, and it decides no policy.

pub mod admin;
pub mod agent;
pub mod cgroups;
pub mod cni;
pub mod config;
pub mod connections;
pub mod controller;
mod described;
pub mod enrol;
pub mod finder;
pub mod hooks;
pub mod install;
pub mod locals;
pub mod metrics;
pub mod netlink;
pub mod node;
pub mod pod;
pub mod pod_settings;
pub mod prober;
pub mod probes;
mod proc_sys;
pub mod proxies;
mod raw_netlink;
pub mod report;
pub mod rules;
pub mod source;
pub mod static_pods;
pub mod surveys;
pub mod sysctl;
pub mod taint;
pub mod takeover;
#[cfg(test)]
mod testing;
pub mod unsupported;
