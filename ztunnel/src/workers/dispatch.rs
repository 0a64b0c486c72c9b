//! Starts the steps of a connection, by the listener that it came to.

use crate::inpod::ListenerKind;
use crate::proxy::{Connection, PodContext, inbound, outbound, plaintext};
use std::rc::Rc;

/// Starts carrying `connection` for `pod`.
pub(super) fn dispatch(pod: &Rc<PodContext>, connection: Connection) {
    let context = pod.clone();
    match connection.kind {
        ListenerKind::Outbound => pod.connections.spawn(outbound::serve(context, connection)),
        ListenerKind::Hbone => pod.connections.spawn(inbound::serve(context, connection)),
        ListenerKind::Plaintext => pod.connections.spawn(plaintext::serve(context, connection)),
    }
}
