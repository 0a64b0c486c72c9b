//! Starts and stops pods at the node agent's commands. The pods themselves are in `inpod`.

mod pods;
mod session;

pub use pods::{Pods, StartError, launch};
pub use session::run;
