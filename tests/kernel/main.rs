//! Kernel programs, loaded into namespaces and cgroups of their own: a file per hook.
//!
//! Needs root. Nothing of ours runs but the programs and their loader; the proxy is `stage::proxy`.

mod bind;
mod connect;
mod egress;
mod getpeername;
mod loader;
mod recvmsg;
mod sendmsg;
mod sk_lookup;
mod sock_create;
mod sockops;
mod stage;
