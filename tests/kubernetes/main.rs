//! Real Kubernetes: API server, kubelets and containers on two nodes of this machine (`cluster/`). These tests prove that
//! the cluster does as real ones do, and leaves nothing behind; what fails here is not the mesh's fault.
//!
//! One cluster serves all tests that do not disturb others. Each test has a namespace of its own.

mod admission;
mod api_server;
mod chart;
mod cni;
mod daemonset;
mod images;
mod leftovers;
mod nodes;
mod pods;
mod probes;
mod reboot;
mod services;
mod stage;
mod story;
mod variants;
