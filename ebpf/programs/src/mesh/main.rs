//! The object `mesh`: what runs in the node's cgroups. It marks and tags sockets, notes
//! the proxy's listeners, sends DNS questions to the proxy and drops what would leave a pod past the proxy; where packets go is decided by routing and by the
//! object `sk_lookup`.
#![no_std]
#![no_main]

mod bind;
mod connect;
#[path = "../context.rs"]
mod context;
mod dns;
mod egress;
mod getpeername;
#[path = "../maps.rs"]
mod maps;
mod recvmsg;
mod sendmsg;
mod sock_addr;
mod sock_create;
mod socket;
mod sockops;
mod tag;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
