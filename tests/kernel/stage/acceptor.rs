//! A listener with a thread that serves what it accepts. Both sides of a test use it: the proxy and
//! the applications.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use runtime::sys::socket::canonical;
use socket2::{SockRef, Socket};

use super::RETRANSMITTED;

/// Stops listening when dropped. Its threads have the cgroup and namespace of whoever starts it.
pub(crate) struct Acceptor {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    pub(crate) fn start(listener: Socket, serve: fn(TcpStream)) -> Self {
        let listener = TcpListener::from(listener);
        let accepting = listener.try_clone().unwrap();
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                stream.set_read_timeout(Some(RETRANSMITTED)).unwrap();
                thread::spawn(move || serve(stream));
            }
        });
        Self { listener, thread: Some(thread) }
    }

    /// An application that repeats the request and adds who sent it.
    pub(crate) fn application(address: SocketAddr) -> Self {
        Self::start(TcpListener::bind(address).unwrap().into(), |mut client| {
            let peer = canonical(client.peer_addr().unwrap());
            let mut request = String::new();
            if client.read_to_string(&mut request).is_ok() {
                let _ = client.write_all(format!("{request} from {peer}").as_bytes());
            }
        })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
