//! Admin pages of our own programs, which the command line reads. Pages that are Istio's (`/config_dump`) keep their own form.
//!
//! Fields stay as they are; others may be added. Unknown fields are ignored by readers.

pub mod agent;
pub mod control;

/// Name of each program's admin socket, in its run directory.
pub const SOCKET_NAME: &str = "admin.sock";

/// Path of the readiness page of agent and control plane: status 200, or 503 with what is pending.
pub const READY_PATH: &str = "/readyz";
