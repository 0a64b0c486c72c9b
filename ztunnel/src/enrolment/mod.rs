//! How pods come and go: the node agent's commands, and the listeners that they start and stop. What a pod is to the rest of
//! the proxy is in `inpod`.

mod pods;
mod session;

pub use pods::{Pods, StartError, launch};
pub use session::run;
